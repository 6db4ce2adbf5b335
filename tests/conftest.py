"""Fixtures shared by all tests."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.scipion.plugin_runs import start

# Several processes share the cores: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real and golden test data: ``CRYODEN_TEST_DATA``, else ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("CRYODEN_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set CRYODEN_TEST_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def plugin_runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future]]:
    """The outcomes to come of the plugin's tests that were selected, which begin with the first test of all."""
    names = [item.callspec.params["name"] for item in request.session.items if item.path.name == "test_plugin.py"]
    pool, runs = start(names, tmp_path_factory.mktemp)
    yield runs
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def nearly_full_disk() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Within the block no file can grow beyond so many bytes: the operating system itself refuses to write."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited

"""Fixtures shared by all tests."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real and golden test data: ``CRYODEN_TEST_DATA``, else ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("CRYODEN_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set CRYODEN_TEST_DATA")
    return folder


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

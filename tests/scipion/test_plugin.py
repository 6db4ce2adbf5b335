"""Runs the plugin's own tests as a person would, ``python -m scipion tests``, in a Scipion of their own.

Scipion configures itself from environment variables when it is first imported, so each module of tests gets a process
and a folder.  Most of their time is spent waiting for Scipion's own clocks; a few are run at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "cryoden_scipion" / "tests").glob("test_*.py"))
AT_A_TIME = 3
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"


#: Modules of which nothing can run without the test data.
NEED_TEST_DATA = {"test_after_imod", "test_mlp_after_imod"}


def data_folder() -> Path:
    """The folder of the test data, as a path that holds in any working folder."""
    return Path(os.environ.get("CRYODEN_TEST_DATA") or ROOT.parent / "shared" / "data").resolve()


def environment(folder: Path) -> dict[str, str]:
    """The variables of a Scipion that lives in ``folder``, and what makes its clocks quick."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "hosts.conf").write_text(HOSTS)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SCIPION", "CRYODEN_PY"))}
    return inherited | {
        "CRYODEN_TEST_DATA": str(data_folder()),
        "SCIPION_HOME": str(folder),
        "SCIPION_USER_DATA": str(folder / "user"),
        "SCIPION_DOMAIN": "pwem",
        "SCIPION_NOTIFY": "False",
        "SCIPION_PRIORITY_PACKAGE_LIST": "pwem tomo",
        "SCIPION_TEST_NOSYNC": "True",
        "SCIPION_STEPS_CHECK_SEC": "1",
        "SQLITE_JOURNAL_MODE": "WAL",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONNOUSERSITE": "1",
        # Protocols are started as 'python3' from the PATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def lacks_data(name: str) -> bool:
    """True where Scipion would run 0 tests, which it calls a failure."""
    return name in NEED_TEST_DATA and not (data_folder() / "imod_golden" / "A").is_dir()


def run_module(name: str, folder: Path) -> subprocess.CompletedProcess:
    """Run one module of the plugin's tests."""
    command = [sys.executable, "-m", "scipion", "tests", f"cryoden_scipion.tests.{name}"]
    return subprocess.run(
        command, cwd=folder, env=environment(folder / "scipion"), capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request) -> dict[str, Future]:
    """All modules that were selected, running side by side."""
    items = [item for item in request.session.items if item.fspath == request.node.fspath]
    names = [item.callspec.params["name"] for item in items]
    selected = [name for name in names if not lacks_data(name)]
    pool = ThreadPoolExecutor(AT_A_TIME)
    yield {name: pool.submit(run_module, name, tmp_path_factory.mktemp(name)) for name in selected}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", MODULES)
def test_the_plugins_tests_pass_in_scipion(runs, name):
    if lacks_data(name):
        pytest.skip(f"no test data in {data_folder()}; set CRYODEN_TEST_DATA")
    done = runs[name].result()
    output = done.stdout + done.stderr
    assert "[  PASSED  ]" in output and "[  FAILED  ]" not in output and done.returncode == 0, output[-20000:]
    assert "run 0 tests" not in output

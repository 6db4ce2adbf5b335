"""How the plugin's own tests are run: as a person would, ``python -m scipion tests``, in a Scipion of their own.

Scipion configures itself from environment variables when it is first imported, so each module of tests gets a process
and a folder.  Most of their time is spent waiting for Scipion's own clocks; a few are run at a time, beside the tests
of the core.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

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


def start(names: Iterable[str], folder_of: Callable[[str], Path]) -> tuple[ProcessPoolExecutor, dict[str, Future]]:
    """Begin to run modules of tests side by side; returns what runs them, and the outcomes to come.

    In processes of their own, which other tests cannot change the environment of, nor limit in what they may write.
    """
    pool = ProcessPoolExecutor(AT_A_TIME, multiprocessing.get_context("spawn"))
    return pool, {name: pool.submit(run_module, name, folder_of(name)) for name in names if not lacks_data(name)}

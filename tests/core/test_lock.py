"""Two processes never work in one run folder."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from cryoden_core import api, lock
from cryoden_core.jobs import JobError, NmsgJob, RunFolder
from cryoden_core.lock import sole_use

HOLD = (
    "import sys; from cryoden_core.lock import sole_use; from cryoden_core.jobs import RunFolder\n"
    "with sole_use(RunFolder(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(str(tmp_path / "a run"))


@pytest.fixture
def holder(folder, monkeypatch):
    """Another process that holds the folder."""
    monkeypatch.delenv("RANK", raising=False)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def refused(folder) -> str:
    with pytest.raises(JobError) as caught, sole_use(folder):
        pass
    return str(caught.value)


def test_a_held_folder_is_refused_with_its_name_and_holder(folder, holder):
    message = refused(folder)
    assert folder.path in message and f"process {holder.pid} on" in message


def test_a_refused_run_changes_nothing_in_the_folder(folder, holder, tmp_path):
    with open(folder.progress, "w") as stream:
        stream.write("the other run's")
    job = NmsgJob(input=str(tmp_path / "a.mrc"), output=str(tmp_path / "b.mrc"), run_folder=folder.path)
    with pytest.raises(JobError, match="is at work in the run folder"):
        api.run(job, quiet=True)
    with open(folder.progress) as stream:
        assert stream.read() == "the other run's"
    assert sorted(os.listdir(folder.path)) == ["progress.json", "run.lock"]


def test_a_killed_process_leaves_the_folder_free(folder, holder):
    holder.kill()
    holder.wait()
    with sole_use(folder):
        pass


def test_a_run_that_is_about_to_end_is_waited_for(folder, holder, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 30.0)
    threading.Timer(0.5, holder.kill).start()
    with sole_use(folder):
        assert holder.wait(10) != 0


def test_a_process_frees_the_folder_when_its_run_ends_or_fails(folder):
    with pytest.raises(ZeroDivisionError), sole_use(folder):
        raise ZeroDivisionError
    with sole_use(folder):
        assert "is at work" in refused(folder)


def test_the_other_processes_of_torchrun_share_the_folder_of_the_first(folder, holder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with sole_use(folder):
        pass
    monkeypatch.setenv("RANK", "0")
    refused(folder)


def test_a_file_system_without_locks_does_not_stop_a_run(folder, monkeypatch):
    def unsupported(stream, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with sole_use(folder):
        assert os.path.isdir(folder.path)
    monkeypatch.setattr(lock, "fcntl", None)
    with sole_use(folder):
        pass

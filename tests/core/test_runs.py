"""What is left of an older run when a new one begins in its folder."""

import os

import pytest

from cryoden_core.jobs import NmsgJob, PickJob, RunFolder, read_job
from cryoden_core.runs import Finished, begin

#: With the signs that a file name pattern would take for its own.
FOLDER = "run [1]*"


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(str(tmp_path / FOLDER))
    os.makedirs(folder.path)
    states = (folder.checkpoint, folder.checkpoint + ".even", folder.noise_checkpoint, folder.noise_checkpoint + ".1")
    told = (folder.metrics, folder.finished, folder.result, folder.report, folder.noise_report)
    for path in (*states, *told, folder.model):
        with open(path, "w") as stream:
            stream.write("old")
    return folder


def begun(folder: RunFolder, resume: bool) -> set[str]:
    job = NmsgJob(input="a.mrc", output="b.mrc", resume=resume)
    begin(folder, job, folder.noise_report)
    assert read_job(folder.job) == job
    return set(os.listdir(folder.path))


def test_a_fresh_run_finds_nothing_of_an_older_one_but_its_model(folder):
    assert begun(folder, resume=False) == {"job.json", "model.safetensors"}


def test_a_resumed_run_keeps_its_states_and_figures_but_no_sign_of_being_done(folder):
    kept = {"checkpoint.pt", "checkpoint.pt.even", "noise_checkpoint.pt", "noise_checkpoint.pt.1", "metrics.csv"}
    kept.add("finished.json")
    assert begun(folder, resume=True) == kept | {"job.json", "model.safetensors", "noise_report.json"}


def test_a_job_that_trains_nothing_takes_only_the_older_result_away(folder):
    there = set(os.listdir(folder.path))
    begin(folder, PickJob(input="a.mrc", output="b.star"))
    assert set(os.listdir(folder.path)) == there - {"result.json", "report.png"} | {"job.json"}


def test_the_folder_of_a_first_run_is_made(tmp_path):
    assert begun(RunFolder(str(tmp_path / "new" / "run")), resume=False) == {"job.json"}


class TestFinished:
    """Which outputs a job of several need not make again."""

    def write(self, path, text="whole"):
        path.write_text(text)
        return str(path)

    def test_only_files_that_the_same_work_finished_and_nobody_changed_are_finished(self, tmp_path):
        record, output, half = str(tmp_path / "finished.json"), tmp_path / "a.mrc", tmp_path / "b.mrc"
        files = [self.write(output), self.write(half)]
        first = Finished(record, {"seed": 1, "files": [[1, 2]]})
        assert not first.has(files)
        first.add(files)
        assert first.has(files)
        assert Finished(record, {"seed": 1, "files": [[1, 2]]}).has(files)
        assert not Finished(record, {"seed": 2, "files": [[1, 2]]}).has(files)
        assert not Finished(record, {"seed": 1, "files": [[1, 2]]}).has([*files, str(tmp_path / "c.mrc")])
        self.write(half, "something else")
        assert not Finished(record, {"seed": 1, "files": [[1, 2]]}).has(files)
        half.unlink()
        assert not Finished(record, {"seed": 1, "files": [[1, 2]]}).has(files)

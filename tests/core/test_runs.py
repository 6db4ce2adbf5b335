"""What is left of an older run when a new one begins in its folder."""

import os

import pytest

from cryoden_core.jobs import NmsgJob, RunFolder, read_job
from cryoden_core.runs import begin

#: With the signs that a file name pattern would take for its own.
FOLDER = "run [1]*"


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(str(tmp_path / FOLDER))
    os.makedirs(folder.path)
    states = (folder.checkpoint, folder.checkpoint + ".even", folder.noise_checkpoint, folder.noise_checkpoint + ".1")
    for path in (*states, folder.metrics, folder.result, folder.report, folder.noise_report, folder.model):
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
    assert begun(folder, resume=True) == kept | {"job.json", "model.safetensors", "noise_report.json"}


def test_the_folder_of_a_first_run_is_made(tmp_path):
    assert begun(RunFolder(str(tmp_path / "new" / "run")), resume=False) == {"job.json"}

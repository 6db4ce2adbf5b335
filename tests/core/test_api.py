"""The Python interface: one function for each system, and what a run tells and leaves behind."""

import inspect
import os

import pytest

from cryoden_core import api
from cryoden_core.jobs import SYSTEMS, JobError, NmsgJob, default_of, parameters_of
from cryoden_core.progress import read_progress


def function_of(system: str):
    return getattr(api, system.replace(" ", "_").replace("-", "_"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_is_a_function_that_asks_for_what_its_job_cannot_do_without(system, monkeypatch):
    ran = []
    monkeypatch.setattr(api, "run", ran.append)
    arguments = [
        name for name, about in inspect.signature(function_of(system)).parameters.items()
        if about.kind is not inspect.Parameter.VAR_KEYWORD
    ]  # fmt: skip
    job = SYSTEMS[system]
    parameters = parameters_of(job)
    assert {name for name, about in parameters.items() if about.required} <= set(arguments)
    names = {name: name + (parameters[name].endings or [".mrc"])[0] for name in arguments}
    values = {name: [text] if isinstance(default_of(job, name), list) else text for name, text in names.items()}
    if system == "phantom":
        values["kind"] = "spheres"
    # Beyond that some jobs want one thing or the other.
    more = {"evaluate picking": {"picks": "folder"}, "evaluate hallucination": {"controls": "folder"}}
    function_of(system)(**values, **more.get(system, {}))
    assert type(ran[0]) is job
    assert {name: getattr(ran[0], name) for name in arguments} == values


def test_an_unknown_parameter_is_refused_by_its_name():
    with pytest.raises(JobError, match="unknown parameter 'strenght' for 'nmsg'"):
        api.nmsg("a.mrc", "b.mrc", strenght=1)


@pytest.fixture
def job(tmp_path) -> NmsgJob:
    return NmsgJob(input=str(tmp_path / "none.mrc"), output=str(tmp_path / "b.mrc"), device="cpu", threads=1)


def test_a_failed_run_says_why_in_its_progress(job):
    with pytest.raises(JobError) as error:
        api.run(job, quiet=True)
    state = read_progress(job.folder().progress)
    assert state["state"] == "failed" and state["message"] == str(error.value)


def test_only_the_first_process_of_several_tells_of_the_run(job, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(JobError):
        api.run(job)
    assert not os.path.exists(job.folder().progress)


def test_a_run_folder_that_cannot_be_is_one_sentence(job, tmp_path):
    (tmp_path / "file").write_text("")
    job.run_folder = str(tmp_path / "file" / "run")
    with pytest.raises(JobError, match="cannot write into the run folder"):
        api.run(job, quiet=True)

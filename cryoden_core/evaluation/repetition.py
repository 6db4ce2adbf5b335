"""Carry out a job once more, on another input: how a method is tested on volumes made for the test."""

from __future__ import annotations

import dataclasses
import os

from ..jobs import ComputeJob, JobError, RunFolder, parameters_of, read_job

#: What belongs to the input of the first run alone.
_OWN = ("even", "odd", "output_even", "output_odd", "mask", "save_model", "uncertainty", "run_folder", "train_with",
        "resume")  # fmt: skip


def read_method(path: str) -> ComputeJob:
    """The job of a job file; a :class:`JobError` when it does not make one volume from another."""
    job = read_job(path)
    if not isinstance(job, ComputeJob) or not {"input", "output"} <= set(parameters_of(job)):
        raise JobError(f"the job in {path} ({job.system}) does not make one volume from another.")
    return job


def repeat(path: str, input: str, output: str) -> None:
    """Run the job of a job file on another volume.

    Where the job trained a model and it is still there, in the run folder or where the job saved it, this model is
    applied; without, the job trains again on the new volume.

    Parameters
    ----------
    path
        Job file of a method that makes one volume from one, such as ``denoised_cryoden/job.json``.
    input, output
        Volumes (MRC).

    Raises
    ------
    JobError
        When the file is no such job, or the job refuses the volume.
    """
    from ..api import run

    job = read_method(path)
    given = dataclasses.asdict(job)
    trained = given.get("save_model") or RunFolder.beside(given["output"], given.get("run_folder", "")).model
    if "model" in given and not given["model"] and os.path.exists(trained):
        given["model"] = trained
    given.update({name: type(given[name])() for name in _OWN if name in given})
    given.update(input=input, output=output)
    run(type(job).from_parameters(given), quiet=True)

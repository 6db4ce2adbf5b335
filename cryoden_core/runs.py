"""How a job's run begins: its folder is made, leftovers of an older run go, and what was asked is written down."""

from __future__ import annotations

import contextlib
import os

from .jobs import ComputeJob, RunFolder, write_job


def begin(folder: RunFolder, job: ComputeJob, *leftovers: str) -> None:
    """Make the run folder and write ``job.json`` into it.

    Of an older run its result and report always go, which would pass for this run's; checkpoints, metrics and
    ``leftovers``, the files that this kind of job leaves beside them, stay for a job that resumes.
    """
    os.makedirs(folder.path, exist_ok=True)
    stale = [folder.result, folder.report]
    if not job.resume:
        stale += [folder.metrics, *folder.checkpoints(), *leftovers]
    for path in stale:
        # Each of several processes under torchrun begins the run.
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    write_job(job, folder.job)

"""How a job's run begins: its folder is made, leftovers of an older run go, and what was asked is written down."""

from __future__ import annotations

import os

from .jobs import ComputeJob, RunFolder, write_job


def begin(folder: RunFolder, job: ComputeJob, *leftovers: str) -> None:
    """Make the run folder and write ``job.json``; unless the job resumes, no trace of an older run stays.

    ``leftovers`` are files that this kind of job leaves beside checkpoint, metrics, result and report.
    """
    os.makedirs(folder.path, exist_ok=True)
    if not job.resume:
        for path in (folder.checkpoint, folder.metrics, folder.result, folder.report, *leftovers):
            if os.path.exists(path):
                os.remove(path)
    write_job(job, folder.job)

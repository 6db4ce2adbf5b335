"""How a job's run begins: its folder is made, leftovers of an older run go, and what was asked is written down.

And which of its outputs are finished, for a job of several that is interrupted and resumes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from .jobs import ComputeJob, Job, ResumableJob, RunFolder, read_json, write_job, write_json


def begin(folder: RunFolder, job: Job, *leftovers: str) -> None:
    """Make the run folder and write ``job.json`` into it.

    Of an older run its result and report always go, which would pass for this run's; checkpoints, metrics, the list
    of finished outputs and ``leftovers``, the files that this kind of job leaves beside them, stay for a job that
    resumes, and for one that computes on no device and leaves no such files.
    """
    os.makedirs(folder.path, exist_ok=True)
    stale = [folder.result, folder.report]
    resumes = isinstance(job, ResumableJob) and job.resume
    if isinstance(job, ComputeJob) and not resumes:
        stale += [folder.metrics, folder.finished, *folder.checkpoints(), *leftovers]
    for path in stale:
        # Each of several processes under torchrun begins the run.
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    write_job(job, folder.job)


def file_state(path: str) -> list[int]:
    """Size and time of the last change of a file, which tell whether it is still the same; empty where there is none.

    A list of whole numbers, which JSON gives back unchanged.
    """
    try:
        state = os.stat(path)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


class Finished:
    """The outputs of a job of several that are finished, so that it need not make them again when it resumes.

    Parameters
    ----------
    path
        File that keeps them from run to run.
    made_from
        What the outputs depend on, in a form that JSON gives back unchanged; what was made from anything else does not
        count.
    """

    def __init__(self, path: str, made_from: dict[str, Any]) -> None:
        self._path, self._made_from = path, made_from
        kept = read_json(path)
        self._states = dict(kept["outputs"]) if kept.get("made_from") == made_from else {}

    def has(self, files: Sequence[str]) -> bool:
        """Whether these files were all finished, and have not changed since."""
        return all(self._states.get(os.path.abspath(path)) == file_state(path) for path in files)

    def add(self, files: Sequence[str]) -> None:
        """Note that these files are whole."""
        self._states.update({os.path.abspath(path): file_state(path) for path in files})
        write_json({"made_from": self._made_from, "outputs": self._states}, self._path)

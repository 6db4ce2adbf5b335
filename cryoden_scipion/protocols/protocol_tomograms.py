"""Protocols that are one job of the core for each tomogram of a set: picking, and all that applies DUAL."""

from typing import Any, List

from cryoden_core.jobs import Job, JobError

from ..convert import input_problems
from ..forms import at_most
from .protocol_streaming import ProtCryodenStreaming


class ProtCryodenTomograms(ProtCryodenStreaming):
    """A job for each tomogram.

    A subclass gives :meth:`_jobOf`, and in :meth:`_written` what the job must leave beside its result.
    """

    # --------------------------- STEPS functions -----------------------------
    def processItem(self, tsId: str) -> None:
        """Write and run the job of one tomogram."""
        job = self._jobOf(tsId)
        self.runCoreJob(job, self._itemFolder(tsId), self._written(job))

    def _jobOf(self, tsId: str) -> Job:
        """The job of one tomogram, which is among the items.

        Raises
        ------
        JobError
            When a parameter is out of its range, or contradicts another.
        """
        raise NotImplementedError

    def _written(self, job: Any) -> List[str]:
        """The files that a job writes."""
        return [job.output]

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = [*super()._validate(), *self._inputProblems()]
        tomograms = self.getInputSet()
        if tomograms is None:
            return problems
        found: List[str] = []
        for tomogram in tomograms.iterItems():
            found.extend(input_problems(tomogram, self._usesHalves()))
        if not found and not problems:
            found.extend(self._jobProblems())
        return problems + at_most(found, what="tomograms")

    def _inputProblems(self) -> List[str]:
        """What is wrong with the other inputs."""
        return []

    def _jobProblems(self) -> List[str]:
        """What the job of the first tomogram says: parameters that exclude each other."""
        first = self.getInputSet().getFirstItem()
        if first is None:
            return []
        first = first.clone()  # the set's own object becomes another item when the set is read again
        self._items.setdefault(first.getTsId(), first)
        try:
            self._jobOf(first.getTsId())
        except JobError as error:
            return [str(error)]
        finally:
            self._items.pop(first.getTsId())
        return []

    # --------------------------- UTILS functions -----------------------------
    def _usesHalves(self) -> bool:
        return False

"""Protocols that are one job of the core: make a clean domain, train a model.

The job runs in one folder below ``extra``; *Continue* takes it up where it was stopped.
"""

from typing import Any, Dict, List

from cryoden_core.jobs import Job, JobError, read_json
from cryoden_core.progress import DONE, read_progress

from ..convert import ItemFolder
from .protocol_base import ItemFailed, ProtCryodenBase
from .texts import condensed, describe_progress, describe_time


class ProtCryodenOneJob(ProtCryodenBase):
    """One job and what is registered after it.

    A subclass gives :meth:`_job`, :meth:`createOutputStep` and, in :meth:`_awaited`, the files that the job must leave
    besides ``result.json``; ``FOLDER`` is the name of its folder.
    """

    FOLDER = "run"

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.runStep, needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    def runStep(self) -> None:
        """Run the job, or go on with it."""
        try:
            self.runCoreJob(self._job(), self.folder(), self._awaited())
        except (ItemFailed, JobError) as error:
            raise RuntimeError(str(error)) from error

    def createOutputStep(self) -> None:
        """Register what the job made."""
        raise NotImplementedError

    def _job(self) -> Job:
        """The job; may write its input files first."""
        raise NotImplementedError

    def _awaited(self) -> List[str]:
        """Files that must be there afterwards."""
        return []

    # --------------------------- INFO functions ------------------------------
    def _summary(self) -> List[str]:
        progress = read_progress(self.folder().progress)
        if not progress:
            return ["Nothing was computed yet."]
        if progress.get("state") != DONE:
            return [describe_progress(progress), *_warned(progress)]
        result = self._result()
        lines = self._describeResult(result)
        if result.get("seconds") is not None:
            lines.append("Took %s." % describe_time(result["seconds"]))
        return lines + _warned(result)

    def _describeResult(self, result: Dict[str, Any]) -> List[str]:
        """Lines of the summary after the run."""
        return []

    # --------------------------- UTILS functions -----------------------------
    def folder(self) -> ItemFolder:
        """Where the job runs."""
        return ItemFolder(self._getExtraPath(self.FOLDER))

    def _result(self) -> Dict[str, Any]:
        return read_json(self.folder().result)


def _warned(content: Dict[str, Any]) -> List[str]:
    """Lines for the warnings in a file of the run, which are said while it goes on too: some are reasons to stop it."""
    return ["*Warning*: %s" % warning for warning in condensed(content.get("warnings") or [])]

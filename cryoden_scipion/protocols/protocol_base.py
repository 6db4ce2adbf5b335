"""What the protocols of CryoDen share: running jobs, streaming over tomograms, outputs, failures and progress.

All heavy work is one process of the core per tomogram, started with ``runJob`` so that it can go through a queue.
What happened to a tomogram is kept in files of its own folder, never in memory, so that *Continue* and the GUI, which
is another process, see the same thing.
"""

import glob
import logging
import os
import shlex
import shutil
import subprocess
import time
import traceback
from typing import Any, Dict, List, Optional, Sequence, Set

from pwem.protocols import EMProtocol
from pyworkflow.constants import QUEUE_FOR_JOBS
from pyworkflow.object import Set as ScipionSet
from pyworkflow.protocol import STEPS_PARALLEL, ProtStreamingBase, Step
from pyworkflow.protocol.constants import STATUS_NEW, VOID_GPU
from pyworkflow.protocol.params import GPU_LIST, USE_GPU, BooleanParam, Form, StringParam
from pyworkflow.utils import redStr
from pyworkflow.utils.retry_streaming import retry_on_sqlite_lock
from tomo.objects import SetOfTomograms, Tomogram
from tomo.protocols import ProtTomoBase

from cryoden_core.jobs import (
    EXIT_INTERRUPTED,
    EXIT_NO_DEVICE,
    ComputeJob,
    Job,
    default_of,
    read_json,
    write_job,
    write_json,
)
from cryoden_core.progress import DONE, FAILED, INTERRUPTED, read_progress

from .. import Plugin
from ..constants import IN_TOMO_SET, OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..convert import ItemFolder, item_folders, output_tomogram, safe_name

logger = logging.getLogger(__name__)

#: Time between two looks at an input that is still growing.
STREAMING_WAIT_SECONDS = 5

#: How long files written on another machine may take to be seen here.
SHARED_DISK_WAIT_SECONDS = 10

#: Lines of the summary that name single tomograms.
SUMMARY_ITEMS = 12


class TomogramFailed(Exception):
    """One tomogram could not be processed; the others go on."""


class ProtCryodenBase(EMProtocol, ProtTomoBase):
    """Running the core, and the files that it leaves."""

    # --------------------------- DEFINE param functions ----------------------
    @staticmethod
    def _defineComputeParams(form: Form) -> None:
        """The GPU switch and list, which Scipion shows in the form's header."""
        form.addHidden(
            USE_GPU,
            BooleanParam,
            default=True,
            label="Use GPU for execution",
            help="Yes computes on NVIDIA GPUs. No computes on the CPU, which takes ten to a hundred times longer: "
            "choose the preset 'fast' then, or small tomograms.",
        )
        form.addHidden(
            GPU_LIST,
            StringParam,
            default="0",
            label="Choose GPU IDs",
            help="Numbers of the GPUs as nvidia-smi lists them, separated by commas or spaces: 0 or 0,1 or 0-3. Each "
            "tomogram is computed on one GPU; with n GPUs set 'Scipion threads' to n + 1 to use them all at once. "
            "Through a queue only the number of GPUs counts, the queue chooses which.",
        )

    # --------------------------- STEPS functions -----------------------------
    def runCoreJob(self, job: Job, folder: ItemFolder, outputs: Sequence[str]) -> None:
        """Run a job of the core in ``folder`` and make sure that ``outputs`` are there afterwards.

        A job that is already done with the same parameters is not run again, and one that was interrupted goes on
        from its checkpoint: both happen on *Continue*, which keeps the folder that a restart would have removed.

        Raises
        ------
        TomogramFailed
            With the core's own sentence, when this input cannot be processed.
        RuntimeError
            When no other job can do better: the device is missing, or the run was interrupted from outside.
        """
        if self._isDone(job, folder, outputs):
            logger.info("%s is already done, it is not computed again.", folder.name)
            return
        os.makedirs(folder.path, exist_ok=True)
        for stale in (folder.progress, folder.result):
            if os.path.exists(stale):
                os.remove(stale)
        write_job(job, folder.request)
        code = 0
        try:
            Plugin.runCore(self, self._coreArguments(folder))
        except subprocess.CalledProcessError as error:
            code = error.returncode
        self._checkResult(code, folder, outputs)

    def _coreArguments(self, folder: ItemFolder) -> str:
        arguments = ["run", shlex.quote(os.path.abspath(folder.request)), "--device", self._device()]
        if os.path.exists(folder.checkpoint):
            arguments.append("--resume")
        return " ".join(arguments)

    def _device(self) -> str:
        """The device of this step.

        The executor's own list is asked, in the step's thread: it is the slot that was booked for the step, and its
        numbers count from 0 under a queue, as torch's do inside what the queue made visible.
        """
        gpus = self.getExecutor().getGpuList() if self.usesGpu() else []
        if gpus:
            return "cuda:%s" % gpus[0]
        if self.usesGpu():
            raise RuntimeError("No GPU slot is free for this step; check the GPU list %s." % self.gpuList.get())
        return "cpu"

    @staticmethod
    def _isDone(job: Job, folder: ItemFolder, outputs: Sequence[str]) -> bool:
        if not all(os.path.exists(path) for path in (folder.result, *outputs)):
            return False
        return read_progress(folder.progress).get("state") == DONE and read_json(folder.request) == job.to_dict()

    def _checkResult(self, code: int, folder: ItemFolder, outputs: Sequence[str]) -> None:
        """Judge a run by the files it left: a queue does not tell how a job ended."""
        awaited = [folder.result, *outputs]
        if code == 0:
            _wait_for_files(awaited)
        progress = read_progress(folder.progress)
        state, message = progress.get("state"), progress.get("message") or ""
        if code == 0 and state == DONE and all(os.path.exists(path) for path in awaited):
            return
        if code == EXIT_NO_DEVICE:
            raise RuntimeError(message or "The device that was asked for is not there.")
        if code == EXIT_INTERRUPTED or state == INTERRUPTED:
            raise RuntimeError("The run was interrupted; Continue goes on from its last checkpoint. %s" % message)
        if state == FAILED and message:
            raise TomogramFailed(message)
        if code:
            raise TomogramFailed(
                "The program ended with code %s%s; its last lines are in the log of this run."
                % (code, ", probably because memory ran out" if code in (137, -9) else "")
            )
        missing = [os.path.basename(path) for path in awaited if not os.path.exists(path)]
        raise TomogramFailed(
            "The program ended without writing %s; if a queue stopped it, Continue goes on from its checkpoint."
            % (", ".join(missing) or "that it is done")
        )

    # --------------------------- GPU functions -------------------------------
    def getGpuList(self) -> List[int]:
        """The GPUs of the form; none for a run on the CPU.

        Scipion counts this list for the queue, whatever 'Use GPU' says: a run on the CPU would reserve a GPU.
        """
        return super().getGpuList() if self.usesGpu() else []

    def getSubmitDict(self) -> Dict[str, Any]:
        """What the queue is told: a job of one tomogram wants one GPU, however many the form lists."""
        submit = super().getSubmitDict()
        if submit.get(QUEUE_FOR_JOBS) == "Y":
            submit["GPU_COUNT"] = min(1, submit["GPU_COUNT"])
        return submit

    # --------------------------- INFO functions ------------------------------
    def _computeProblems(self) -> List[str]:
        """What is wrong with GPU list and threads."""
        problems: List[str] = []
        if not self.usesGpu():
            return problems
        try:
            gpus = [gpu for gpu in self.getGpuList() if gpu != VOID_GPU]
        except ValueError:
            return ["The list of GPUs, '%s', must be numbers such as 0 or 0,1." % self.gpuList.get()]
        if not gpus:
            problems.append("Give at least one GPU, or choose not to use the GPU.")
        elif not self.useQueue() and not self._fallsBack() and shutil.which("nvidia-smi") is None:
            problems.append(
                "No NVIDIA GPU was found on this computer (there is no nvidia-smi). Choose *No* at 'Use GPU', or allow "
                "the run to go on without one."
            )
        return problems

    def _fallsBack(self) -> bool:
        return bool(self.getAttributeValue("cpuFallback", False))

    def _concurrentSteps(self) -> int:
        """How many tomograms are computed at the same time."""
        steps = max(1, self.numberOfThreads.get() - 1)
        return min(steps, max(1, len(self.getGpuList()))) if self.usesGpu() else steps

    def _threadsOfJob(self) -> int:
        """CPU threads of one job: a fair share where several run on this computer, all (0) otherwise."""
        concurrent = self._concurrentSteps()
        if concurrent == 1 or self.useQueueForSteps():
            return default_of(ComputeJob, "threads")
        return max(1, (os.cpu_count() or 1) // concurrent)


class ProtCryodenStreaming(ProtCryodenBase, ProtStreamingBase):
    """One job for each tomogram of a set that may still be growing.

    A subclass gives :meth:`denoiseStep`, which raises :class:`TomogramFailed` for an input that cannot be processed,
    and may insert steps of its own before the first one in :meth:`_insertFirstSteps`.
    """

    stepsExecutionMode = STEPS_PARALLEL

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._tomograms: Dict[str, Tomogram] = {}
        self._inserted: Set[str] = set()
        self._firstSteps: Optional[List[int]] = None
        self._outputSteps: List[int] = []
        self._closingStep: Optional[Step] = None
        self._inputComplete = False
        self._lastLook = 0.0

    @classmethod
    def worksInStreaming(cls) -> bool:
        return True

    def getInputSet(self, pointer: bool = False) -> Any:
        """The input set, or the pointer to it, which is what relations need while the set is still growing."""
        attribute = getattr(self, IN_TOMO_SET)
        return attribute if pointer else attribute.get()

    # --------------------------- INSERT steps functions ----------------------
    def stepsGeneratorStep(self) -> None:
        """Insert the closing step, which waits for the end of the input, and the steps of what is already there.

        The rest is inserted by :meth:`_stepsCheck` as it arrives. Were it waited for here, this step would hold one
        of Scipion's threads for as long as the input grows, and with two threads nothing else could ever run.
        """
        self._inserted = self._registeredIds()
        self._writeFailures({})  # what failed before is tried again
        index = self._insertFunctionStep(self.closeOutputSetsStep, prerequisites=[], needsGPU=False, wait=True)
        closing = self._steps[index - 1]
        self._insertArrived(closing)
        self._closingStep = closing

    def _insertArrived(self, closing: Step) -> None:
        """Insert the steps of the tomograms that arrived since the last look."""
        with self._lock:
            is_open = self._readInput()
            if self._firstSteps is None:
                self._firstSteps = self._insertFirstSteps(is_open)
            if self._firstSteps is None:
                return
            for ts_id in self._tomograms:
                if ts_id not in self._inserted:
                    self._outputSteps.append(self._insertTomogramSteps(ts_id, self._firstSteps))
                    self._inserted.add(ts_id)
            if not is_open:
                closing.addPrerequisites(*self._firstSteps, *self._outputSteps)
                self._inputComplete = True
        self._lastLook = time.monotonic()

    def _readInput(self) -> bool:
        """Remember the tomograms that are there; returns False when no more will come.

        The state is read before the items: were it the other way round, an item that arrives in between would be
        missed for good.
        """
        tomograms = self.getInputSet()
        tomograms.loadAllProperties()
        is_open = tomograms.isStreamOpen()
        for tomogram in tomograms.iterItems():
            ts_id = tomogram.getTsId()
            if ts_id not in self._tomograms:
                self._tomograms[ts_id] = tomogram.clone()
        return is_open

    def _insertFirstSteps(self, is_open: bool) -> Optional[List[int]]:
        """Steps that every tomogram waits for; None when the input is not yet enough to insert them."""
        return []

    def _insertTomogramSteps(self, ts_id: str, prerequisites: List[int]) -> int:
        denoise = self._insertFunctionStep(
            self.denoiseItemStep, ts_id, prerequisites=prerequisites, needsGPU=self.usesGpu(), wait=self.usesGpu()
        )
        return self._insertFunctionStep(self.createOutputStep, ts_id, prerequisites=denoise, needsGPU=False)

    def _stepsCheck(self) -> None:
        """Look for new input, and release waiting steps: the GPU steps once they have an id, the closing step last.

        A step that was just inserted has no id, and the executor books GPU slots by it: without one the slot is handed
        out but never taken, so that all steps would run at once on the first GPU.  Such steps are therefore inserted
        as waiting, and made runnable here, after the base class has stored them.
        """
        closing = self._closingStep
        lookAgain = time.monotonic() - self._lastLook > STREAMING_WAIT_SECONDS
        if closing is not None and not self._inputComplete and lookAgain:
            self._insertArrived(closing)
        super()._stepsCheck()
        for step in list(self._steps):
            if step.isWaiting() and step.hasObjId() and (step is not closing or self._inputComplete):
                step.setStatus(STATUS_NEW)

    # --------------------------- STEPS functions -----------------------------
    def denoiseItemStep(self, tsId: str) -> None:
        """Process one tomogram; a failure of this tomogram is written down and the others go on."""
        try:
            self.denoiseStep(tsId)
        except (TomogramFailed, ValueError, OSError) as error:
            logger.error(redStr("tsId = %s: %s" % (tsId, error)))
            logger.error(traceback.format_exc())
            with self._lock:
                self._writeFailures(dict(self._failures(), **{tsId: str(error)}))

    def denoiseStep(self, tsId: str) -> None:
        """Process one tomogram."""
        raise NotImplementedError

    def createOutputStep(self, tsId: str) -> None:
        """Register the result of one tomogram."""
        if tsId not in self._failures():
            self._registerTomogram(tsId)

    @retry_on_sqlite_lock(log=logger)
    def _registerTomogram(self, tsId: str) -> None:
        with self._lock:
            output = self._outputSet(OUTPUT_TOMOGRAMS)
            tomogram = output_tomogram(self._tomograms[tsId], self._itemFolder(tsId))
            output.append(tomogram)
            output.update(tomogram)
            output.write()
            self._store(output)
            output.close()

    def closeOutputSetsStep(self) -> None:
        """Close the output, put aside what failed; the protocol fails when nothing is left."""
        failures = self._failures()
        self._registerFailures(failures)
        self._closeOutputSet()
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        if output is None or output.getSize() == 0:
            reasons = "; ".join("%s: %s" % item for item in list(failures.items())[:3])
            raise RuntimeError("No tomogram could be denoised. %s" % reasons)

    @retry_on_sqlite_lock(log=logger)
    def _registerFailures(self, failures: Dict[str, str]) -> None:
        """Make the set of failed tomograms anew; one of an earlier run is replaced, or goes when nothing failed."""
        with self._lock:
            earlier = getattr(self, OUTPUT_FAILED, None)
            if earlier is not None:
                earlier.close()
                self.deleteOutput(earlier)
            if not failures:
                return
            failed = self._outputSet(OUTPUT_FAILED, suffix="Failed")
            for ts_id in failures:
                tomogram = self._tomograms[ts_id].clone()
                tomogram.cleanObjId()
                failed.append(tomogram)
                failed.update(tomogram)
            failed.write()
            self._store(failed)

    def _outputSet(self, name: str, suffix: str = "") -> SetOfTomograms:
        output = getattr(self, name, None)
        if output is not None:
            output.enableAppend()
            return output
        output = self._createSetOfTomograms(suffix=suffix)
        output.copyInfo(self.getInputSet())
        output.setIsHeterogeneousSet(False)  # append finds out whether these ones are
        output.setStreamState(ScipionSet.STREAM_OPEN)
        output.write()  # so that nobody finds the set without its properties
        self._defineOutputs(**{name: output})
        self._defineSourceRelation(self.getInputSet(pointer=True), output)
        return output

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = super()._validate() or []
        return problems + self._computeProblems()

    def _summary(self) -> List[str]:
        lines = []
        failures = self._failures()
        folders = item_folders(self._getExtraPath())
        names = self._namesOfItems()
        states = [(folder, read_progress(folder.progress)) for folder in folders]
        finished = [folder for folder, progress in states if progress.get("state") == DONE]
        if folders:
            lines.append("*%d* tomograms finished, *%d* failed." % (self._finishedTomograms(), len(failures)))
        for folder, progress in states:
            if progress and progress.get("state") not in (DONE, FAILED) and self.isActive():
                lines.append("*%s*: %s" % (names.get(folder.name, folder.name), describe_progress(progress)))
        for folder in finished[:SUMMARY_ITEMS]:
            described = describe_result(read_json(folder.result))
            if described:
                lines.append("*%s*: %s" % (names.get(folder.name, folder.name), described))
        if len(finished) > SUMMARY_ITEMS:
            lines.append("... and %d more; see *Analyze results*." % (len(finished) - SUMMARY_ITEMS))
        for ts_id, reason in list(failures.items())[:SUMMARY_ITEMS]:
            lines.append("*%s* failed: %s" % (ts_id, reason))
        return lines or ["Nothing was computed yet."]

    # --------------------------- UTILS functions -----------------------------
    def _finishedTomograms(self) -> int:
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        return output.getSize() if output is not None else 0

    def _registeredIds(self) -> Set[str]:
        """The tsIds that an earlier run of this protocol already put into the output."""
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        return set(output.getTSIds()) if output is not None else set()

    def _itemFolder(self, tsId: str) -> ItemFolder:
        return ItemFolder.of(self._getExtraPath(), tsId)

    def _namesOfItems(self) -> Dict[str, str]:
        """Folder name to tsId, as far as the input is still there."""
        tomograms = self.getInputSet()
        return {safe_name(ts_id): ts_id for ts_id in tomograms.getTSIds()} if tomograms is not None else {}

    def _failuresFile(self) -> str:
        return self._getExtraPath("failed.json")

    def _failures(self) -> Dict[str, str]:
        """tsId to reason, of the tomograms that failed."""
        return read_json(self._failuresFile())

    def _writeFailures(self, failures: Dict[str, str]) -> None:
        write_json(failures, self._failuresFile())


def describe_progress(progress: Dict[str, Any]) -> str:
    """One line from the content of a ``progress.json``."""
    parts = [str(progress.get("stage") or "starting")]
    if progress.get("total"):
        parts.append("step %d of %d" % (progress.get("step", 0), progress["total"]))
    if progress.get("loss") is not None:
        parts.append("loss %.4g" % progress["loss"])
    if progress.get("eta_seconds") is not None:
        parts.append("%s left" % describe_time(progress["eta_seconds"]))
    return ", ".join(parts)


def describe_result(result: Dict[str, Any]) -> str:
    """One line from the content of a ``result.json``."""
    parts = []
    # Both are measured beyond a third of a cycle per voxel only, where hardly any specimen is.
    before, after = result.get("noise_sd_before"), result.get("noise_sd_after")
    if before is not None and after is not None:
        parts.append("fine-grained noise (standard deviation) %.3g before, %.3g after" % (before, after))
    if result.get("noise_report_passed") is not None:
        parts.append("noise model %s its checks" % ("passed" if result["noise_report_passed"] else "did *not* pass"))
    if result.get("seconds") is not None:
        parts.append("took %s" % describe_time(result["seconds"]))
    parts.extend("warning: %s" % warning for warning in result.get("warnings") or [])
    return "; ".join(parts)


def describe_time(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return "%d s" % round(seconds)
    if seconds < 5400:
        return "%d min" % round(seconds / 60)
    return "%.1f h" % (seconds / 3600)


def _wait_for_files(paths: Sequence[str]) -> None:
    """Wait a little for files that another machine wrote; listing their folder refreshes a network disk's cache."""
    end = time.monotonic() + SHARED_DISK_WAIT_SECONDS
    while not all(os.path.exists(path) for path in paths) and time.monotonic() < end:
        for path in paths:
            glob.glob(os.path.join(os.path.dirname(path), "*"))
        time.sleep(1)

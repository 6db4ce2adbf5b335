"""What every protocol of CryoDen shares: running jobs of the core on the right device, and judging how they ended.

All heavy work is a process of the core, started with ``runJob`` so that it can go through a queue.  What happened is
kept in files of the job's own folder, never in memory, so that *Continue* and the GUI, which is another process, see
the same thing.
"""

import glob
import logging
import os
import shlex
import shutil
import subprocess
import time
from typing import Any, Dict, List, Sequence

from pwem.protocols import EMProtocol
from pyworkflow.constants import QUEUE_FOR_JOBS
from pyworkflow.protocol.constants import VOID_GPU
from pyworkflow.protocol.params import GPU_LIST, USE_GPU, BooleanParam, Form, StringParam
from tomo.protocols import ProtTomoBase

from cryoden_core.jobs import EXIT_INTERRUPTED, EXIT_NO_DEVICE, ComputeJob, Job, default_of, read_json, write_job
from cryoden_core.progress import DONE, FAILED, INTERRUPTED, read_progress

from .. import Plugin
from ..convert import ItemFolder

logger = logging.getLogger(__name__)

#: How long files written on another machine may take to be seen here.
SHARED_DISK_WAIT_SECONDS = 10


class ItemFailed(Exception):
    """One tomogram or tilt series could not be processed; the others go on."""


class ProtCryodenBase(EMProtocol, ProtTomoBase):
    """Running the core, and the files that it leaves."""

    # --------------------------- DEFINE param functions ----------------------
    @staticmethod
    def _defineFallbackParam(form: Form) -> None:
        """What to do when the GPU that was asked for is absent."""
        form.addParam(
            "cpuFallback",
            BooleanParam,
            default=default_of(ComputeJob, "cpu_fallback"),
            label="Go on without a GPU?",
            help="What to do when a GPU was asked for and none is there: *No* stops with a message, *Yes* computes on "
            "the CPU, which takes very much longer.",
        )

    @staticmethod
    def _defineComputeParams(form: Form) -> None:
        """The GPU switch and list, which Scipion shows in the form's header."""
        form.addHidden(
            USE_GPU,
            BooleanParam,
            default=True,
            label="Use GPU for execution",
            help="Yes computes on NVIDIA GPUs. No computes on the CPU, which takes very much longer: choose the preset "
            "'fast' then, or small tomograms.",
        )
        form.addHidden(
            GPU_LIST,
            StringParam,
            default="0",
            label="Choose GPU IDs",
            help="Numbers of the GPUs as nvidia-smi lists them, separated by commas or spaces: 0 or 0,1 or 0-3. Each "
            "item is computed on one GPU; with n GPUs set 'Scipion threads' to n + 1 to use them all at once. "
            "Through a queue only the number of GPUs counts, the queue chooses which.",
        )

    # --------------------------- STEPS functions -----------------------------
    def runCoreJob(self, job: Job, folder: ItemFolder, outputs: Sequence[str]) -> None:
        """Run a job of the core in ``folder`` and make sure that ``outputs`` are there afterwards.

        A job that is already done with the same parameters is not run again, and one that was interrupted goes on
        from its checkpoint: both happen on *Continue*, which keeps the folder that a restart would have removed.

        Raises
        ------
        ItemFailed
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
        # A job that trains several networks has a checkpoint for each, all with this name at the beginning.
        if glob.glob(glob.escape(folder.checkpoint) + "*"):
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
            raise ItemFailed(message)
        if code:
            raise ItemFailed(
                "The program ended with code %s%s; its last lines are in the log of this run."
                % (code, ", probably because memory ran out" if code in (137, -9) else "")
            )
        missing = [os.path.basename(path) for path in awaited if not os.path.exists(path)]
        raise ItemFailed(
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


def _wait_for_files(paths: Sequence[str]) -> None:
    """Wait a little for files that another machine wrote; listing their folder refreshes a network disk's cache."""
    end = time.monotonic() + SHARED_DISK_WAIT_SECONDS
    while not all(os.path.exists(path) for path in paths) and time.monotonic() < end:
        for path in paths:
            glob.glob(os.path.join(os.path.dirname(path), "*"))
        time.sleep(1)

"""Streaming over the items of a set: one job of the core for each, outputs registered as they come, failures put aside.

An item is a tomogram or a tilt series; what comes out is a tomogram.  What failed is in a set of its own and named with
the reason; the others go on.
"""

import logging
import os
import time
import traceback
from typing import Any, Dict, List, Optional, Set

from pyworkflow.object import Set as ScipionSet
from pyworkflow.protocol import STEPS_PARALLEL, ProtStreamingBase, Step
from pyworkflow.protocol.constants import STATUS_NEW
from pyworkflow.utils import redStr
from pyworkflow.utils.retry_streaming import retry_on_sqlite_lock
from tomo.objects import SetOfTiltSeries, SetOfTomograms, Tomogram

from cryoden_core.jobs import read_json, write_json
from cryoden_core.progress import DONE, FAILED, read_progress

from ..constants import IN_TOMO_SET, OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..convert import ItemFolder, clean_path, item_folders, output_tomogram, safe_name
from .protocol_base import ItemFailed, ProtCryodenBase
from .texts import describe_progress, describe_result

logger = logging.getLogger(__name__)

#: Time between two looks at an input that is still growing.
STREAMING_WAIT_SECONDS = 5

#: Lines of the summary that name single items.
SUMMARY_ITEMS = 12


class ProtCryodenStreaming(ProtCryodenBase, ProtStreamingBase):
    """One job for each item of a set that may still be growing.

    A subclass gives :meth:`processItem`, which raises :class:`ItemFailed` for an input that cannot be processed; it
    may insert steps of its own before the first one in :meth:`_insertFirstSteps`, and say in :meth:`_outputItem` what
    to register.  ``INPUT`` names the attribute with the set.
    """

    INPUT = IN_TOMO_SET

    #: The output that grows, and what is said when nothing came into it.
    OUTPUT = OUTPUT_TOMOGRAMS
    NOTHING = "No tomogram could be made."

    stepsExecutionMode = STEPS_PARALLEL

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._items: Dict[str, Any] = {}
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
        attribute = getattr(self, self.INPUT)
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
        """Insert the steps of the items that arrived since the last look."""
        with self._lock:
            is_open = self._readInput()
            if self._firstSteps is None:
                self._firstSteps = self._insertFirstSteps(is_open)
            if self._firstSteps is None:
                return
            for ts_id in self._items:
                if ts_id not in self._inserted:
                    self._outputSteps.append(self._insertItemSteps(ts_id, self._firstSteps))
                    self._inserted.add(ts_id)
            if not is_open:
                closing.addPrerequisites(*self._firstSteps, *self._outputSteps)
                self._inputComplete = True
        self._lastLook = time.monotonic()

    def _readInput(self) -> bool:
        """Remember the items that are there; returns False when no more will come.

        The state is read before the items: were it the other way round, an item that arrives in between would be
        missed for good.
        """
        items = self.getInputSet()
        items.loadAllProperties()
        is_open = items.isStreamOpen()
        for item in items.iterItems():
            ts_id = item.getTsId()
            # A tilt series is registered before its images are; it is taken at a later look.
            is_whole = not isinstance(items, SetOfTiltSeries) or item.getSize() > 0 or not is_open
            if ts_id not in self._items and is_whole:
                self._items[ts_id] = item.clone()
        return is_open

    def _insertFirstSteps(self, is_open: bool) -> Optional[List[int]]:
        """Steps that every item waits for; None when the input is not yet enough to insert them."""
        return []

    def _insertItemSteps(self, ts_id: str, prerequisites: List[int]) -> int:
        process = self._insertFunctionStep(
            self.processItemStep, ts_id, prerequisites=prerequisites, needsGPU=self.usesGpu(), wait=self.usesGpu()
        )
        return self._insertFunctionStep(self.createOutputStep, ts_id, prerequisites=process, needsGPU=False)

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
    def processItemStep(self, tsId: str) -> None:
        """Process one item; a failure of this one is written down and the others go on."""
        try:
            self.processItem(tsId)
        except (ItemFailed, ValueError, OSError) as error:
            logger.error(redStr("tsId = %s: %s" % (tsId, error)))
            logger.error(traceback.format_exc())
            with self._lock:
                self._writeFailures(dict(self._failures(), **{tsId: str(error)}))

    def processItem(self, tsId: str) -> None:
        """Process one item."""
        raise NotImplementedError

    def createOutputStep(self, tsId: str) -> None:
        """Register the result of one item."""
        if tsId not in self._failures():
            self._registerItem(tsId)

    @retry_on_sqlite_lock(log=logger)
    def _registerItem(self, tsId: str) -> None:
        with self._lock:
            items = self._outputItems(tsId)
            if not items:
                return  # a set without items cannot be read
            output = self._outputSet()
            for item in items:
                output.append(item)
                output.update(item)
            output.write()
            self._store(output)
            output.close()

    def closeOutputSetsStep(self) -> None:
        """Close the output, put aside what failed; the protocol fails when nothing is left."""
        failures = self._failures()
        self._registerFailures(failures)
        self._closeOutputSet()
        output = getattr(self, self.OUTPUT, None)
        if output is None or output.getSize() == 0:
            reasons = "; ".join("%s: %s" % item for item in list(failures.items())[:3])
            raise RuntimeError("%s %s" % (self.NOTHING, reasons))

    @retry_on_sqlite_lock(log=logger)
    def _registerFailures(self, failures: Dict[str, str]) -> None:
        """Make the set of failed items anew; one of an earlier run is replaced, or goes when nothing failed."""
        with self._lock:
            earlier = getattr(self, OUTPUT_FAILED, None)
            if earlier is not None:
                earlier.close()
                self.deleteOutput(earlier)
            if not failures:
                return
            failed = self._failedSet()
            for ts_id in failures:
                self._appendFailed(failed, ts_id)
            failed.write()
            self._store(failed)

    def _failedSet(self) -> Any:
        """An empty set for failed items, of the kind of the input."""
        if isinstance(self.getInputSet(), SetOfTiltSeries):
            return self._openOutput(OUTPUT_FAILED, self._createSetOfTiltSeries(suffix="Failed"))
        return self._openOutput(OUTPUT_FAILED, self._createSetOfTomograms(suffix="Failed"))

    def _appendFailed(self, failed: Any, tsId: str) -> None:
        item = self._items[tsId].clone()
        item.cleanObjId()
        failed.append(item)
        if isinstance(failed, SetOfTiltSeries):
            for image in self._inputItem(tsId).iterItems():
                item.append(image.clone())
            item.write()
        failed.update(item)

    def _inputItem(self, tsId: str) -> Any:
        """An item as it is in the input set, so that its own items can be read."""
        with self._lock:
            return self.getInputSet().getItem(Tomogram.TS_ID_FIELD, tsId)

    def _outputItems(self, tsId: str) -> List[Any]:
        """What to register for an item, one tomogram in most protocols."""
        return [self._outputItem(tsId)]

    def _outputItem(self, tsId: str) -> Tomogram:
        """The tomogram to register for an item; this one is for sets of tomograms."""
        return output_tomogram(self._items[tsId], self._itemFolder(tsId))

    def _outputSet(self) -> Any:
        output = getattr(self, self.OUTPUT, None)
        if output is not None:
            output.enableAppend()
            return output
        return self._newOutputSet()

    def _newOutputSet(self) -> Any:
        """Make and register the set that the results go to."""
        return self._openOutput(self.OUTPUT, self._createSetOfTomograms())

    def _describeOutput(self, output: Any) -> None:
        """Give a new output set what the input set does not tell; the base has nothing to add."""

    def _openOutput(self, name: str, output: Any) -> Any:
        """Register a new set, described like the input, that will be filled."""
        output.copyInfo(self.getInputSet())
        if isinstance(output, SetOfTomograms):
            self._describeOutput(output)
            output.setIsHeterogeneousSet(False)  # append finds out whether these ones are
        return self._announce(name, output)

    def _announce(self, name: str, output: Any) -> Any:
        """Register a set that will be filled."""
        output.setStreamState(ScipionSet.STREAM_OPEN)
        output.write()  # so that nobody finds the set without its properties
        self._defineOutputs(**{name: output})
        self._defineSourceRelation(self.getInputSet(pointer=True), output)
        return output

    def fileOf(self, known: Any, tsId: str) -> str:
        """The file of an item of another set, matched by tsId, as absolute name; empty where there is none."""
        with self._lock:
            if known is None or tsId not in known.getTSIds():  # getItem fails for an item that is not there
                return ""
            return os.path.abspath(clean_path(known.getItem(Tomogram.TS_ID_FIELD, tsId).getFileName()))

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
            lines.append("*%d* tomograms finished, *%d* failed." % (self._finishedItems(), len(failures)))
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
    def _finishedItems(self) -> int:
        output = getattr(self, self.OUTPUT, None)
        return output.getSize() if output is not None else 0

    def _registeredIds(self) -> Set[str]:
        """The tsIds that an earlier run of this protocol already put into the output."""
        output = getattr(self, self.OUTPUT, None)
        return set(output.getTSIds()) if output is not None else set()

    def _itemFolder(self, tsId: str) -> ItemFolder:
        return ItemFolder.of(self._getExtraPath(), tsId)

    def _namesOfItems(self) -> Dict[str, str]:
        """Folder name to tsId, as far as the input is still there."""
        items = self.getInputSet()
        return {safe_name(ts_id): ts_id for ts_id in items.getTSIds()} if items is not None else {}

    def _failuresFile(self) -> str:
        return self._getExtraPath("failed.json")

    def _failures(self) -> Dict[str, str]:
        """tsId to reason, of the items that failed."""
        return read_json(self._failuresFile())

    def _writeFailures(self, failures: Dict[str, str]) -> None:
        write_json(failures, self._failuresFile())

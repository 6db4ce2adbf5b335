"""Compensation of the missing wedge with DUAL's networks (Zeng et al., bioRxiv 2024.03.02.583135)."""

from typing import Any, Dict, List

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import Form
from tomo.objects import SetOfTomograms

from cryoden_core.jobs import DualWedgeJob

from ..constants import OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..dual import acquisition_range
from ..forms import add_job_params
from .protocol_dual_apply import ProtCryodenDualApply


class ProtCryodenDualWedge(ProtCryodenDualApply):
    """
    Fills the missing wedge of tomograms and leaves what was measured as it is: a network learns from each tomogram
    itself, by finding again what is cut away from it on purpose, and is then asked for what is really missing.

    What you get: a set with one filled tomogram for each, on the grey scale of the input, with its sampling rate,
    origin, acquisition and tsId. The summary says how full the wedge was and is. *Analyze results* shows slices and
    the power from the side, where the wedge is to be seen.

    What is filled in is a guess that agrees with the rest of the tomogram, not a measurement. Denoise before: noise
    cannot be guessed. Do not average subtomograms from the result.
    """

    _label = "compensate missing wedge (DUAL)"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_TOMOGRAMS: SetOfTomograms, OUTPUT_FAILED: SetOfTomograms}

    JOB = DualWedgeJob
    MODELS = ("dual wedge",)
    NEEDS_MODEL = False

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        self._defineInputParams(
            form,
            "Tomograms",
            "Denoised ones, or raw ones with good contrast.",
            "A network for the missing wedge from elsewhere (*import model*): it is applied, nothing is trained.",
        )
        add_job_params(
            form,
            DualWedgeJob,
            (("tilt_min", "Lowest tilt angle", "Used where the acquisition of a tomogram does not say it."),
             ("tilt_max", "Highest tilt angle", "Used where the acquisition of a tomogram does not say it.")),
        )  # fmt: skip
        form.addSection(label="Method")
        add_job_params(
            form,
            DualWedgeJob,
            (("mode", "Mode", "*consistent* is the one to use."), ("preset", "Preset"),
             ("steps", "Training steps", "Time grows in proportion.")),
        )  # fmt: skip
        self._defineFallbackParam(form)
        add_job_params(
            form,
            DualWedgeJob,
            (("adversary", "Weight of the critic"), ("seed", "Seed"), ("output_mode", "Number format")),
            expertLevel=LEVEL_ADVANCED,
        )
        form.addParallelSection(threads=2, mpi=0)

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        known = acquisition_range(self._items[tsId])
        return dict(zip(("tilt_min", "tilt_max"), known)) if known else {}

    # --------------------------- INFO functions ------------------------------
    def _warnings(self) -> List[str]:
        tomograms = self.getInputSet()
        if tomograms is None:
            return []
        without = [item.getTsId() for item in tomograms.iterItems() if acquisition_range(item) is None]
        if not without:
            return super()._warnings()
        return [
            "No tilt range is known for %s: %g to %g degrees is taken." % (
                ", ".join(without[:5]), self.tilt_range()[0], self.tilt_range()[1]),
            *super()._warnings(),
        ]  # fmt: skip

    def tilt_range(self) -> Any:
        """The tilt range of the form, degrees."""
        return self.tiltMin.get(), self.tiltMax.get()

    def _done(self, count: int) -> str:
        return "The missing wedge of %d tomograms was filled (mode %s)" % (count, self.getEnumText("mode"))

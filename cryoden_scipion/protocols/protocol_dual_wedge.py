"""Compensation of the missing wedge with DUAL's networks (Zeng et al., bioRxiv 2024.03.02.583135)."""

from typing import Any, Dict, List

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import Form, PointerParam
from tomo.objects import SetOfTomograms

from cryoden_core.jobs import DualWedgeJob

from ..constants import OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..dual import files_of
from ..forms import add_job_params
from .protocol_dual_apply import ProtCryodenDualApply
from .tilt_range import TiltRangeChoice


class ProtCryodenDualWedge(ProtCryodenDualApply, TiltRangeChoice):
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
            "A network for the missing wedge, from *import model*: it is applied, nothing is trained. A run without "
            "one leaves its network in extra/<tsId>/model.safetensors.",
        )
        form.addParam(
            "inputTrainWith",
            PointerParam,
            pointerClass="SetOfTomograms",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            label="Train on these too (optional)",
            help="More tomograms of the same kind and tilt range, from which the network of each tomogram learns too; "
            "the set above may be given here again. Without a model only.",
        )
        self._defineTiltRangeParams(form, DualWedgeJob)
        form.addSection(label="Method")
        add_job_params(
            form,
            DualWedgeJob,
            (
                ("mode", "Mode", "*consistent* is the one to use."),
                ("signal_only", "Fill in signal only?"),
                ("preset", "Preset"),
                ("steps", "Training steps (0: the preset's)", "Time grows in proportion."),
            ),
        )
        add_job_params(
            form,
            DualWedgeJob,
            (("adversary", "Weight of the critic (-1: the mode's)"), ("seed", "Seed")),
            expertLevel=LEVEL_ADVANCED,
        )
        self._defineLastParams(form)

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        tilt_min, tilt_max = self.tiltRangeOf(self._items[tsId])
        return {"tilt_min": tilt_min, "tilt_max": tilt_max, "train_with": self._trainedWith(tsId)}

    def _trainedWith(self, tsId: str) -> List[str]:
        """The further tomograms that the network of one learns from."""
        more = self.inputTrainWith.get()
        if more is None:
            return []
        own = files_of([self._items[tsId]])
        with self._lock:
            return [path for path in files_of(item.clone() for item in more.iterItems()) if path not in own]

    # --------------------------- INFO functions ------------------------------
    def _jobProblems(self) -> List[str]:
        return self.tiltRangeProblems(self.getInputSet().iterItems()) or super()._jobProblems()

    def _done(self, count: int) -> str:
        return "The missing wedge of %d tomograms was filled (mode %s)" % (count, self.getEnumText("mode"))

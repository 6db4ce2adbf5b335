"""Conversion of tomograms between the two styles of a trained DUAL model (Zeng et al., bioRxiv 2024.03.02.583135)."""

from typing import Any, Dict

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import Form
from tomo.objects import SetOfTomograms

from cryoden_core.jobs import DualConvertJob

from ..constants import OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..forms import add_job_param, job_settings
from .noise_choice import NoiseChoice
from .protocol_dual_apply import ProtCryodenDualApply

#: The styles in the words of the form.
STYLES = {"clean": "the clean set", "noisy": "the noisy set"}


class ProtCryodenDualConvert(ProtCryodenDualApply, NoiseChoice):
    """
    Converts tomograms to the style of one of the two sets that a DUAL model was trained on: to that of the clean set,
    with no regard to the measured data (unlike *denoise tomograms*), or to that of the noisy set.

    With two sets of tomograms as noisy and clean set of *train DUAL*, this converts the one to the look of the other:
    another microscope, another reconstruction, so that a picker or a segmentation trained on one serves both.

    What you get: one converted tomogram for each, at the sampling rate and with the origin, acquisition and tsId of
    the input, on the grey scale of the style.
    """

    _label = "convert style (DUAL)"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_TOMOGRAMS: SetOfTomograms, OUTPUT_FAILED: SetOfTomograms}

    JOB = DualConvertJob
    CONTRAST_OF_MODEL = "as in the model's set that they are like"

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        self._defineInputParams(
            form,
            "Tomograms",
            "In the style opposite to the one that is wanted.",
            "From *train DUAL* or *import model*; it knows two styles, those of its noisy and of its clean set.",
        )
        add_job_param(form, DualConvertJob, "to", "Convert to the style of", shown=STYLES)
        self._defineContrastParam(form)
        self._defineNoiseParams(form, DualConvertJob, condition="to == 1")
        add_job_param(form, DualConvertJob, "seed", "Seed", expertLevel=LEVEL_ADVANCED, condition="to == 1")
        self._defineLastParams(form)

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        return self.noiseSettings(tsId) if self._wanted() == "noisy" else {}

    # --------------------------- INFO functions ------------------------------
    def _domain(self) -> str:
        return "clean" if self._wanted() == "noisy" else "noisy"

    def _done(self, count: int) -> str:
        return "%d tomograms were converted to the style of the %s set" % (count, self._wanted())

    # --------------------------- UTILS functions -----------------------------
    def _wanted(self) -> str:
        """The style that is wanted: clean or noisy."""
        return job_settings(self, DualConvertJob)["to"]

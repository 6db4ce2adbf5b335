"""Denoising with a trained DUAL model (Zeng et al., bioRxiv 2024.03.02.583135)."""

import os
from typing import Any, Dict, List

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import BooleanParam, Form
from tomo.objects import SetOfTomograms

from cryoden_core.jobs import DualDenoiseJob

from ..constants import OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..convert import even_and_odd
from ..forms import add_job_param, add_job_params
from .protocol_dual_apply import ProtCryodenDualApply


class ProtCryodenDualDenoise(ProtCryodenDualApply):
    """
    Denoises tomograms with a trained DUAL model, as strongly as you want: strength 0 is the input, 1 the full effect.
    What was measured is held: no frequency departs from the data by more than the noise that was measured there.

    What you get: a set with one denoised tomogram for each, on the grey scale of the input, with its sampling rate,
    origin, acquisition and tsId; with half maps, denoised halves too. Tomograms that could not be processed are in a
    set of their own, and the summary says why. *Analyze results* shows slices and spectra before and after.

    Use it to look, to pick and to segment. A model shows what it learned to see: compare with the tomogram itself
    before you believe a detail, and average subtomograms from the original tomograms.
    """

    _label = "denoise tomograms (DUAL)"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_TOMOGRAMS: SetOfTomograms, OUTPUT_FAILED: SetOfTomograms}

    JOB = DualDenoiseJob

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        self._defineInputParams(
            form,
            "Tomograms",
            "Raw reconstructions of the kind that the model was trained on: not filtered, not denoised.",
            "From *train DUAL* or *import model*; trained at about the voxel size of the tomograms.",
        )
        form.addParam(
            "useHalfMaps",
            BooleanParam,
            default=True,
            label="Use half maps where there are any?",
            help="The difference of the even and the odd tomogram tells the noise, so that the measured data can be "
            "held as closely as they deserve; otherwise it is taken from empty regions.",
        )
        form.addParam(
            "outputHalfMaps",
            BooleanParam,
            default=True,
            condition="useHalfMaps",
            label="Denoise the half maps too?",
            help="Also writes the even and the odd tomogram denoised, and registers them as half maps of the result.",
        )
        form.addSection(label="Denoising")
        add_job_params(form, DualDenoiseJob, (("strength", "Strength"), ("hold_data", "Hold what was measured?")))
        self._defineContrastParam(form)
        add_job_param(
            form, DualDenoiseJob, "flips", "Mirrored copies", "Time grows in proportion.", expertLevel=LEVEL_ADVANCED
        )
        form.addParam(
            "writeUncertainty",
            BooleanParam,
            default=False,
            expertLevel=LEVEL_ADVANCED,
            condition="flips >= 4",
            label="Write a map of the uncertainty?",
            help="The spread over the mirrored copies, in the folder of each tomogram (extra/<tsId>).",
        )
        self._defineLastParams(form)

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        folder = self._itemFolder(tsId)
        found: Dict[str, Any] = {}
        halves = even_and_odd(self._items[tsId]) if self._usesHalves() else None
        if halves:
            found.update(zip(("even", "odd"), map(os.path.abspath, halves)))
            if self.outputHalfMaps.get():
                found.update(zip(("output_even", "output_odd"), map(os.path.abspath, folder.halves)))
        if self.writeUncertainty.get():
            found["uncertainty"] = os.path.abspath(os.path.splitext(folder.output)[0] + "_uncertainty.mrc")
        return found

    def _written(self, job: DualDenoiseJob) -> List[str]:
        return [path for path in (job.output, job.output_even, job.output_odd, job.uncertainty) if path]

    # --------------------------- INFO functions ------------------------------
    def _done(self, count: int) -> str:
        return "%d tomograms were denoised (strength %g)" % (count, self.strength.get())

    # --------------------------- UTILS functions -----------------------------
    def _usesHalves(self) -> bool:
        return bool(self.useHalfMaps.get())

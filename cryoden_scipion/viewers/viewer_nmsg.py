"""The viewer behind *Analyze results* of the NMSG protocol: thin glue between a small form and the figures."""

import os
from typing import Any, Callable, Dict, List

from pyworkflow.protocol.params import Form, LabelParam
from pyworkflow.viewer import TextView, View

from cryoden_core.jobs import read_json

from ..convert import ItemFolder, safe_name
from ..protocols import ProtCryodenNmsgDenoise
from . import figures
from .item_viewer import ItemViewer


class CryodenNmsgViewer(ItemViewer):
    """Before and after, training, spectra, agreement of the halves and the noise report of one tomogram."""

    _label = "NMSG viewer"
    _targets = [ProtCryodenNmsgDenoise]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Denoised tomograms")
        self._defineItemParam(form, "Tomogram")
        form.addParam(
            "showSlices",
            LabelParam,
            important=True,
            label="Slices before, after and difference",
            help="Central xy, xz and yz slices with the same contrast. The difference is what was removed: it should "
            "look like noise, without any trace of the specimen.",
        )
        form.addParam(
            "showLoss",
            LabelParam,
            label="Training loss",
            help="Losses over the training steps; press again while the training runs to see more of them.",
        )
        form.addParam(
            "showSpectra",
            LabelParam,
            label="Power spectra",
            help="Radial power spectra of the tomogram before and after, and of what was removed.",
        )
        self._defineFscParam(form)
        form.addParam(
            "showNoiseReport",
            LabelParam,
            label="Checks of the noise model",
            help="Whether the noise that the network was trained with is that of the tomogram.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return {
            "showSlices": lambda *_: self.figure("before, after, difference", self._slices),
            "showLoss": lambda *_: self.figure("training", self._loss),
            "showSpectra": lambda *_: self.figure("power spectra", self._spectra),
            "showFsc": lambda *_: self.figure("half maps", self.halfMapFsc),
            "showNoiseReport": self._noiseReport,
        }

    # --------------------------- what is shown -------------------------------
    def _slices(self) -> Any:
        return figures.slices(self._before(), self._after())

    def _loss(self) -> Any:
        return figures.loss(self._trainedFolder())

    def _spectra(self) -> Any:
        return figures.spectra(self._before(), self._after())

    def _noiseReport(self, *_: Any) -> List[View]:
        path = os.path.join(self.protocol.getProject().getTmpPath(), "%s_noise_report.txt" % safe_name(self.tsId()))
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(figures.noise_report_text(read_json(self._trainedFolder().noise_report)))
        return [TextView([path], "%s: checks of the noise model" % self.tsId(), self.getTkRoot())]

    def _trainedFolder(self) -> ItemFolder:
        """Where the training of this tomogram's network left its files."""
        own = self._folder()
        shared = self.protocol._trainingFolder()
        return shared if os.path.exists(shared.metrics) and not os.path.exists(own.metrics) else own

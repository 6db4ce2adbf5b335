"""The viewer behind *Analyze results* of the NMSG protocol: thin glue between a small form and the figures."""

import os
from typing import Any, Callable, Dict, List

from pyworkflow.protocol.params import Form, LabelParam
from pyworkflow.viewer import TextView, View

from cryoden_core.jobs import read_json

from ..convert import ItemFolder, safe_name
from ..protocols import ProtCryodenNmsgDenoise
from . import figures
from .figure_viewer import Button
from .item_viewer import ItemViewer


class CryodenNmsgViewer(ItemViewer):
    """Before and after, training, spectra, agreement of the halves and the noise report of one tomogram."""

    _label = "NMSG viewer"
    _targets = [ProtCryodenNmsgDenoise]

    HEADING = "Denoised tomograms"

    def _defineParams(self, form: Form) -> None:
        super()._defineParams(form)
        form.addParam(
            "showNoiseReport",
            LabelParam,
            label="Checks of the noise model",
            help="Whether the noise that the network was trained with is that of the tomogram.",
        )

    def _buttons(self) -> List[Button]:
        return [
            Button(
                "showSlices",
                "Slices before, after and difference",
                "Central xy, xz and yz slices with the same contrast. The difference is what was removed: it should "
                "look like noise, without any trace of the specimen.",
                "before, after, difference",
                lambda: figures.slices(self._before(), self._after()),
            ),
            Button(
                "showLoss",
                "Training loss",
                "Losses over the training steps; press again while the training runs to see more of them.",
                "training",
                lambda: figures.loss(self._trainedFolder()),
            ),
            Button(
                "showSpectra",
                "Power spectra",
                "Radial power spectra of the tomogram before and after, and of what was removed.",
                "power spectra",
                lambda: figures.spectra(self._before(), self._after()),
            ),
            self._fscButton(),
        ]

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return dict(super()._getVisualizeDict(), showNoiseReport=self._noiseReport)

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

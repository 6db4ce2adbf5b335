"""The viewers behind *Analyze results* of the protocols of DUAL: thin glue between small forms and the figures."""

import os
from typing import Any, Dict, List

from pyworkflow.protocol.params import Form
from tomo.objects import Tomogram

from cryoden_core.jobs import JobError

from ..constants import OUTPUT_TOMOGRAMS
from ..protocols import (
    ProtCryodenDualConvert,
    ProtCryodenDualDenoise,
    ProtCryodenDualSimulate,
    ProtCryodenDualTrain,
    ProtCryodenDualTrainingSet,
    ProtCryodenDualWedge,
)
from . import dual_figures, figures
from .figure_viewer import Button, FigureViewer
from .item_viewer import ItemViewer


class CryodenDualTrainViewer(FigureViewer):
    """How a training of DUAL goes on, while it runs and afterwards."""

    _label = "DUAL training viewer"
    _targets = [ProtCryodenDualTrain]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Training")
        self._defineButtons(form)

    def _buttons(self) -> List[Button]:
        folder = self.protocol.folder()
        return [
            Button(
                "showMontage",
                "Montage of volumes",
                "A noisy crop, its denoised and its cycled one; a clean crop, its simulation and what is found again; "
                "and their spectra. Made anew at each check; the first ones come after a tenth of the training.",
                "montage",
                lambda: figures.picture(folder.montage),
            ),
            Button(
                "showLosses",
                "Losses",
                "The two cycles should fall. Critics and generators work against each other: their losses go up and "
                "down and never settle. Press again while the training runs to see more.",
                "losses",
                lambda: dual_figures.losses(folder),
            ),
            Button(
                "showChecks",
                "Checks of the training's health",
                "The figures that the alarms look at, over the steps, with the limits beyond which they are alarms.",
                "checks",
                lambda: dual_figures.checks(folder),
            ),
        ]

    def _windowTitle(self, title: str) -> str:
        return "DUAL training: %s" % title


class CryodenDualViewer(ItemViewer):
    """Slices and spectra of one tomogram before and after DUAL."""

    _label = "DUAL viewer"
    _targets = [
        ProtCryodenDualConvert,
        ProtCryodenDualDenoise,
        ProtCryodenDualSimulate,
        ProtCryodenDualTrainingSet,
        ProtCryodenDualWedge,
    ]

    HEADING = "Before and after"

    def _buttons(self) -> List[Button]:
        buttons = [
            Button(
                "showSlices",
                "Slices before and after",
                "Central xy, xz and yz slices side by side, each volume with its own contrast.",
                "before and after",
                lambda: figures.side_by_side(self._both()),
            ),
            Button(
                "showSideSpectra",
                "Power from the side (missing wedge)",
                "Power in the plane of kx and kz before and after. The missing wedge is a dark double cone about the "
                "vertical.",
                "power from the side",
                lambda: figures.side_spectra_of(self._both()),
            ),
            Button(
                "showSpectra",
                "Power spectra",
                "Radial power spectra before, after and of the difference.",
                "power spectra",
                lambda: figures.spectra(self._before(), self._after()),
            ),
        ]
        if isinstance(self.protocol, ProtCryodenDualSimulate):
            buttons.insert(1, self._labelsButton())
        if isinstance(self.protocol, ProtCryodenDualDenoise):
            buttons.append(self._fscButton())
        if isinstance(self.protocol, ProtCryodenDualWedge):
            told = "Of the network that was trained on the tomogram itself."
            buttons.append(Button("showLoss", "Training loss", told, "training", self._loss))
        return buttons

    # --------------------------- what is shown -------------------------------
    def _both(self) -> Dict[str, Tomogram]:
        """What went in and what came out, by name."""
        simulated = isinstance(self.protocol, ProtCryodenDualSimulate)
        names = ("grand model", "simulated") if simulated else ("before", "after")
        return dict(zip(names, (self._before(), self._after())))

    def _loss(self) -> Any:
        if not os.path.exists(self._folder().metrics):
            raise JobError("Nothing was trained on %s: a model was applied." % self.tsId())
        return figures.loss(self._folder())

    def _namedBy(self) -> str:
        return self.protocol.fileOf(self.protocol.inputLabels.get(), self.tsId())

    def _after(self) -> Tomogram:
        """The result, the first draw of several."""
        return self._find(getattr(self.protocol, OUTPUT_TOMOGRAMS, None), self.protocol.firstOutputId(self.tsId()))

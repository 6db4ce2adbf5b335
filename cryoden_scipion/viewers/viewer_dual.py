"""The viewers behind *Analyze results* of the protocols of DUAL: thin glue between small forms and the figures."""

import os
from typing import Any, Callable, Dict, List

from pyworkflow.protocol.params import Form, LabelParam
from pyworkflow.viewer import DESKTOP_TKINTER, MSG_WARN, MessageView, ProtocolViewer, View
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
from .figure_view import FigureView
from .item_viewer import ItemViewer


class CryodenDualTrainViewer(ProtocolViewer):
    """How a training of DUAL goes on, while it runs and afterwards."""

    _label = "DUAL training viewer"
    _targets = [ProtCryodenDualTrain]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Training")
        form.addParam(
            "showMontage",
            LabelParam,
            important=True,
            label="Montage of volumes",
            help="A noisy crop, its denoised and its cycled one; a clean crop, its simulation and what is found again; "
            "and their spectra. Made anew at each check; the first ones come after a tenth of the training.",
        )
        form.addParam(
            "showLosses",
            LabelParam,
            label="Losses",
            help="The two cycles should fall. Critics and generators work against each other: their losses go up and "
            "down and never settle. Press again while the training runs to see more.",
        )
        form.addParam(
            "showChecks",
            LabelParam,
            label="Checks of the training's health",
            help="The figures that the alarms look at, over the steps, with the limits beyond which they are alarms.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        folder = self.protocol.folder()
        return {
            "showMontage": lambda *_: self._figure("montage", lambda: figures.picture(folder.montage)),
            "showLosses": lambda *_: self._figure("losses", lambda: dual_figures.losses(folder)),
            "showChecks": lambda *_: self._figure("checks", lambda: dual_figures.checks(folder)),
        }

    def _figure(self, what: str, draw: Callable[[], Any]) -> List[View]:
        try:
            return [FigureView(draw(), "DUAL training: %s" % what, self.getTkRoot())]
        except (JobError, OSError) as error:
            return [MessageView(str(error), "Nothing to show", MSG_WARN, self.getTkRoot())]


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

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Before and after")
        self._defineItemParam(form, "Tomogram")
        form.addParam(
            "showSlices",
            LabelParam,
            important=True,
            label="Slices before and after",
            help="Central xy, xz and yz slices side by side, each volume with its own contrast.",
        )
        form.addParam(
            "showSideSpectra",
            LabelParam,
            label="Power from the side (missing wedge)",
            help="Power in the plane of kx and kz before and after. The missing wedge is a dark double cone about the "
            "vertical.",
        )
        form.addParam(
            "showSpectra",
            LabelParam,
            label="Power spectra",
            help="Radial power spectra before, after and of the difference.",
        )
        if isinstance(self.protocol, ProtCryodenDualSimulate):
            self._defineLabelsParam(form)
        if isinstance(self.protocol, ProtCryodenDualDenoise):
            self._defineFscParam(form)
        if isinstance(self.protocol, ProtCryodenDualWedge):
            form.addParam(
                "showLoss",
                LabelParam,
                label="Training loss",
                help="Of the network that was trained on the tomogram itself.",
            )

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        shown = {
            "showSlices": lambda *_: self.figure("before and after", self._slices),
            "showSideSpectra": lambda *_: self.figure("power from the side", self._sideSpectra),
            "showSpectra": lambda *_: self.figure("power spectra", self._spectra),
        }
        if isinstance(self.protocol, ProtCryodenDualSimulate):
            shown["showLabels"] = lambda *_: self.figure("classes", self._labels)
        if isinstance(self.protocol, ProtCryodenDualDenoise):
            shown["showFsc"] = lambda *_: self.figure("half maps", self.halfMapFsc)
        if isinstance(self.protocol, ProtCryodenDualWedge):
            shown["showLoss"] = lambda *_: self.figure("training", self._loss)
        return shown

    # --------------------------- what is shown -------------------------------
    def _slices(self) -> Any:
        return figures.side_by_side(self._before(), self._after())

    def _sideSpectra(self) -> Any:
        return figures.side_spectra_of(self._before(), self._after())

    def _spectra(self) -> Any:
        return figures.spectra(self._before(), self._after())

    def _labels(self) -> Any:
        original = self.protocol.fileOf(self.protocol.inputLabels.get(), self.tsId())
        return self.labelled(self.protocol.firstOutputId(self.tsId()), original)

    def _loss(self) -> Any:
        if not os.path.exists(self._folder().metrics):
            raise JobError("Nothing was trained on %s: a model was applied." % self.tsId())
        return figures.loss(self._folder())

    def _after(self) -> Tomogram:
        """The result, the first draw of several."""
        return self._find(getattr(self.protocol, OUTPUT_TOMOGRAMS, None), self.protocol.firstOutputId(self.tsId()))

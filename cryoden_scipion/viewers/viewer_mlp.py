"""The viewer behind *Analyze results* of the MLP protocol: thin glue between a small form and the figures."""

from typing import Any, Callable, Dict

from pyworkflow.protocol.params import Form, LabelParam

from cryoden_core.jobs import JobError

from ..protocols import ProtCryodenMlpReconstruct
from . import figures
from .item_viewer import ItemViewer


class CryodenMlpViewer(ItemViewer):
    """A reconstruction beside weighted back-projection, its residuals, losses, halves and spectra."""

    _label = "MLP viewer"
    _targets = [ProtCryodenMlpReconstruct]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Reconstructed tomograms")
        self._defineItemParam(form, "Tilt series")
        form.addParam(
            "showSlices",
            LabelParam,
            important=True,
            label="Slices beside weighted back-projection",
            help="Central xy, xz and yz slices of the tomogram and of the weighted back-projection of the same images, "
            "each with its own contrast.",
        )
        form.addParam(
            "showResiduals",
            LabelParam,
            label="Residual of each image",
            help="How much of each image the tomogram does not explain, against its tilt angle. An image that stands "
            "out is badly aligned, or should be excluded. Sign and offset of the angles do not show here.",
        )
        form.addParam(
            "showLoss",
            LabelParam,
            label="Losses",
            help="Losses over the steps of the fit; press again while it runs to see more of them.",
        )
        form.addParam(
            "showFsc",
            LabelParam,
            label="Agreement of the half tomograms (FSC)",
            help="Fourier shell correlation between the even and the odd tomogram, which share no data.",
        )
        form.addParam(
            "showSpectra",
            LabelParam,
            label="Power from the side (missing wedge)",
            help="Power in the plane of kx and kz. In a weighted back-projection the missing wedge is a dark double "
            "cone; what the network puts there is a guess that agrees with the images.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return {
            "showSlices": lambda *_: self.figure("beside weighted back-projection", self._slices),
            "showResiduals": lambda *_: self.figure("residual of each image", self._residuals),
            "showLoss": lambda *_: self.figure("losses", lambda: figures.loss(self._folder())),
            "showFsc": lambda *_: self.figure("half tomograms", self._fsc),
            "showSpectra": lambda *_: self.figure("power from the side", self._spectra),
        }

    def _slices(self) -> Any:
        return figures.beside_back_projection(self._after(), self._folder())

    def _residuals(self) -> Any:
        drawn = figures.residuals(self._folder())
        if drawn is None:
            raise JobError("%s is not finished yet." % self.tsId())
        return drawn

    def _fsc(self) -> Any:
        drawn = figures.half_map_fsc(None, self._after())
        if drawn is None:
            raise JobError("%s has no half tomograms." % self.tsId())
        return drawn

    def _spectra(self) -> Any:
        return figures.side_spectra(self._after(), self._folder())

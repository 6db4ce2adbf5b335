"""The viewer behind *Analyze results* of the MLP protocol: thin glue between a small form and the figures."""

from typing import Any, List

from cryoden_core.jobs import JobError

from ..protocols import ProtCryodenMlpReconstruct
from . import figures
from .figure_viewer import Button
from .item_viewer import ItemViewer


class CryodenMlpViewer(ItemViewer):
    """A reconstruction beside weighted back-projection, its residuals, losses, halves and spectra."""

    _label = "MLP viewer"
    _targets = [ProtCryodenMlpReconstruct]

    HEADING = "Reconstructed tomograms"
    ITEM = "Tilt series"

    def _buttons(self) -> List[Button]:
        return [
            Button(
                "showSlices",
                "Slices beside weighted back-projection",
                "Central xy, xz and yz slices of the tomogram and of the weighted back-projection of the same images, "
                "each with its own contrast.",
                "beside weighted back-projection",
                lambda: figures.beside_back_projection(self._after(), self._folder()),
            ),
            Button(
                "showResiduals",
                "Residual of each image",
                "How much of each image the tomogram does not explain, against its tilt angle. An image that stands "
                "out is badly aligned, or should be excluded. Sign and offset of the angles do not show here.",
                "residual of each image",
                self._residuals,
            ),
            Button(
                "showLoss",
                "Losses",
                "Losses over the steps of the fit; press again while it runs to see more of them.",
                "losses",
                lambda: figures.loss(self._folder()),
            ),
            Button(
                "showFsc",
                "Agreement of the half tomograms (FSC)",
                "Fourier shell correlation between the even and the odd tomogram, which share no data.",
                "half tomograms",
                self._fsc,
            ),
            Button(
                "showSpectra",
                "Power from the side (missing wedge)",
                "Power in the plane of kx and kz. In a weighted back-projection the missing wedge is a dark double "
                "cone; what the network puts there is a guess that agrees with the images.",
                "power from the side",
                lambda: figures.side_spectra(self._after(), self._folder()),
            ),
        ]

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

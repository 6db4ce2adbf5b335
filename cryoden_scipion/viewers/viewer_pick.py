"""The viewer behind *Analyze results* of the picking protocol."""

from typing import Any, List

from ..constants import OUTPUT_COORDINATES
from ..protocols import ProtCryodenPick
from . import figures
from .figure_viewer import Button
from .item_viewer import ItemViewer


class CryodenPickViewer(ItemViewer):
    """Picks as circles on a slab of a tomogram."""

    _label = "picking viewer"
    _targets = [ProtCryodenPick]

    HEADING = "Picked particles"

    def _buttons(self) -> List[Button]:
        return [
            Button(
                "showPicks",
                "Picks in a slab",
                "The mean of some slices where most picks are. A circle is as wide as a particle is there, so that "
                "small ones belong to particles above or below.",
                "picks",
                self._picks,
            )
        ]

    def _picks(self) -> Any:
        tomogram, picked = self._before(), getattr(self.protocol, OUTPUT_COORDINATES, None)
        found = [item.clone() for item in picked.iterCoordinates(volume=tomogram)] if picked is not None else []
        return figures.picks(tomogram, found, self.protocol.diameter.get())

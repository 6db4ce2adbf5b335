"""The viewer behind *Analyze results* of the picking protocol."""

from typing import Any, Callable, Dict

from pyworkflow.protocol.params import Form, LabelParam

from ..constants import OUTPUT_COORDINATES
from ..protocols import ProtCryodenPick
from . import figures
from .item_viewer import ItemViewer


class CryodenPickViewer(ItemViewer):
    """Picks as circles on a slab of a tomogram."""

    _label = "picking viewer"
    _targets = [ProtCryodenPick]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Picked particles")
        self._defineItemParam(form, "Tomogram")
        form.addParam(
            "showPicks",
            LabelParam,
            important=True,
            label="Picks in a slab",
            help="The mean of some slices where most picks are. A circle is as wide as a particle is there, so that "
            "small ones belong to particles above or below.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return {"showPicks": lambda *_: self.figure("picks", self._picks)}

    def _picks(self) -> Any:
        tomogram, picked = self._before(), getattr(self.protocol, OUTPUT_COORDINATES, None)
        found = [item.clone() for item in picked.iterCoordinates(volume=tomogram)] if picked is not None else []
        return figures.picks(tomogram, found, self.protocol.diameter.get())

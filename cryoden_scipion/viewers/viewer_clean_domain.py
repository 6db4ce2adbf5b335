"""The viewer behind *Analyze results* of the protocol that makes a clean domain."""

from typing import Any, List

from ..constants import OUTPUT_TOMOGRAMS
from ..protocols import ProtCryodenDualCleanDomain
from .figure_viewer import Button
from .item_viewer import ItemViewer


class CryodenCleanDomainViewer(ItemViewer):
    """Grand models with what was placed in them."""

    _label = "clean domain viewer"
    _targets = [ProtCryodenDualCleanDomain]

    HEADING = "Grand models"
    ITEM = "Grand model"

    def _buttons(self) -> List[Button]:
        return [self._labelsButton()]

    def tsIds(self) -> List[str]:
        """The grand models that are finished."""
        made: Any = getattr(self.protocol, OUTPUT_TOMOGRAMS, None)
        return list(made.getTSIds()) if made is not None else []

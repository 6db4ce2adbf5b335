"""The viewer behind *Analyze results* of the protocol that makes a clean domain."""

from typing import Any, Callable, Dict, List

from pyworkflow.protocol.params import Form

from ..constants import OUTPUT_TOMOGRAMS
from ..protocols import ProtCryodenDualCleanDomain
from .item_viewer import ItemViewer


class CryodenCleanDomainViewer(ItemViewer):
    """Grand models with what was placed in them."""

    _label = "clean domain viewer"
    _targets = [ProtCryodenDualCleanDomain]

    def _defineParams(self, form: Form) -> None:
        form.addSection(label="Grand models")
        self._defineItemParam(form, "Grand model")
        self._defineLabelsParam(form)

    def _getVisualizeDict(self) -> Dict[str, Callable]:
        return {"showLabels": lambda *_: self.figure("classes", self.labelled)}

    def tsIds(self) -> List[str]:
        """The grand models that are finished."""
        made: Any = getattr(self.protocol, OUTPUT_TOMOGRAMS, None)
        return list(made.getTSIds()) if made is not None else []

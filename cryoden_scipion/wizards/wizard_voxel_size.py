"""The voxel size of the input, beside the fields that should equal it."""

from typing import Any, Optional

from pyworkflow.wizard import Wizard

from ..protocols import ProtCryodenDualCleanDomain, ProtCryodenDualTrain


def sampling_rate_of_input(protocol: Any) -> Optional[float]:
    """Sampling rate (angstrom) of the tomograms that a form has as its input, or None."""
    for name in ("inputNoisy", "inputLike"):
        pointer = getattr(protocol, name, None)
        if pointer is not None and pointer.get() is not None:
            return float(pointer.get().getSamplingRate())
    return None


class CryodenVoxelSizeWizard(Wizard):
    """Takes the sampling rate of the tomograms that the model is, or will be, trained on."""

    _targets = [(ProtCryodenDualTrain, ["voxelSize"]), (ProtCryodenDualCleanDomain, ["voxelSize"])]

    def show(self, form: Any, *params: Any) -> None:
        """Fill the field."""
        found = sampling_rate_of_input(form.protocol)
        if found is None:
            from pyworkflow.gui.dialog import showInfo

            showInfo("Voxel size", "Choose the tomograms first; their sampling rate is taken.", form.root)
            return
        form.setVar("voxelSize", found)

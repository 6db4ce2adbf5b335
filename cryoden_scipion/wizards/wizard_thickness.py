"""Nanometres to voxels, for the thickness of a reconstruction."""

from typing import Any, Optional

from pyworkflow.wizard import Wizard

from ..protocols import ProtCryodenMlpReconstruct

_ANGSTROM_IN_NANOMETRE = 10.0


def voxels_of(nanometres: float, sampling_rate: float) -> int:
    """The even number of voxels (of ``sampling_rate`` angstrom) nearest to a thickness, at least 2."""
    return max(2, 2 * round(nanometres * _ANGSTROM_IN_NANOMETRE / sampling_rate / 2))


class CryodenThicknessWizard(Wizard):
    """Asks for nanometres and fills in unbinned voxels."""

    _targets = [(ProtCryodenMlpReconstruct, ["thickness"])]

    def show(self, form: Any, *params: Any) -> None:
        """Ask, convert, fill the field."""
        tilt_series = form.protocol.getInputSet()
        if tilt_series is None:
            from pyworkflow.gui.dialog import showInfo

            showInfo("Thickness", "Choose the tilt series first; their sampling rate is needed.", form.root)
            return
        sampling_rate = float(tilt_series.getSamplingRate())
        present = form.protocol.thickness.get() * sampling_rate / _ANGSTROM_IN_NANOMETRE
        nanometres = self.ask(form.root, present)
        if nanometres is not None:
            form.setVar("thickness", voxels_of(nanometres, sampling_rate))

    def ask(self, root: Any, present: float) -> Optional[float]:
        """The thickness in nanometres that the person gives, or None."""
        from tkinter import simpledialog

        return simpledialog.askfloat(
            "Thickness", "Thickness of the tomogram in nanometres:", parent=root, minvalue=1.0, maxvalue=10000.0,
            initialvalue=round(present, 1),
        )  # fmt: skip

"""Whether protein is dark or bright in the input, guessed from its grey values."""

from typing import Any, Tuple

import numpy as np
from pyworkflow.wizard import Wizard

from cryoden_core.mrc import open_volume
from cryoden_core.report import central_block

from ..convert import clean_path
from ..protocols import ProtCryodenDualTrain

DARK, BRIGHT, UNCLEAR = "dark", "bright", "auto"

#: A skewness counts when it is this many times its standard error.
_CLEAR = 5.0
#: Voxels that are averaged along each axis before: noise is symmetric, and specimen is larger than it.
_BINNING = 4


def contrast_of(volume: np.ndarray) -> Tuple[str, float]:
    """dark, bright or auto (unclear), and the skewness of the coarse grey values of the central block (z, y, x)."""
    block = central_block(volume).astype(np.float64)
    edges = [size // _BINNING for size in block.shape]
    block = block[tuple(slice(0, edge * _BINNING) for edge in edges)]
    coarse = block.reshape(edges[0], _BINNING, edges[1], _BINNING, edges[2], _BINNING).mean(axis=(1, 3, 5)).ravel()
    if not coarse.size or coarse.std() == 0:
        return UNCLEAR, 0.0
    skewness = float((((coarse - coarse.mean()) / coarse.std()) ** 3).mean())
    if abs(skewness) < _CLEAR * np.sqrt(6.0 / coarse.size):
        return UNCLEAR, skewness
    return (BRIGHT if skewness > 0 else DARK), skewness


class CryodenContrastWizard(Wizard):
    """Looks at the first volume of the domain and says what it found."""

    _targets = [(ProtCryodenDualTrain, ["contrast", "cleanContrast"])]

    def show(self, form: Any, *params: Any) -> None:
        """Guess, fill the field, and say how sure it is."""
        from pyworkflow.gui.dialog import showInfo

        clean = getattr(form, "wizParamName", "contrast") == "cleanContrast"
        volumes = (form.protocol.inputClean if clean else form.protocol.inputNoisy).get()
        if volumes is None:
            showInfo("Contrast", "Choose the volumes first.", form.root)
            return
        first = volumes.getFirstItem()
        found, skewness = contrast_of(open_volume(clean_path(first.getFileName())))
        name = "cleanContrast" if clean else "contrast"
        form.setVar(name, list(form.protocol.getParam(name).choices).index(found))
        sentence = "It cannot be told; look yourself." if found == UNCLEAR else "Protein looks %s." % found
        showInfo("Contrast", "%s (skewness of the coarse grey values: %.2f)" % (sentence, skewness), form.root)

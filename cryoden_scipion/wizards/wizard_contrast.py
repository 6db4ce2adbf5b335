"""Whether protein is dark or bright in the input, guessed from its grey values as the training itself would."""

from typing import Any, Tuple

import numpy as np
from pyworkflow.wizard import Wizard

from cryoden_core.contrast import CLEAR_SKEWNESS, contrast_of
from cryoden_core.jobs import DualTrainJob, JobError, parameters_of
from cryoden_core.mrc import open_volume

from ..convert import clean_path
from ..protocols import ProtCryodenDualTrain

DARK, BRIGHT, UNCLEAR = "dark", "bright", "auto"
#: In the order of the form.
CONTRASTS = list(parameters_of(DualTrainJob)["contrast"].choices)


def guessed_contrast(volume: np.ndarray) -> Tuple[str, str]:
    """dark, bright, or auto where it cannot be told; and the sentence for the person who asked."""
    sign, clearness = contrast_of(volume)
    if clearness < CLEAR_SKEWNESS:
        return UNCLEAR, (
            "It cannot be told from the grey values: open the volume and choose dark or bright. Otherwise the "
            "training will stop and ask for it."
        )
    found = BRIGHT if sign > 0 else DARK
    return found, "Protein looks %s. Open the volume if you doubt it: all depends on it." % found


class CryodenContrastWizard(Wizard):
    """Looks at the first volume of the domain and says what it found."""

    _targets = [(ProtCryodenDualTrain, ["contrast", "cleanContrast"])]

    def show(self, form: Any, *params: Any) -> None:
        """Guess, fill the field, and say what was found."""
        from pyworkflow.gui.dialog import showInfo

        clean = getattr(form, "wizParamName", "contrast") == "cleanContrast"
        volumes = (form.protocol.inputClean if clean else form.protocol.inputNoisy).get()
        if volumes is None:
            showInfo("Contrast", "Choose the volumes first.", form.root)
            return
        path = clean_path(volumes.getFirstItem().getFileName())
        try:
            found, sentence = guessed_contrast(open_volume(path))
        except (JobError, OSError) as error:
            showInfo("Contrast", str(error), form.root)
            return
        name = "cleanContrast" if clean else "contrast"
        form.setVar(name, CONTRASTS.index(found))
        showInfo("Contrast", sentence, form.root)

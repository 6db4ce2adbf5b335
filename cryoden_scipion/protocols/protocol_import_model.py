"""A model file from elsewhere becomes an object of the project."""

import os
from typing import List

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol.params import FileParam, Form
from pyworkflow.utils import Message, copyFile

from cryoden_core.jobs import JobError

from ..constants import OUTPUT_MODEL
from ..model_file import SYSTEMS, model_object, read_about
from ..objects import CryodenModel


class ProtCryodenImportModel(EMProtocol):
    """
    Imports a model of CryoDen, trained in another project, on another computer, or with the command line: one file
    that ends with .safetensors. Models of NMSG, of DUAL and of its missing wedge can be imported.

    What you get: a model for the protocols that apply one. What it was trained on, at which voxel size and with which
    preset is read from the file. The file is copied into the project.
    """

    _label = "import model"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_MODEL: CryodenModel}

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "modelPath",
            FileParam,
            important=True,
            label="Model file",
            help="A file that CryoDen wrote, model.safetensors in most cases; it is found in the folder of a training.",
        )

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self) -> None:
        self._insertFunctionStep(self.importStep, self._given(), needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    def importStep(self, path: str) -> None:
        """Copy the file and register it."""
        about = read_about(path)
        target = self._getExtraPath(os.path.basename(path))
        copyFile(path, target)
        self._defineOutputs(**{OUTPUT_MODEL: model_object(target, about, ctfCorrected=None)})

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        if not self._given():
            return ["Give the model file."]
        try:
            read_about(self._given())
        except JobError as error:
            return [str(error)]
        return []

    def _summary(self) -> List[str]:
        model = getattr(self, OUTPUT_MODEL, None)
        if model is None:
            return ["Nothing was imported yet."]
        lines = ["A model of *%s*, imported from %s." % (SYSTEMS[model.getSystem()], self._given())]
        if model.getSamplingRate():
            lines.append("Trained at %.2f \u00c5 per voxel on %s." % (model.getSamplingRate(), model.getTrainedOn()))
        return lines

    # --------------------------- UTILS functions -----------------------------
    def _given(self) -> str:
        return (self.modelPath.get() or "").strip()

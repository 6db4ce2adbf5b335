"""Training sets for segmentation and picking, of simulated tomograms (Zeng et al., bioRxiv 2024.03.02.583135)."""

import os
from typing import Any, Dict, Iterator, List

from pyworkflow import BETA
from pyworkflow.protocol.params import Form, StringParam
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, SetOfTomoMasks, Tomogram

from cryoden_core.jobs import TrainingSetJob

from ..constants import OUTPUT_COORDINATES, OUTPUT_FAILED, OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import ItemFolder, safe_name
from ..forms import add_job_param
from ..training_set import (
    chosen_classes,
    class_mask,
    class_problems,
    describe_sets,
    new_numbers,
    share_tomogram,
    training_set_job,
    warnings_of,
    write_locations,
)
from .protocol_dual_simulate import ProtCryodenDualSimulate
from .texts import condensed


class ProtCryodenDualTrainingSet(ProtCryodenDualSimulate):
    """
    Makes training sets for segmentations and pickers: simulates tomograms of grand models with a trained DUAL model,
    and puts out what a network shall find in them. Other than *simulate tomograms (DUAL)* it lets you choose the
    classes, and numbers them from 1 on, the same in all tomograms.

    What goes in: grand models from *make clean domain* with their labels and coordinates, and a model.

    What you get: simulated tomograms; masks with the number of the class of each voxel, 0 outside of all; coordinates,
    whose group is that number. They fit together by tsId: take the masks and the coordinates as they are for
    *DeepFinder - train*. For programs outside of Scipion (DeePiCt, Dragonfly, MemBrain, networks of your own) the
    folder extra/<grand model>/<tsId> holds the tomogram, the mask, the locations (STAR, and XML for DeepFinder) and
    metadata.json. A mask of one class only, as MemBrain and DeePiCt want it, comes when you choose one class.

    Make several, of several grand models: a network that has seen one tomogram knows that one.
    """

    _label = "make training set (DUAL)"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_TOMOGRAMS: SetOfTomograms,
        OUTPUT_LABELS: SetOfTomoMasks,
        OUTPUT_COORDINATES: SetOfCoordinates3D,
        OUTPUT_FAILED: SetOfTomograms,
    }

    NEEDS_LABELS = True
    MADE = "A training set of %d tomograms was simulated"

    # --------------------------- DEFINE param functions ----------------------
    @classmethod
    def _defineTruthParams(cls, form: Form) -> None:
        super()._defineTruthParams(form)
        form.addParam(
            "classes",
            StringParam,
            default="",
            label="Classes (empty: all)",
            help="Names or numbers of the classes to keep, separated by commas; they become 1, 2 and so on in this "
            "order, and the others background. The wand lists them. DeepFinder needs classes that have coordinates "
            "only: leave membranes and gold out for it.",
        )
        add_job_param(
            form,
            TrainingSetJob,
            "crop",
            "Edge of crops, 0 for none",
            "They are written to the folder of each tomogram.",
        )

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        return dict(super()._itemSettings(tsId), labels="")  # the training set has its own, with the new numbers

    def processItem(self, tsId: str) -> None:
        """Simulate, and make a training set of each tomogram."""
        super().processItem(tsId)
        labels, particles = self.fileOf(self.inputLabels.get(), tsId), self._locations(tsId)
        for folder, tomogram in zip(self._setFolders(tsId), self._drawnFiles(tsId)):
            job = training_set_job(tomogram, labels, particles, folder, self._classes(), self.crop.get())
            self.runCoreJob(job, folder, [])
            share_tomogram(folder, tomogram)

    def _locations(self, tsId: str) -> str:
        """The table of the coordinates of a grand model, written for the core; empty where there are none."""
        coordinates = self._knownCoordinates(tsId)
        for coordinate in coordinates:
            coordinate.setVolume(self._items[tsId])
        path = os.path.join(self._itemFolder(tsId).path, "particles.star")
        return write_locations(coordinates, path, tsId) if coordinates else ""

    def _coordinatesIn(self, tomogram: Tomogram) -> Iterator[Coordinate3D]:
        """Those of the classes that were kept, with their new numbers."""
        numbers = new_numbers(self._setFolder(tomogram.getTsId()))
        for coordinate in super()._coordinatesIn(tomogram):
            if coordinate.getGroupId() in numbers:
                coordinate.setGroupId(numbers[coordinate.getGroupId()])
                yield coordinate

    def _labelsOf(self, tomogram: Tomogram) -> str:
        return class_mask(self._setFolder(tomogram.getTsId()))

    # --------------------------- INFO functions ------------------------------
    def _inputProblems(self) -> List[str]:
        problems = super()._inputProblems()
        volumes, labels = self.getInputSet(), self.inputLabels.get()
        if volumes is None or labels is None:
            return problems
        files = [self.fileOf(labels, ts_id) for ts_id in volumes.getTSIds()]
        without = [ts_id for ts_id, path in zip(volumes.getTSIds(), files) if not path]
        if without:
            return [*problems, "There are no labels for %s." % ", ".join(without[:5])]
        return problems + class_problems(files, self._classes())

    def _summary(self) -> List[str]:
        volumes = self.getInputSet()
        folders = [folder for ts_id in volumes.getTSIds() for folder in self._setFolders(ts_id)] if volumes else []
        warnings = ["*Warning*: %s" % warning for warning in condensed(warnings_of(folders))]
        return super()._summary() + describe_sets(folders) + warnings

    # --------------------------- UTILS functions -----------------------------
    def _classes(self) -> List[str]:
        return chosen_classes(self.classes.get())

    def _setFolders(self, tsId: str) -> List[ItemFolder]:
        """The training sets of a grand model, one for each draw."""
        return [ItemFolder(os.path.join(self._itemFolder(tsId).path, safe_name(name))) for name in self._drawnIds(tsId)]

    def _setFolder(self, drawnId: str) -> ItemFolder:
        """The training set of a simulated tomogram."""
        source = self._sourceOf(drawnId)
        return self._setFolders(source)[self._drawnIds(source).index(drawnId)]

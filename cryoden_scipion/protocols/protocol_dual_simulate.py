"""Simulation of tomograms with a trained DUAL model (Zeng et al., bioRxiv 2024.03.02.583135)."""

import glob
import os
from typing import Any, Dict, Iterator, List, Set, Tuple

from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol.params import Form, PointerParam
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, SetOfTomoMasks, TomoAcquisition, Tomogram

from cryoden_core.jobs import DualSimulateJob, JobError

from ..clean_domain import labels_mask
from ..constants import OUTPUT_COORDINATES, OUTPUT_FAILED, OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import output_tomogram
from ..forms import add_job_param
from ..model_file import read_about
from .noise_choice import NoiseChoice
from .protocol_dual_apply import ProtCryodenDualApply


class ProtCryodenDualSimulate(ProtCryodenDualApply, NoiseChoice):
    """
    Simulates tomograms of grand models with a trained DUAL model: noisy like those that it was trained on, with known
    truth, to train pickers and segmentations with, or to test them.

    What goes in: noise-free volumes, from *make clean domain* or another program, and a model. With coordinates
    or labels of what is in them, these are put out for the simulated tomograms too.

    What you get: for each volume as many tomograms as you ask for, each with other noise. With several, the tsId is
    that of the volume with _1, _2 and so on. Halves have independent noise, as far as the simulator is linear.
    """

    _label = "simulate tomograms (DUAL)"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_TOMOGRAMS: SetOfTomograms,
        OUTPUT_COORDINATES: SetOfCoordinates3D,
        OUTPUT_LABELS: SetOfTomoMasks,
        OUTPUT_FAILED: SetOfTomograms,
    }

    JOB = DualSimulateJob
    CONTRAST_OF_MODEL = "as in the model's clean volumes"

    #: Whether the labels of the grand models must be given.
    NEEDS_LABELS = False

    #: Beginning of the sentence for the methods.
    MADE = "%d tomograms were simulated"

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        self._defineInputParams(
            form,
            "Grand models",
            "Noise-free volumes of the kind that the model's clean domain held.",
            "From *train DUAL* or *import model*; the tomograms become like those that it was trained on.",
        )
        self._defineTruthParams(form)
        form.addSection(label="Simulation")
        add_job_param(form, DualSimulateJob, "draws", "Tomograms of each")
        self._defineNoiseParams(form, DualSimulateJob)
        add_job_param(form, DualSimulateJob, "halves", "Write halves?")
        add_job_param(form, DualSimulateJob, "seed", "Seed", "Each grand model gets noise of its own.")
        self._defineContrastParam(form)
        self._defineLastParams(form)

    @classmethod
    def _defineTruthParams(cls, form: Form) -> None:
        form.addParam(
            "inputCoordinates",
            PointerParam,
            pointerClass="SetOfCoordinates3D",
            allowsNull=True,
            label="Coordinates (optional)",
            help="Of what is in the grand models, matched by tsId; they are put out for each simulated tomogram.",
        )
        form.addParam(
            "inputLabels",
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=not cls.NEEDS_LABELS,
            important=cls.NEEDS_LABELS,
            label="Labels" if cls.NEEDS_LABELS else "Labels (optional)",
            help="The class of each voxel of the grand models, matched by tsId; a copy goes with each simulated "
            "tomogram.",
        )

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        return {
            **self.noiseSettings(tsId),
            "labels": self.fileOf(self.inputLabels.get(), tsId),
            "resume": True,  # Continue keeps the draws that are finished, those of another model or map do not count
        }

    def _written(self, job: DualSimulateJob) -> List[str]:
        return job.outputs()

    def _outputItems(self, tsId: str) -> List[Tomogram]:
        """One tomogram for each draw, with the tilt range that the model was trained on."""
        folder, tomograms = self._itemFolder(tsId), []
        for name, path in zip(self._drawnIds(tsId), self._drawnFiles(tsId)):
            tomogram = output_tomogram(self._items[tsId], folder)
            tomogram.setTsId(name)
            tomogram.setLocation(path)
            stem, extension = os.path.splitext(path)
            halves = [stem + "_even" + extension, stem + "_odd" + extension]
            tomogram.setHalfMaps(halves if self.halves.get() else [])
            tomogram.setAcquisition(self._acquisition(tomogram))
            tomograms.append(tomogram)
        return tomograms

    def closeOutputSetsStep(self) -> None:
        """Put out coordinates and labels too, then close."""
        self._registerCoordinates()
        self._registerLabels()
        super().closeOutputSetsStep()

    def _registerCoordinates(self) -> None:
        known, output = self.inputCoordinates.get(), getattr(self, OUTPUT_TOMOGRAMS, None)
        if known is None or output is None:
            return
        self._removeEarlier(OUTPUT_COORDINATES)
        placed = self._createSetOfCoordinates3D(Pointer(self, extended=OUTPUT_TOMOGRAMS))
        placed.setSamplingRate(known.getSamplingRate())
        placed.setBoxSize(known.getBoxSize())
        for tomogram in [item.clone() for item in output.iterItems()]:
            for coordinate in self._coordinatesIn(tomogram):
                placed.append(coordinate)
        if placed.getSize():  # a set without items cannot be read
            self._defineOutputs(**{OUTPUT_COORDINATES: placed})
            self._defineSourceRelation(self.inputCoordinates, placed)

    def _coordinatesIn(self, tomogram: Tomogram) -> Iterator[Coordinate3D]:
        """The coordinates of a simulated tomogram: those of its grand model."""
        for coordinate in self._knownCoordinates(self._sourceOf(tomogram.getTsId())):
            coordinate.setVolume(tomogram)
            yield coordinate

    def _knownCoordinates(self, tsId: str) -> List[Coordinate3D]:
        """Copies of the coordinates of a grand model."""
        known = self.inputCoordinates.get()
        with self._lock:
            copies = [item.clone() for item in known.iterItems(where='_tomoId="%s"' % tsId)] if known else []
        for copy in copies:
            copy.cleanObjId()
        return copies

    def _registerLabels(self) -> None:
        known, output = self.inputLabels.get(), getattr(self, OUTPUT_TOMOGRAMS, None)
        if known is None or output is None:
            return
        self._removeEarlier(OUTPUT_LABELS)
        labels = SetOfTomoMasks.create(self._getPath(), template="tomomasks%s.sqlite", suffix="Labels")
        labels.copyInfo(output)
        for tomogram in output.iterItems():
            path = self._labelsOf(tomogram)
            if path:
                labels.append(labels_mask(path, tomogram))
        if labels.getSize():
            self._defineOutputs(**{OUTPUT_LABELS: labels})
            self._defineSourceRelation(self.inputLabels, labels)

    def _labelsOf(self, tomogram: Tomogram) -> str:
        """The labels of a simulated tomogram; empty where its grand model has none."""
        # The core writes them beside the tomogram, with the ending of the original.
        found = glob.glob(glob.escape(os.path.splitext(tomogram.getFileName())[0]) + "_labels.*")
        return found[0] if found else ""

    def _removeEarlier(self, name: str) -> None:
        """Remove the output of a run that was continued: there are more tomograms now."""
        earlier = getattr(self, name, None)
        if earlier is not None:
            earlier.close()
            self.deleteOutput(earlier)

    # --------------------------- INFO functions ------------------------------
    def _domain(self) -> str:
        return "clean"

    def _warnings(self) -> List[str]:
        known, volumes = self.inputCoordinates.get(), self.getInputSet()
        if known is None or volumes is None:
            return super()._warnings()
        without = sorted(set(volumes.getTSIds()) - set(known.getTSIds()))
        if not without:
            return super()._warnings()
        return ["There are no coordinates for %s." % ", ".join(without[:5]), *super()._warnings()]

    def _done(self, count: int) -> str:
        made = self.MADE % count
        return "%s (noise amplitude %g, seed %d)" % (made, self.noise.get(), self.seed.get())

    # --------------------------- UTILS functions -----------------------------
    def firstOutputId(self, tsId: str) -> str:
        return self._drawnIds(tsId)[0]

    def _drawnIds(self, tsId: str) -> List[str]:
        count = self.draws.get()
        return [tsId] if count == 1 else ["%s_%d" % (tsId, number + 1) for number in range(count)]

    def _sourceOf(self, drawnId: str) -> str:
        """The tsId of the grand model of a simulated tomogram."""
        return next(ts_id for ts_id in self._items if drawnId in self._drawnIds(ts_id))

    def _drawnFiles(self, tsId: str) -> List[str]:
        return DualSimulateJob(output=self._itemFolder(tsId).output, draws=self.draws.get()).outputs()

    def _registeredIds(self) -> Set[str]:
        """The volumes all of whose draws are registered."""
        drawn = super()._registeredIds()
        volumes = self.getInputSet().getTSIds() if drawn else []
        return {ts_id for ts_id in volumes if drawn.issuperset(self._drawnIds(ts_id))}

    def _acquisition(self, tomogram: Tomogram) -> TomoAcquisition:
        """That of the input with the angles of the tomograms that the model was trained on."""
        acquisition = tomogram.getAcquisition()
        acquisition = acquisition.clone() if acquisition is not None else TomoAcquisition()
        try:
            low, high = self._tiltRange()
        except (JobError, KeyError, TypeError, ValueError):
            return acquisition  # a model without a tilt range says nothing of it
        acquisition.setAngleMin(low)
        acquisition.setAngleMax(high)
        return acquisition

    def _tiltRange(self) -> Tuple[float, float]:
        low, high = read_about(self._modelPath())["tilt_range"]
        return float(low), float(high)

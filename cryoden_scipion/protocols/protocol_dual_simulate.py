"""Simulation of tomograms with a trained DUAL model (Zeng et al., bioRxiv 2024.03.02.583135)."""

import glob
import os
from typing import Any, Dict, List, Set, Tuple

from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import Form, PointerParam
from tomo.objects import SetOfCoordinates3D, SetOfTomograms, SetOfTomoMasks, TomoAcquisition, Tomogram

from cryoden_core.jobs import DualSimulateJob, JobError

from ..clean_domain import labels_mask
from ..constants import OUTPUT_COORDINATES, OUTPUT_FAILED, OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import output_tomogram
from ..dual import files_of, seed_of
from ..forms import add_job_param, add_job_params
from ..model_file import read_about
from .protocol_dual_apply import ProtCryodenDualApply


class ProtCryodenDualSimulate(ProtCryodenDualApply):
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

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        self._defineInputParams(
            form,
            "Grand models",
            "Noise-free volumes of the kind that the model's clean domain held.",
            "From *train DUAL* or *import model*; the tomograms become like those that it was trained on.",
        )
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
            allowsNull=True,
            label="Labels (optional)",
            help="The class of each voxel of the grand models, matched by tsId; a copy goes with each simulated "
            "tomogram.",
        )
        form.addSection(label="Simulation")
        add_job_params(
            form,
            DualSimulateJob,
            (("draws", "Tomograms of each"), ("noise", "Amplitude of the noise"), ("halves", "Write halves?"),
             ("seed", "Seed", "Each grand model gets noise of its own.")),
        )  # fmt: skip
        form.addParam(
            "inputNoise",
            PointerParam,
            pointerClass="Tomogram",
            allowsNull=True,
            label="Take the noise of (optional)",
            help="A tomogram whose own noise is taken; without one, new noise is drawn.",
        )
        self._defineContrastParam(form)
        self._defineFallbackParam(form)
        add_job_param(form, DualSimulateJob, "tile", "Tile edge", expertLevel=LEVEL_ADVANCED)
        add_job_param(form, DualSimulateJob, "output_mode", "Number format", expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(threads=2, mpi=0)

    # --------------------------- STEPS functions -----------------------------
    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        source = self.inputNoise.get()
        return {
            "seed": seed_of(self.seed.get(), tsId),
            "noise_from": files_of([source])[0] if source is not None else "",
            "labels": self._labelsOf(tsId),
            "resume": True,  # Continue keeps the draws that are finished, those of another model or map do not count
        }

    def _labelsOf(self, tsId: str) -> str:
        """The file with the labels of a grand model, or an empty text."""
        known = self.inputLabels.get()
        with self._lock:
            if known is None or tsId not in known.getTSIds():
                return ""
            return files_of([known.getItem(Tomogram.TS_ID_FIELD, tsId)])[0]

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
        source = {name: ts_id for ts_id in self._items for name in self._drawnIds(ts_id)}
        placed = self._createSetOfCoordinates3D(Pointer(self, extended=OUTPUT_TOMOGRAMS))
        placed.setSamplingRate(known.getSamplingRate())
        placed.setBoxSize(known.getBoxSize())
        for tomogram in [item.clone() for item in output.iterItems()]:
            for found in known.iterItems(where='_tomoId="%s"' % source[tomogram.getTsId()]):
                coordinate = found.clone()
                coordinate.cleanObjId()
                coordinate.setVolume(tomogram)
                placed.append(coordinate)
        self._defineOutputs(**{OUTPUT_COORDINATES: placed})
        self._defineSourceRelation(self.inputCoordinates, placed)

    def _registerLabels(self) -> None:
        known, output = self.inputLabels.get(), getattr(self, OUTPUT_TOMOGRAMS, None)
        if known is None or output is None:
            return
        self._removeEarlier(OUTPUT_LABELS)
        labels = SetOfTomoMasks.create(self._getPath(), template="tomomasks%s.sqlite", suffix="Labels")
        labels.copyInfo(output)
        for tomogram in output.iterItems():
            # The core writes them beside the tomogram, with the ending of the original.
            found = glob.glob(glob.escape(os.path.splitext(tomogram.getFileName())[0]) + "_labels.*")
            if found:
                labels.append(labels_mask(found[0], tomogram))
        if labels.getSize():
            self._defineOutputs(**{OUTPUT_LABELS: labels})
            self._defineSourceRelation(self.inputLabels, labels)

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
        return "%d tomograms were simulated (noise amplitude %g, seed %d)" % (
            count,
            self.noise.get(),
            self.seed.get(),
        )

    # --------------------------- UTILS functions -----------------------------
    def firstOutputId(self, tsId: str) -> str:
        return self._drawnIds(tsId)[0]

    def _drawnIds(self, tsId: str) -> List[str]:
        count = self.draws.get()
        return [tsId] if count == 1 else ["%s_%d" % (tsId, number + 1) for number in range(count)]

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

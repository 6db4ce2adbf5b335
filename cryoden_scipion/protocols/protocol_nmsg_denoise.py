"""Denoising of tomograms with NMSG (Yang et al., Ultramicroscopy 255:113860, 2024).

The form and the outputs; the method itself is the core's.  The missing wedge is not restored by it.
"""

import logging
import os
from typing import Any, Dict, List, Optional

from pwem.objects import VolumeMask
from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import GE, BooleanParam, EnumParam, FloatParam, Form, IntParam, PointerParam, Range
from pyworkflow.utils import Message
from tomo.objects import SetOfTomograms, Tomogram

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import (
    NMSG_PRESETS,
    NOISE_MODELS,
    JobError,
    NmsgJob,
    NmsgTrainJob,
    default_of,
    parameters_of,
    read_json,
)

from ..constants import IN_MASK, IN_MODEL, IN_TOMO_SET, OUTPUT_FAILED, OUTPUT_MODEL, OUTPUT_TOMOGRAMS
from ..convert import (
    ItemFolder,
    clean_path,
    half_map_paths,
    input_problems,
    mask_problem,
    nmsg_job,
    nmsg_train_job,
    volume_size,
)
from ..estimate import Estimate, estimate_nmsg
from ..objects import CryodenModel
from .protocol_base import ItemFailed
from .protocol_streaming import ProtCryodenStreaming
from .texts import describe_progress, describe_time

logger = logging.getLogger(__name__)

TRAIN_EACH, TRAIN_SET, APPLY_MODEL = range(3)

#: Folder of the training of one model for the whole set, below ``extra``.
TRAINING_FOLDER = "training"

#: A model is suspicious where the voxel size differs by more than this share from that of its training.
VOXEL_SIZE_TOLERANCE = 0.1

#: Runs that take longer, or more memory, than this are announced before they start.
LONG_SECONDS = 600
LARGE_GIGABYTES = 8

#: Problems of single tomograms that a message lists.
LISTED_PROBLEMS = 5


class ProtCryodenNmsgDenoise(ProtCryodenStreaming):
    """
    Removes noise from tomograms with NMSG, a self-supervised neural network: it needs no clean data, no second
    measurement and no model from elsewhere, only the tomogram itself.

    How it works: the noise of the tomogram is measured, from its empty regions or, better, from the difference of its
    even and odd half maps. New noise of that kind is then made at every training step, and the network learns to tell
    it from the specimen. Two further terms keep the result close to a smoothed volume (guidance) and its edges sparse.

    What you get: a set with one denoised tomogram for each input tomogram, on the input's grey scale (dark protein
    stays dark), with its sampling rate, origin, acquisition and tsId. With half maps, denoised halves too, so that
    resolution can be measured downstream. Tomograms that could not be processed are in a set of their own, and the
    summary says why. *Analyze results* shows slices before and after, the loss, power spectra and the FSC.

    What it does not do: it does not fill the missing wedge, and it does not correct the CTF. Use the result to look,
    to pick and to segment; average subtomograms from the original tomograms.

    Which tomograms: raw reconstructions (weighted back-projection is best) that were *not* low-pass filtered or
    denoised before, because filtering makes the noise hard to model. Between 8 and 16 angstrom per voxel is usual; bin
    larger ones first.

    How long: on one current GPU, minutes for each tomogram with the default preset. Without a GPU use the preset
    *fast*. If a run is stopped, *Continue* goes on from its last checkpoint.
    """

    _label = "denoise tomograms (NMSG)"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_TOMOGRAMS: SetOfTomograms,
        OUTPUT_FAILED: SetOfTomograms,
        OUTPUT_MODEL: CryodenModel,
    }

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        form.addSection(label=Message.LABEL_INPUT)
        self._defineInputParams(form)
        self._defineModelParams(form)
        form.addSection(label="Denoising")
        self._defineDenoisingParams(form)
        self._defineExpertParams(form)
        form.addParallelSection(threads=2, mpi=0)

    @staticmethod
    def _defineInputParams(form: Form) -> None:
        form.addParam(
            IN_TOMO_SET,
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Tomograms",
            help="Tomograms to denoise, as they come from the reconstruction: not filtered, not denoised. They may "
            "have different sizes. The set may still be growing: each tomogram is processed when it arrives.",
        )
        form.addParam(
            "useHalfMaps",
            BooleanParam,
            default=True,
            label="Use half maps where there are any?",
            help="Half maps are tomograms made from the even and the odd frames or views. Their difference is pure "
            "noise, so the noise is measured instead of estimated, and the result is better. Tomograms without half "
            "maps are processed from the tomogram alone.",
        )
        form.addParam(
            "outputHalfMaps",
            BooleanParam,
            default=True,
            condition="useHalfMaps",
            label="Denoise the half maps too?",
            help="Yes also writes the even and the odd tomogram denoised, and registers them as half maps of the "
            "result, for local resolution or FSC. The network is then applied three times instead of once, which "
            "costs little beside the training. No leaves the result without half maps.",
        )
        form.addParam(
            IN_MASK,
            PointerParam,
            pointerClass="SetOfTomoMasks, VolumeMask",
            allowsNull=True,
            label="Specimen mask (optional)",
            help="Where the specimen is (1) and where not (0): training crops are taken inside. A set of tomogram "
            "masks is matched by tsId; one volume mask serves all tomograms of its size. Without a mask the whole "
            "tomogram is used, which is right unless most of it is empty.",
        )

    @staticmethod
    def _defineModelParams(form: Form) -> None:
        form.addParam(
            "trainingMode",
            EnumParam,
            choices=["one model per tomogram", "one model for the whole set", "apply a model"],
            default=TRAIN_EACH,
            label="Network",
            help="*One model per tomogram* trains on each tomogram by itself: the best result, and nothing to "
            "choose.\n*One model for the whole set* trains once, on the first tomograms, and applies that model to "
            "all: much faster for many tomograms of the same specimen, microscope and reconstruction.\n"
            "*Apply a model* takes the model that another run of this protocol made, and does not train.",
        )
        form.addParam(
            "trainingTomograms",
            IntParam,
            default=3,
            validators=[GE(1)],
            condition="trainingMode == %d" % TRAIN_SET,
            label="Tomograms to train on",
            help="The model is trained on this many tomograms, the first of the set. Three to five are enough when "
            "they are alike; more cost memory, not time.",
        )
        form.addParam(
            IN_MODEL,
            PointerParam,
            pointerClass="CryodenModel",
            allowsNull=True,
            condition="trainingMode == %d" % APPLY_MODEL,
            label="Model",
            help="Model from a run of this protocol with *one model for the whole set*. It should have been trained "
            "on tomograms of about the same voxel size and from the same kind of reconstruction.",
        )

    @staticmethod
    def _defineDenoisingParams(form: Form) -> None:
        form.addParam(
            "preset",
            EnumParam,
            choices=list(NMSG_PRESETS),
            default=NMSG_PRESETS.index(default_of(NmsgJob, "preset")),
            condition="trainingMode != %d" % APPLY_MODEL,
            label="Preset",
            help="*fast*: a small network and a short training, for a first look or for the CPU.\n*default*: the one "
            "to start with.\n*best*: trains several times longer, for the final result.\n*paper*: the recipe as it "
            "was published, for comparison.",
        )
        form.addParam(
            "strength",
            FloatParam,
            default=default_of(NmsgJob, "strength"),
            validators=[Range(0, 1, error="The strength must be between 0 and 1.")],
            label="Strength (0 to 1)",
            help="Share of the denoised volume in the output; the rest is the input. 1 is the denoised volume, 0.8 "
            "leaves a fifth of the noise, which some prefer for looking at membranes.",
        )
        form.addParam(
            "cpuFallback",
            BooleanParam,
            default=default_of(NmsgJob, "cpu_fallback"),
            label="Go on without a GPU?",
            help="What to do when a GPU was asked for and none is there: *No* stops with a message, *Yes* computes on "
            "the CPU, which takes very much longer.",
        )

    @staticmethod
    def _defineExpertParams(form: Form) -> None:
        about = parameters_of(NmsgJob)
        training = "trainingMode != %d" % APPLY_MODEL
        form.addParam(
            "noiseModel",
            EnumParam,
            choices=list(NOISE_MODELS),
            default=NOISE_MODELS.index(default_of(NmsgJob, "noise_model")),
            expertLevel=LEVEL_ADVANCED,
            condition=training,
            label="Noise model",
            help=_sentence(about["noise_model"].help),
        )
        form.addParam(
            "steps",
            IntParam,
            default=default_of(NmsgJob, "steps"),
            validators=[GE(0)],
            expertLevel=LEVEL_ADVANCED,
            condition=training,
            label="Training steps",
            help=_sentence(about["steps"].help) + " Time grows in proportion; memory does not change.",
        )
        form.addParam(
            "tile",
            IntParam,
            default=default_of(NmsgJob, "tile"),
            validators=[GE(0)],
            expertLevel=LEVEL_ADVANCED,
            label="Tile edge (voxels)",
            help=_sentence(about["tile"].help) + " Smaller tiles need less GPU memory; the result has no seams.",
        )
        form.addParam(
            "seed",
            IntParam,
            default=default_of(NmsgJob, "seed"),
            validators=[GE(0)],
            expertLevel=LEVEL_ADVANCED,
            label="Seed",
            help="The same seed on the same machine gives the same result; another one tells how much of it is chance.",
        )

    # --------------------------- INSERT steps functions ----------------------
    def _insertFirstSteps(self, is_open: bool) -> Optional[List[int]]:
        """In the mode with one model for the set, the training, once there are enough tomograms for it."""
        if self.trainingMode.get() != TRAIN_SET:
            return []
        wanted = self.trainingTomograms.get()
        if not self._items or (is_open and len(self._items) < wanted):
            return None if is_open else []
        train = self._insertFunctionStep(
            self.trainStep,
            ", ".join(list(self._items)[:wanted]),
            prerequisites=[],
            needsGPU=self.usesGpu(),
            wait=self.usesGpu(),
        )
        return [self._insertFunctionStep(self.createModelStep, prerequisites=train, needsGPU=False)]

    # --------------------------- STEPS functions -----------------------------
    def trainStep(self, trainedOn: str) -> None:
        """Train one model on the first tomograms; ``trainedOn`` is their list, for the record of steps."""
        folder = self._trainingFolder()
        try:
            job = nmsg_train_job(
                self._trainingTomograms(), folder, self._jobSettings(NmsgTrainJob), self.useHalfMaps.get()
            )
            self.runCoreJob(job, folder, [folder.model])
        except (ItemFailed, JobError) as error:
            raise RuntimeError("The training failed: %s" % error) from error

    def createModelStep(self) -> None:
        """Register the trained model with what it was trained on."""
        if getattr(self, OUTPUT_MODEL, None) is not None:
            return
        tomograms = self._trainingTomograms()
        job = read_json(self._trainingFolder().request)["parameters"]
        model = CryodenModel(
            path=self._trainingFolder().model,
            system=NmsgTrainJob.system,
            preset=job["preset"],
            noiseModel=job["noise_model"],
            samplingRate=self.getInputSet().getSamplingRate(),
            steps=job["steps"],
            seed=job["seed"],
            trainedOn=", ".join(tomogram.getTsId() for tomogram in tomograms),
            usedHalves=bool(job["evens"]),
            ctfCorrected=bool(tomograms[0].ctfCorrected()),
            coreVersion=CORE_VERSION,
        )
        with self._lock:
            self._defineOutputs(**{OUTPUT_MODEL: model})
            self._defineSourceRelation(self.getInputSet(pointer=True), model)

    def processItem(self, tsId: str) -> None:
        """Write and run the job of one tomogram."""
        folder = self._itemFolder(tsId)
        job = nmsg_job(
            self._items[tsId],
            folder,
            self._jobSettings(NmsgJob),
            use_halves=self.useHalfMaps.get(),
            output_halves=self.outputHalfMaps.get(),
            mask=self._maskOf(tsId),
            model=self._modelPath(),
        )
        outputs = [path for path in (job.output, job.output_even, job.output_odd) if path]
        self.runCoreJob(job, folder, outputs)

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = super()._validate()
        tomograms = self.getInputSet()
        if tomograms is None:
            return problems
        found = []
        for tomogram in tomograms.iterItems():
            found.extend(input_problems(tomogram, self.useHalfMaps.get()))
        problems.extend(_at_most(found))
        problems.extend(self._modelProblems())
        problems.extend(_at_most(self._maskProblems(tomograms)))
        return problems

    def _modelProblems(self) -> List[str]:
        if self.trainingMode.get() != APPLY_MODEL:
            return []
        model = getattr(self, IN_MODEL).get()
        if model is None:
            return ["Choose the model to apply, or another choice at *Network*."]
        if not os.path.exists(model.getPath()):
            return ["The model %s does not exist; run its protocol again." % model.getPath()]
        return []

    def _maskProblems(self, tomograms: SetOfTomograms) -> List[str]:
        if getattr(self, IN_MASK).get() is None:
            return []
        found = [
            mask_problem(tomogram, mask)
            for tomogram in tomograms.iterItems()
            for mask in [self._maskOf(tomogram.getTsId())]
            if mask
        ]
        return [problem for problem in found if problem]

    def _warnings(self) -> List[str]:
        tomograms = self.getInputSet()
        if tomograms is None:
            return []
        warnings = self._modelWarnings(tomograms) + self._maskWarnings(tomograms)
        if self.useHalfMaps.get() and tomograms.hasOddEven():
            without = [t.getTsId() for t in tomograms.iterItems() if not half_map_paths(t)]
            if without:
                warnings.append("No half maps for %s: denoised from the tomogram alone." % ", ".join(without[:5]))
        gpus = len(self.getGpuList()) if self.usesGpu() else 0
        if gpus > self._concurrentSteps() and not self.useQueueForSteps():
            warnings.append(
                "%d GPUs are given, but %d tomograms are computed at a time: set 'Scipion threads' to %d to use them "
                "all." % (gpus, self._concurrentSteps(), gpus + 1)
            )
        estimate = self._estimate(tomograms)
        if warnings or estimate.seconds > LONG_SECONDS or estimate.gigabytes > LARGE_GIGABYTES:
            warnings.append(
                "Expect about %s on %s and %.0f GB of memory for each of the %d tomograms at a time."
                % (
                    describe_time(estimate.seconds),
                    "the GPU" if self.usesGpu() else "the CPU",
                    max(1.0, estimate.gigabytes),
                    self._concurrentSteps(),
                )
            )
        return warnings

    def _estimate(self, tomograms: SetOfTomograms) -> Estimate:
        """Time and memory, from the sizes in the headers."""
        voxels = []
        for tomogram in tomograms.iterItems():
            try:
                x, y, z = volume_size(clean_path(tomogram.getFileName()))
                voxels.append(x * y * z)
            except JobError:
                continue  # validation says it
        with_halves = self.useHalfMaps.get() and self.outputHalfMaps.get() and tomograms.hasOddEven()
        return estimate_nmsg(
            voxels,
            preset=NMSG_PRESETS[self.preset.get()],
            steps=self.steps.get(),
            trainings={TRAIN_EACH: len(voxels), TRAIN_SET: 1, APPLY_MODEL: 0}[self.trainingMode.get()],
            on_gpu=self.usesGpu(),
            concurrent=self._concurrentSteps(),
            volumes=3 if with_halves else 1,
        )

    def _modelWarnings(self, tomograms: SetOfTomograms) -> List[str]:
        model = getattr(self, IN_MODEL).get()
        if self.trainingMode.get() != APPLY_MODEL or model is None:
            return []
        warnings = []
        trained, given = model.getSamplingRate(), tomograms.getSamplingRate()
        if trained and abs(given - trained) > VOXEL_SIZE_TOLERANCE * trained:
            warnings.append(
                "The model was trained at %.2f angstrom per voxel, the tomograms have %.2f." % (trained, given)
            )
        if model.ctfCorrected() != tomograms.ctfCorrected():
            words = {True: "CTF-corrected", False: "not CTF-corrected"}
            warnings.append(
                "The model was trained on tomograms that are %s, these are %s."
                % (words[bool(model.ctfCorrected())], words[bool(tomograms.ctfCorrected())])
            )
        return warnings

    def _maskWarnings(self, tomograms: SetOfTomograms) -> List[str]:
        if getattr(self, IN_MASK).get() is None:
            return []
        without = [ts_id for ts_id in tomograms.getTSIds() if not self._maskOf(ts_id)]
        if not without:
            return []
        return ["There is no mask for %s: the whole tomogram is used there." % ", ".join(without[:LISTED_PROBLEMS])]

    def _summary(self) -> List[str]:
        lines = super()._summary()
        training = self._trainingProgress()
        if training and getattr(self, OUTPUT_MODEL, None) is None:
            lines.insert(0, "*Model for the set*: %s" % describe_progress(training))
        return lines

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        if output is None:
            return []
        mode = {
            TRAIN_EACH: "a network trained on each tomogram by itself",
            TRAIN_SET: "one network trained on the first %d of them" % self.trainingTomograms.get(),
            APPLY_MODEL: "a network trained before",
        }[self.trainingMode.get()]
        text = "%d tomograms were denoised with NMSG [Yang2024] as implemented in CryoDen %s, with %s" % (
            output.getSize(),
            CORE_VERSION,
            mode,
        )
        if self.trainingMode.get() != APPLY_MODEL:
            text += " (preset %s, noise model %s, seed %d)" % (
                self.getEnumText("preset"),
                self.getEnumText("noiseModel"),
                self.seed.get(),
            )
        if self.useHalfMaps.get() and output.hasOddEven():
            text += "; the noise was measured from the even and odd half maps"
        if self.strength.get() < 1:
            text += "; %d %% of the input were mixed back in" % round(100 * (1 - self.strength.get()))
        return [text + ". The missing wedge was not restored."]

    def _citations(self) -> List[str]:
        return ["Yang2024"]

    # --------------------------- UTILS functions -----------------------------
    def _jobSettings(self, job: type) -> Dict[str, Any]:
        """The form's values as parameters of ``job``."""
        settings = {
            "preset": NMSG_PRESETS[self.preset.get()],
            "noise_model": NOISE_MODELS[self.noiseModel.get()],
            "steps": self.steps.get(),
            "tile": self.tile.get(),
            "seed": self.seed.get(),
            "strength": self.strength.get(),
            "cpu_fallback": self.cpuFallback.get(),
            "threads": self._threadsOfJob(),
        }
        return {name: value for name, value in settings.items() if name in parameters_of(job)}

    def _trainingFolder(self) -> ItemFolder:
        return ItemFolder(self._getPath(TRAINING_FOLDER))

    def _trainingProgress(self) -> Dict[str, Any]:
        return read_json(self._trainingFolder().progress)

    def _trainingTomograms(self) -> List[Tomogram]:
        return list(self._items.values())[: self.trainingTomograms.get()]

    def _modelPath(self) -> str:
        """The model to apply; empty when each tomogram trains its own."""
        if self.trainingMode.get() == TRAIN_EACH:
            return ""
        if self.trainingMode.get() == TRAIN_SET:
            return self._trainingFolder().model
        return getattr(self, IN_MODEL).get().getPath()

    def _maskOf(self, tsId: str) -> str:
        """The mask file of one tomogram, or an empty text."""
        masks = getattr(self, IN_MASK).get()
        if masks is None:
            return ""
        if isinstance(masks, VolumeMask):
            return clean_path(masks.getFileName())
        with self._lock:
            if tsId not in masks.getTSIds():  # getItem fails for an item that is not there
                return ""
            return clean_path(masks.getItem(Tomogram.TS_ID_FIELD, tsId).getFileName())


def _sentence(text: str) -> str:
    """A line of help from the job's definition, as a sentence."""
    return text[:1].upper() + text[1:] + "."


def _at_most(problems: List[str]) -> List[str]:
    """The first problems, and how many more there are."""
    if len(problems) <= LISTED_PROBLEMS:
        return problems
    return [*problems[:LISTED_PROBLEMS], "... and %d more tomograms." % (len(problems) - LISTED_PROBLEMS)]

"""Denoising of tomograms with NMSG (Yang et al., Ultramicroscopy 255:113860, 2024).

The form and the outputs; the method itself is the core's.  The missing wedge is not restored by it.
"""

from typing import Any, Dict, List, Optional

from pwem.objects import VolumeMask
from pyworkflow import BETA
from pyworkflow.protocol.params import Form
from pyworkflow.utils import Message
from tomo.objects import SetOfTomograms, Tomogram

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import NMSG_PRESETS, JobError, NmsgJob, NmsgTrainJob, parameters_of, read_json

from ..constants import IN_MASK, IN_MODEL, OUTPUT_FAILED, OUTPUT_MODEL, OUTPUT_TOMOGRAMS
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
from ..dual import acquisition_range
from ..estimate import LARGE_GIGABYTES, LONG_SECONDS, Estimate, estimate_nmsg
from ..forms import at_most, job_settings
from ..model_file import ctf_warnings, model_problems, model_warnings
from ..objects import CryodenModel
from .nmsg_form import (
    APPLY_MODEL,
    TRAIN_EACH,
    TRAIN_SET,
    define_denoising_params,
    define_expert_params,
    define_input_params,
    define_model_params,
)
from .protocol_base import ItemFailed
from .protocol_streaming import ProtCryodenStreaming
from .texts import describe_progress, describe_time

#: Folder of the training of one model for the whole set, below ``extra``.
TRAINING_FOLDER = "training"

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

    What it does not do: it does not fill the missing wedge (it can be kept as it is), and it does not correct the CTF.
    Use the result to look, to pick and to segment; average subtomograms from the original tomograms.

    Which tomograms: raw reconstructions (weighted back-projection is best) that were *not* low-pass filtered or
    denoised before, because filtering makes the noise hard to model. Between 8 and 16 angstrom per voxel is usual; bin
    larger ones first.

    How long: with the default preset, on two CPU cores, a minute or two for the training and three to four seconds for
    each million voxels; much less on a GPU. For a first look use the preset *fast*. If a run is stopped, *Continue*
    goes on from its last checkpoint.
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
        define_input_params(form)
        define_model_params(form)
        form.addSection(label="Denoising")
        define_denoising_params(form)
        self._defineFallbackParam(form)
        define_expert_params(form)
        form.addParallelSection(threads=2, mpi=0)

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
            dict(self._jobSettings(NmsgJob), **self._tiltRange(self._items[tsId])),
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
        problems.extend(at_most(found, LISTED_PROBLEMS, "tomograms"))
        problems.extend(self._modelProblems())
        if self.keepWedge.get() and self.tiltMin.get() >= self.tiltMax.get():
            without = [item.getTsId() for item in tomograms.iterItems() if acquisition_range(item) is None]
            if without:
                problems.append("To keep the missing wedge give the tilt range; none is known for %s." % without[0])
        problems.extend(at_most(self._maskProblems(tomograms), LISTED_PROBLEMS, "tomograms"))
        return problems

    def _modelProblems(self) -> List[str]:
        if self.trainingMode.get() != APPLY_MODEL:
            return []
        return model_problems(getattr(self, IN_MODEL).get(), [NmsgJob.system])

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
        return model_warnings(model, tomograms) + ctf_warnings(model, tomograms)

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
        return [text + ". The missing wedge was %s." % ("kept as it was" if self.keepWedge.get() else "not restored")]

    def _citations(self) -> List[str]:
        return ["Yang2024"]

    # --------------------------- UTILS functions -----------------------------
    def _jobSettings(self, job: type) -> Dict[str, Any]:
        """The form's values as parameters of ``job``."""
        settings = dict(job_settings(self, job), cpu_fallback=self.cpuFallback.get(), threads=self._threadsOfJob())
        return {name: value for name, value in settings.items() if name in parameters_of(job)}

    def _tiltRange(self, tomogram: Tomogram) -> Dict[str, float]:
        """The tilt range of a tomogram whose missing wedge is kept: its acquisition's, else the form's."""
        known = acquisition_range(tomogram) if self.keepWedge.get() else None
        return dict(zip(("tilt_min", "tilt_max"), known)) if known else {}

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
        return clean_path(masks.getFileName()) if isinstance(masks, VolumeMask) else self.fileOf(masks, tsId)

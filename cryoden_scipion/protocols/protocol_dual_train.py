"""Training of DUAL (Zeng et al., bioRxiv 2024.03.02.583135): the form and the model that comes out."""

from typing import Any, Dict, List, Sequence, Tuple

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import BooleanParam, Form, PointerParam
from pyworkflow.utils import Message
from tomo.objects import Tomogram

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import DualTrainJob, JobError, read_json

from ..constants import OUTPUT_MODEL
from ..convert import even_and_odd, input_problems
from ..dual import TiltRange, files_of, ranges_differ, train_job, widest_range
from ..forms import add_job_param, add_job_params, at_most, job_settings
from ..model_file import contrast_of_training, model_object, read_about
from ..objects import CryodenModel
from .protocol_one_job import ProtCryodenOneJob
from .tilt_range import TiltRangeChoice

DOMAINS = (
    ("voxel_size", "Voxel size of the model", "Both domains are resampled to it; the wand reads that of the noisy "
     "tomograms. The model is for tomograms of about this voxel size."),
    ("thickness", "Thickness of the specimen, 0 for all", "Leaves the empty regions above and below out of the "
     "training."),
)  # fmt: skip
#: Where contrast is not said, in the words of the form.
CONTRASTS = {"auto": "as the grey values tell"}
#: The kinds of clean volumes, in the words of the form.
CLEAN_KINDS = {"density": "grand models, without missing wedge", "tomogram": "tomograms, with missing wedge"}
TRAINING = (
    ("preset", "Preset", "\n*robust*: the one to start with.\n*fast*: for a first look or for the CPU.\n*paper*: the "
     "published equations to the letter, for comparison; its noise may die."),
    ("steps", "Training steps (0: the preset's)", "Time grows in proportion."),
    ("seed", "Seed", "Another one tells how much of a result is chance."),
)  # fmt: skip
EXPERT = (
    ("batch", "Crops in a step (0: the preset's)", "Fewer need less memory."),
    ("noise_code", "Code of the noise"),
    ("check_every", "Steps between checks (0: ten checks)"),
)


class ProtCryodenDualTrain(ProtCryodenOneJob, TiltRangeChoice):
    """
    Trains DUAL: one model that denoises tomograms, simulates tomograms of grand models, and converts between the two
    styles. It needs no pairs: the noisy tomograms and the clean volumes are of different specimens.

    What goes in: noisy tomograms, raw reconstructions that were not filtered before; and a clean domain, from *make
    clean domain*, or tomograms of very high quality. Contents should be alike: what the clean domain does not know,
    the model takes for noise. Four tomograms and four grand models are enough to begin with.

    What you get: a model with its provenance, to be used by *denoise tomograms (DUAL)*, *simulate tomograms (DUAL)*
    and *convert style (DUAL)*. While it trains, the summary says how far it is; *Analyze results* shows losses and a
    montage of what the model makes. Its health is watched: alarms in the summary say when structure travels through
    the noise code, when the simulations are all alike, or when the contrast was turned. Do not use a model with
    alarms.

    How long: hours on a GPU with the preset *robust*; on a CPU take *fast*. If a run is stopped, *Continue* goes on
    from its last checkpoint.
    """

    _label = "train DUAL"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_MODEL: CryodenModel}

    FOLDER = "training"

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            "inputNoisy",
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Noisy tomograms",
            help="Raw reconstructions, of any sizes; not filtered, not denoised. Several are better than one.",
        )
        form.addParam(
            "inputClean",
            PointerParam,
            pointerClass="SetOfTomograms, SetOfVolumes",
            important=True,
            label="Clean volumes",
            help="Grand models from *make clean domain*, or tomograms of very high quality, of any sizes. They need "
            "not show the same specimens.",
        )
        form.addParam(
            "inputMasks",
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=True,
            label="Specimen masks (optional)",
            help="Where crops of the noisy tomograms may be taken, matched by tsId: one for each tomogram.",
        )
        add_job_params(form, DualTrainJob, DOMAINS)
        for name, label, help_text in (
            ("contrast", "Protein in the tomograms is", "*dark* in most reconstructions. Where the grey values do not "
             "tell, the training stops at once and asks."),
            ("clean_contrast", "Protein in the clean volumes is", "*bright* in those of *make clean domain*."),
        ):  # fmt: skip
            add_job_param(form, DualTrainJob, name, label, help_text, shown=CONTRASTS)
        add_job_param(form, DualTrainJob, "clean_kind", "Clean volumes are", shown=CLEAN_KINDS)
        form.addParam(
            "useHalfMaps",
            BooleanParam,
            default=True,
            label="Use half maps where all have them?",
            help="Half maps tell directly how much of the tomograms is noise, which is otherwise measured on their "
            "emptiest parts; crowded tomograms have none. The denoiser is also asked to tell the even from the odd "
            "tomogram and the other way round, which only what is really there allows. A step takes longer then. Where "
            "a tomogram has no half maps, none are used.",
        )
        self._defineTiltRangeParams(form, DualTrainJob)
        form.addParam(
            "inputCleanMasks",
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            label="Masks of the clean volumes (optional)",
            help="Where crops of the clean volumes may be taken, matched by tsId: one for each volume.",
        )
        self._defineValidationParams(form)
        form.addSection(label="Training")
        add_job_params(form, DualTrainJob, TRAINING)
        self._defineFallbackParam(form)
        add_job_params(form, DualTrainJob, EXPERT, expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(
            threads=4,
            mpi=0,
            binThreadsHelp="CPU threads of the training. With a GPU four are plenty; without one take all that the "
            "computer has.",
        )

    @staticmethod
    def _defineValidationParams(form: Form) -> None:
        for name, label, what in (
            ("inputValidationNoisy", "Tomogram of known truth", "A simulated tomogram"),
            ("inputValidationClean", "Its truth", "The grand model of that tomogram"),
        ):
            form.addParam(
                name,
                PointerParam,
                pointerClass="Tomogram",
                allowsNull=True,
                expertLevel=LEVEL_ADVANCED,
                label=label,
                help=what + ", to follow how well the training denoises; it is not trained on. Give both or none.",
            )

    # --------------------------- STEPS functions -----------------------------
    def _job(self) -> DualTrainJob:
        noisy = self._items(self.inputNoisy)
        return train_job(
            noisy,
            self._items(self.inputClean),
            self.folder(),
            self._jobSettings(),
            widest_range(self._tiltRanges(noisy)),
            self._usesHalves(noisy),
            **self._files(),
        )

    def _awaited(self) -> List[str]:
        return [self.folder().model]

    def createOutputStep(self) -> None:
        """Register the model with what it was trained on."""
        path = self.folder().model
        noisy = self.inputNoisy.get()
        model = model_object(
            path, read_about(path), trainedOn=", ".join(noisy.getTSIds()), ctfCorrected=bool(noisy.ctfCorrected())
        )
        self._defineOutputs(**{OUTPUT_MODEL: model})
        for pointer in (self.inputNoisy, self.inputClean):
            self._defineSourceRelation(pointer, model)

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = self._computeProblems()
        noisy, clean = self._items(self.inputNoisy), self._items(self.inputClean)
        if not noisy or not clean:
            return [*problems, "Both sets must hold at least one volume."]
        found = [problem for item in noisy for problem in input_problems(item, self.useHalfMaps.get())]
        found.extend(self.tiltRangeProblems(noisy))
        for masks, items in self._maskedItems():
            found.extend(_without_mask(masks, items))
        if not found:
            try:
                self._job()
            except JobError as error:
                found.append(str(error))
        return problems + at_most(found, what="problems")

    def _warnings(self) -> List[str]:
        noisy = self._items(self.inputNoisy)
        warnings = []
        if not self.tiltRangeProblems(noisy) and ranges_differ(self._tiltRanges(noisy)):
            warnings.append("The tomograms have different tilt ranges; the model takes the widest for all.")
        without = [item.getTsId() for item in noisy if not item.hasHalfMaps()]
        if self.useHalfMaps.get() and 0 < len(without) < len(noisy):
            warnings.append("No half maps are used, for %s has none." % without[0])
        warnings.extend(self._voxelSizeWarnings())
        if len(self.getGpuList()) > 1:
            warnings.append(
                "The training takes one GPU, the first of the list. For several start it in a terminal: torchrun "
                "--nproc-per-node N -m cryoden_core run %s." % self.folder().request
            )
        if not self.usesGpu() and self._jobSettings()["preset"] != "fast":
            warnings.append("Without a GPU this takes days; the preset 'fast' is made for CPUs.")
        return warnings

    def _voxelSizeWarnings(self) -> List[str]:
        """What the model's voxel size is not good for."""
        sets = (self.inputNoisy.get(), self.inputClean.get())
        noisy, clean = (found.getSamplingRate() if found is not None else 0.0 for found in sets)
        wanted, warnings = self.voxelSize.get(), []
        if wanted < 0.95 * noisy:
            warnings.append(
                "The model's voxel size of %.2f angstrom is smaller than that of the tomograms, %.2f: nothing is "
                "gained by it, and time is lost." % (wanted, noisy)
            )
        if wanted < 0.95 * clean:
            warnings.append(
                "The clean volumes have %.2f angstrom per voxel, more than the model, %.2f: they lack the finest "
                "details. Make them anew at the model's voxel size." % (clean, wanted)
            )
        return warnings

    def _describeResult(self, result: Dict[str, Any]) -> List[str]:
        job = read_json(self.folder().request).get("parameters", {})
        lines = [
            "*%s* steps of the preset *%s* at %.2f \u00c5 per voxel, tilts from %g to %g degrees, %s half maps."
            % (result.get("steps", "?"), self.getEnumText("preset"), self.voxelSize.get(), job.get("tilt_min", 0),
               job.get("tilt_max", 0), "with" if job.get("noisy_even") else "without")
        ]  # fmt: skip
        model = getattr(self, OUTPUT_MODEL, None)
        contrast = [contrast_of_training(model, domain) for domain in ("noisy", "clean")] if model is not None else []
        if all(contrast) and contrast:
            lines.append("Protein was taken as *%s* in the tomograms, *%s* in the clean volumes." % tuple(contrast))
        figures = result.get("figures") or {}
        if "r_denoised" in figures:
            lines.append(
                "Correlation with the known truth: %.2f before, %.2f after denoising."
                % (figures["r_noisy"], figures["r_denoised"])
            )
        if not result.get("alarms"):
            lines.append("No alarm: the training looks healthy.")
        return lines

    def _methods(self) -> List[str]:
        model = getattr(self, OUTPUT_MODEL, None)
        if model is None:
            return []
        return [
            "A DUAL model [Zeng2024] was trained with CryoDen %s on %d noisy tomograms and %d clean volumes at %g "
            "\u00c5 per voxel (preset %s, %s steps, seed %s)."
            % (CORE_VERSION, len(self._items(self.inputNoisy)), len(self._items(self.inputClean)),
               self.voxelSize.get(), self.getEnumText("preset"), self._result().get("steps", "?"), self.seed.get())
        ]  # fmt: skip

    def _citations(self) -> Sequence[str]:
        return ["Zeng2024"]

    # --------------------------- UTILS functions -----------------------------
    def _jobSettings(self) -> Dict[str, Any]:
        settings = job_settings(self, DualTrainJob)
        return dict(settings, cpu_fallback=self.cpuFallback.get(), threads=self.numberOfThreads.get())

    @staticmethod
    def _items(pointer: Any) -> List[Any]:
        items = pointer.get()
        return [item.clone() for item in items.iterItems()] if items is not None else []

    def _usesHalves(self, noisy: List[Any]) -> bool:
        return bool(self.useHalfMaps.get()) and all(even_and_odd(item) for item in noisy)

    def _tiltRanges(self, noisy: List[Any]) -> List[TiltRange]:
        return [self.tiltRangeOf(item) for item in noisy]

    def _maskedItems(self) -> List[Tuple[Any, List[Any]]]:
        """The sets of masks that were given, each with what it is for."""
        pairs = ((self.inputMasks, self.inputNoisy), (self.inputCleanMasks, self.inputClean))
        return [(masks.get(), self._items(items)) for masks, items in pairs if masks.get() is not None]

    def _files(self) -> Dict[str, Any]:
        """Masks and the pair of known truth, as parameters of the job."""
        files: Dict[str, Any] = {}
        for name, masks, items in (
            ("noisy_masks", self.inputMasks.get(), self.inputNoisy),
            ("clean_masks", self.inputCleanMasks.get(), self.inputClean),
        ):
            if masks is not None:
                ids = [item.getTsId() for item in self._items(items)]
                files[name] = files_of([masks.getItem(Tomogram.TS_ID_FIELD, ts_id) for ts_id in ids])
        for name, pointer in (("noisy", self.inputValidationNoisy), ("clean", self.inputValidationClean)):
            if pointer.get() is not None:
                files["validation_" + name] = files_of([pointer.get()])[0]
        return files


def _without_mask(masks: Any, items: List[Any]) -> List[str]:
    """A sentence for each volume that has no mask in a set."""
    if items and not isinstance(items[0], Tomogram):
        return ["Masks are matched by tsId, which only sets of tomograms have; leave the masks of the volumes out."]
    without = [item.getTsId() for item in items if item.getTsId() not in masks.getTSIds()]
    return ["There is no mask for %s; give one for each, or none." % name for name in without]

"""What the protocols that apply DUAL share: input and model in the form, their checks, one job for each tomogram."""

from typing import Any, Dict, List, Sequence, Type

from pyworkflow.protocol.params import Form, PointerParam
from pyworkflow.utils import Message

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import DualApplication, Job, JobError

from ..constants import IN_MODEL, IN_TOMO_SET, OUTPUT_TOMOGRAMS
from ..convert import input_problems
from ..dual import item_job
from ..forms import add_job_param, at_most, job_settings
from ..model_file import contrast_of_training, ctf_warnings, model_problems, model_warnings
from ..objects import CryodenModel
from .protocol_streaming import ProtCryodenStreaming


class ProtCryodenDualApply(ProtCryodenStreaming):
    """A job of DUAL for each tomogram.

    A subclass names its ``JOB``, fills the form, and may say more of each job in :meth:`_itemSettings` and of what it
    writes in :meth:`_written`.
    """

    JOB: Type[Job] = DualApplication

    #: Systems of models that can be applied, and whether one must be given.
    MODELS: Sequence[str] = ("dual",)
    NEEDS_MODEL = True

    #: What stands in the form where the contrast is that of the volumes that the model was trained on.
    CONTRAST_OF_MODEL = "as in the model's tomograms"

    # --------------------------- DEFINE param functions ----------------------
    @classmethod
    def _defineInputParams(cls, form: Form, label: str, help: str, model_help: str) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            IN_TOMO_SET,
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label=label,
            help=help + " The set may still be growing: each one is processed when it arrives.",
        )
        form.addParam(
            IN_MODEL,
            PointerParam,
            pointerClass="CryodenModel",
            important=cls.NEEDS_MODEL,
            allowsNull=not cls.NEEDS_MODEL,
            label="Model" if cls.NEEDS_MODEL else "Model (optional)",
            help=model_help,
        )

    @classmethod
    def _defineContrastParam(cls, form: Form) -> None:
        add_job_param(
            form, cls.JOB, "contrast", "Protein in the input is", "Nothing is turned silently: the log says what was "
            "taken.", shown={"": cls.CONTRAST_OF_MODEL},
        )  # fmt: skip

    # --------------------------- STEPS functions -----------------------------
    def processItem(self, tsId: str) -> None:
        """Write and run the job of one tomogram."""
        folder = self._itemFolder(tsId)
        settings = dict(self._jobSettings(), **self._itemSettings(tsId))
        job = item_job(self.JOB, self._items[tsId], folder, settings, self._modelPath())
        self.runCoreJob(job, folder, self._written(job))

    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        """Parameters of the job that depend on the tomogram."""
        return {}

    def _written(self, job: Any) -> List[str]:
        """The volumes that a job writes."""
        return [job.output]

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = super()._validate()
        model = self._model()
        if model is not None or self.NEEDS_MODEL:
            problems.extend(model_problems(model, self.MODELS))
        tomograms = self.getInputSet()
        if tomograms is None:
            return problems
        found: List[str] = []
        for tomogram in tomograms.iterItems():
            found.extend(input_problems(tomogram, self._usesHalves()))
        if not found and not problems:
            found.extend(self._jobProblems())
        return problems + at_most(found, what="tomograms")

    def _jobProblems(self) -> List[str]:
        """What the job of the first tomogram says: parameters that exclude each other."""
        first = self.getInputSet().getFirstItem()
        if first is None:
            return []
        first = first.clone()  # the set's own object becomes another item when the set is read again
        self._items.setdefault(first.getTsId(), first)
        settings = dict(self._jobSettings(), **self._itemSettings(first.getTsId()))
        try:
            item_job(self.JOB, first, self._itemFolder(first.getTsId()), settings, self._modelPath())
        except JobError as error:
            return [str(error)]
        finally:
            self._items.pop(first.getTsId())
        return []

    def _warnings(self) -> List[str]:
        model, tomograms = self._model(), self.getInputSet()
        if model is None or tomograms is None:
            return []
        warnings = model_warnings(model, tomograms) + self._contrastWarnings(model)
        # Clean volumes know nothing of a contrast transfer function.
        return warnings + (ctf_warnings(model, tomograms) if self._domain() == "noisy" else [])

    def _domain(self) -> str:
        """Which of the two sets that a model was trained on the input is like: noisy or clean."""
        return "noisy"

    def _contrastWarnings(self, model: CryodenModel) -> List[str]:
        """Whether the form says another contrast than that of the training; the input is then turned."""
        given, trained = self._jobSettings().get("contrast"), contrast_of_training(model, self._domain())
        if given not in ("dark", "bright") or not trained or given == trained:
            return []
        what = {"noisy": "tomograms", "clean": "clean volumes"}[self._domain()]
        return [
            "The model was trained on %s with %s protein, you say %s: they are turned for it." % (what, trained, given)
        ]

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        if output is None:
            return []
        return ["%s with DUAL [Zeng2024] as implemented in CryoDen %s." % (self._done(output.getSize()), CORE_VERSION)]

    def _done(self, count: int) -> str:
        """Beginning of the sentence for the methods: what was done to how many tomograms."""
        raise NotImplementedError

    def _citations(self) -> Sequence[str]:
        return ["Zeng2024"]

    # --------------------------- UTILS functions -----------------------------
    def firstOutputId(self, tsId: str) -> str:
        """The tsId of the first tomogram that is made of an input."""
        return tsId

    def _jobSettings(self) -> Dict[str, Any]:
        """The form's values as parameters of the job."""
        return dict(job_settings(self, self.JOB), cpu_fallback=self.cpuFallback.get(), threads=self._threadsOfJob())

    def _model(self) -> Any:
        return getattr(self, IN_MODEL).get()

    def _modelPath(self) -> str:
        model = self._model()
        return model.getPath() if model is not None else ""

    def _usesHalves(self) -> bool:
        return False

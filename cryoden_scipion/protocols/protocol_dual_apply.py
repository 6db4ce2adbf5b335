"""What the protocols that apply DUAL share: input and model in the form, their checks, one job for each tomogram."""

from typing import Any, Dict, List, Sequence, Type

from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import Form, PointerParam
from pyworkflow.utils import Message

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import DualApplication, Job, parameters_of

from ..constants import IN_MODEL, IN_TOMO_SET, OUTPUT_TOMOGRAMS
from ..dual import item_job
from ..forms import add_job_param, add_job_params, job_settings
from ..model_file import contrast_of_training, ctf_warnings, model_problems, model_warnings
from ..objects import CryodenModel
from .protocol_tomograms import ProtCryodenTomograms


class ProtCryodenDualApply(ProtCryodenTomograms):
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

    @classmethod
    def _defineLastParams(cls, form: Form) -> None:
        """What stands at the end of each form: how it is computed and written."""
        cls._defineFallbackParam(form)
        rows = (("tile", "Tile edge", "Smaller tiles need less memory."), ("output_mode", "Number format"))
        known = [row for row in rows if row[0] in parameters_of(cls.JOB)]
        add_job_params(form, cls.JOB, known, expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(threads=2, mpi=0)

    # --------------------------- STEPS functions -----------------------------
    def _jobOf(self, tsId: str) -> Job:
        settings = dict(self._jobSettings(), **self._itemSettings(tsId))
        return item_job(self.JOB, self._items[tsId], self._itemFolder(tsId), settings, self._modelPath())

    def _itemSettings(self, tsId: str) -> Dict[str, Any]:
        """Parameters of the job that depend on the tomogram."""
        return {}

    # --------------------------- INFO functions ------------------------------
    def _inputProblems(self) -> List[str]:
        model = self._model()
        return model_problems(model, self.MODELS) if model is not None or self.NEEDS_MODEL else []

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

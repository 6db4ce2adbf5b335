"""The form of the NMSG protocol: what a person chooses, and what is said about it."""

from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import GE, BooleanParam, EnumParam, Form, IntParam, PointerParam

from cryoden_core.jobs import NmsgJob

from ..constants import IN_MASK, IN_MODEL, IN_TOMO_SET
from ..forms import add_job_param, add_job_params

TRAIN_EACH, TRAIN_SET, APPLY_MODEL = range(3)

_TRAINING = "trainingMode != %d" % APPLY_MODEL


def define_input_params(form: Form) -> None:
    """Tomograms, halves and mask."""
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


def define_model_params(form: Form) -> None:
    """Where the network comes from."""
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
        help="Model from a run of this protocol with *one model for the whole set*, or an imported one. It should have "
        "been trained on tomograms of about the same voxel size and from the same kind of reconstruction.",
    )


def define_denoising_params(form: Form) -> None:
    """How strongly, and what becomes of the missing wedge."""
    add_job_param(
        form,
        NmsgJob,
        "preset",
        "Preset",
        "\n*fast*: a small network and a short training, for a first look or for the CPU.\n*default*: the one to start "
        "with.\n*best*: trains several times longer, for the final result.\n*paper*: the recipe as it was published, "
        "for comparison.",
        condition=_TRAINING,
    )
    add_job_param(
        form,
        NmsgJob,
        "strength",
        "Strength (0 to 1)",
        "1 is the denoised volume, 0.8 leaves a fifth of the noise, which some prefer for looking at membranes.",
    )
    add_job_param(
        form,
        NmsgJob,
        "keep_wedge",
        "Keep the missing wedge as it is?",
        "The tilt range is taken from the acquisition of each tomogram, or from the two angles below.",
    )
    add_job_params(
        form,
        NmsgJob,
        (("tilt_min", "Lowest tilt angle", "Used where the acquisition of a tomogram does not say it."),
         ("tilt_max", "Highest tilt angle", "Used where the acquisition of a tomogram does not say it.")),
        condition="keepWedge",
    )  # fmt: skip


def define_expert_params(form: Form) -> None:
    """What has a default that rarely needs a change."""
    for name, label, text, condition in (
        ("noise_model", "Noise model", "", _TRAINING),
        ("steps", "Training steps", "Time grows in proportion; memory does not change.", _TRAINING),
        ("tile", "Tile edge", "Smaller tiles need less GPU memory; the result has no seams.", "True"),
        ("seed", "Seed", "The same seed on the same machine gives the same result; another one tells how much of it "
         "is chance.", "True"),
    ):  # fmt: skip
        add_job_param(form, NmsgJob, name, label, text, condition=condition, expertLevel=LEVEL_ADVANCED)

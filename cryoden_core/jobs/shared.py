"""Parameters that several jobs have, each defined once: what is read and written, how to train, how to pick."""

from __future__ import annotations

from .contract import parameter

#: What the name of a volume, and that of a model, that is written may end in.
VOLUME_ENDINGS = (".mrc", ".rec", ".map")
MODEL_ENDINGS = (".safetensors",)


# ---- what is read and written ----------------------------------------------------------------------------------------


def voxel_size_parameter() -> float:
    """The parameter ``voxel_size`` of the jobs that read a tomogram."""
    return parameter(
        0.0,
        "voxel size of the tomogram; 0 takes it from the file's header",
        unit="angstrom",
        minimum=0.0,
        maximum=1000.0,
    )


def output_parameter(what: str) -> str:
    """The parameter ``output`` of the jobs that write one volume."""
    return parameter("", what + " to write (MRC)", required=True, alias="-o", endings=VOLUME_ENDINGS)


def optional_output(what: str) -> str:
    """A volume that is written beside the output where a name is given."""
    return parameter("", "where to write %s; empty does not write it" % what, endings=VOLUME_ENDINGS)


def output_mode_parameter() -> str:
    """The parameter ``output_mode`` of the jobs that write a tomogram."""
    return parameter("float32", "number format of the output", choices=("float32", "float16", "int8"), expert=True)


def even_parameter() -> str:
    """The parameter ``even`` of the jobs that denoise."""
    return parameter("", "tomogram of the even half; with --odd the noise is measured from their difference")


def odd_parameter() -> str:
    """The parameter ``odd`` of the same jobs."""
    return parameter("", "tomogram of the odd half")


# ---- training --------------------------------------------------------------------------------------------------------


def seed_parameter() -> int:
    """The parameter ``seed`` of the jobs that draw random numbers."""
    return parameter(1, "seed of every random number", minimum=0, maximum=2**31 - 1)


def steps_parameter() -> int:
    """The parameter ``steps`` of the jobs that train with a preset."""
    return parameter(0, "training steps; 0 takes the preset's number", minimum=0, maximum=10**7)


def model_instead_parameter() -> str:
    """The parameter ``model`` of the jobs that train on the tomogram unless they are given one."""
    return parameter("", "apply this model (.safetensors) instead of training on the tomogram")


def save_model_parameter() -> str:
    """The parameter ``save_model`` of the same jobs."""
    return parameter("", "where to write the trained model; empty keeps it in the run folder", endings=MODEL_ENDINGS)


# ---- picking ---------------------------------------------------------------------------------------------------------


def contrast_of_particles() -> str:
    """The parameter ``contrast`` of the jobs that pick."""
    return parameter("dark", "how particles look in the tomogram", choices=("dark", "bright"))


def sigma_parameter() -> float:
    """The parameter ``sigma`` of the jobs that pick."""
    help = "width of the inner Gaussian; the radius of a particle over 1.73"
    return parameter(80.0, help, unit="angstrom", minimum=1.0, maximum=2000.0)


def ratio_parameter() -> float:
    """The parameter ``ratio`` of the jobs that pick."""
    return parameter(1.1, "width of the outer Gaussian over that of the inner", minimum=1.01, maximum=4.0)


def exclusion_parameter() -> float:
    """The parameter ``exclusion`` of the jobs that pick."""
    return parameter(240.0, "smallest distance between two picks", unit="angstrom", minimum=0.0, maximum=5000.0)


def clip_parameter() -> float:
    """The parameter ``clip`` of the jobs that pick."""
    help = "bring densities to within this many standard deviations first, against gold; 0 does not"
    return parameter(0.0, help, minimum=0.0, maximum=100.0)

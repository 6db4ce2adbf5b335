"""The contract between whoever asks for work and the core that does it.

A *job* is a plain dataclass.  Each of its fields is defined here once: name, default, unit, allowed range and one
line of help; the command line, the JSON job file, the defaults of the Scipion forms and the README's tables are all
read from these definitions, and so is the sentence that a bad value gets.

Only the standard library is used and the syntax is that of Python 3.8, because the Scipion plugin imports this
module in Scipion's own environment, where torch is usually absent.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, List, Optional, Sequence, Type

SCHEMA_VERSION = 1

#: Exit codes of ``cryoden`` and of ``python -m cryoden_core``.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NO_DEVICE = 3
EXIT_INTERRUPTED = 75


class JobError(ValueError):
    """The input or a parameter is wrong; the message is one sentence meant for the person who asked."""


class DeviceError(JobError):
    """The device that was asked for is not there."""


@dataclass(frozen=True)
class Parameter:
    """What is known about one field of a job.

    ``minimum`` and ``maximum`` are inclusive; ``choices`` lists the allowed strings; ``unit`` is appended to the help;
    ``positional`` and ``alias`` shape the command line only; ``expert`` hides the parameter in beginners' forms.
    """

    help: str
    unit: str = ""
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    choices: Sequence[str] = ()
    required: bool = False
    positional: bool = False
    alias: str = ""
    expert: bool = False

    def describe(self) -> str:
        """Help, unit and range in one line."""
        text = self.help
        if self.unit:
            text += " [%s]" % self.unit
        if self.choices:
            text += " (one of %s)" % ", ".join(self.choices)
        elif self.minimum is not None or self.maximum is not None:
            low = "-inf" if self.minimum is None else _number(self.minimum)
            high = "inf" if self.maximum is None else _number(self.maximum)
            text += " (%s to %s)" % (low, high)
        return text

    def problem(self, name: str, value: Any, kind: type) -> Optional[str]:
        """The sentence that says what is wrong with ``value``, or None."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if typing.get_origin(kind) is list:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                return "parameter '%s' must be a list of texts, not %r" % (name, value)
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return "parameter '%s' must be of type %s, not %r" % (name, kind.__name__, value)
        if self.required and not value:
            return "parameter '%s' is missing: %s" % (name, self.help)
        if self.choices and value not in self.choices:
            return "parameter '%s' must be one of %s, not %r" % (name, ", ".join(self.choices), value)
        if isinstance(value, float) and not math.isfinite(value):
            return "parameter '%s' must be a finite number, not %r" % (name, value)
        if self.minimum is not None and value < self.minimum:
            return "parameter '%s' must be at least %s, not %s" % (name, _number(self.minimum), _number(value))
        if self.maximum is not None and value > self.maximum:
            return "parameter '%s' must be at most %s, not %s" % (name, _number(self.maximum), _number(value))
        return None


def _number(value: float) -> str:
    """Whole numbers in full: a limit of 2147483647 must not read like 2.14748e+09."""
    return "%d" % value if value == int(value) else "%g" % value


def parameter(default: Any, help: str, **about: Any) -> Any:
    """A dataclass field that carries its :class:`Parameter`; a list default is copied for each job."""
    metadata = {"parameter": Parameter(help=help, **about)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parameters_of(job: Any) -> Dict[str, Parameter]:
    """Name to :class:`Parameter` for a job class or a job."""
    return {field.name: field.metadata["parameter"] for field in dataclasses.fields(job)}


def default_of(job: Type[Job], name: str) -> Any:
    """The default of one parameter, for forms that must show the same one."""
    for field in dataclasses.fields(job):
        if field.name == name:
            if field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
            return field.default
    raise KeyError(name)


@dataclass
class Job:
    """Base of all jobs: validation and the JSON form."""

    system: ClassVar[str] = ""

    def validate(self) -> None:
        """Check types, ranges and what belongs together.

        Raises
        ------
        JobError
            With one sentence that names the parameter and what it may be.
        """
        kinds = typing.get_type_hints(type(self))
        for name, about in parameters_of(self).items():
            problem = about.problem(name, getattr(self, name), kinds[name])
            if problem:
                raise JobError(problem + ".")
        self._validate_together()

    def _validate_together(self) -> None:
        """Checks over several parameters; the base has none."""

    def to_dict(self) -> Dict[str, Any]:
        """The JSON form: schema, system, parameters."""
        return {"schema": SCHEMA_VERSION, "system": self.system, "parameters": dataclasses.asdict(self)}

    @classmethod
    def from_parameters(cls, given: Dict[str, Any]) -> Job:
        """Make a job from parameter names and values; unknown names are refused."""
        unknown = sorted(set(given) - set(parameters_of(cls)))
        if unknown:
            raise JobError(
                "unknown parameter %s for '%s'; known are: %s."
                % (", ".join("'%s'" % name for name in unknown), cls.system, ", ".join(parameters_of(cls)))
            )
        kinds = typing.get_type_hints(cls)
        values = {
            name: float(value) if kinds[name] is float and type(value) is int else value
            for name, value in given.items()
        }
        job = cls(**values)
        job.validate()
        return job


def _voxel_size() -> float:
    return parameter(
        0.0,
        "voxel size of the tomogram; 0 takes it from the file's header",
        unit="angstrom",
        minimum=0.0,
        maximum=1000.0,
    )


@dataclass
class ComputeJob(Job):
    """What every job that computes on a device shares."""

    device: str = parameter("auto", "where to compute: auto, cpu, cuda or cuda:N")
    cpu_fallback: bool = parameter(False, "go on without a GPU when the one that was asked for is absent")
    threads: int = parameter(0, "CPU threads; 0 takes all that this process may use", minimum=0, maximum=1024)
    seed: int = parameter(1, "seed of every random number", minimum=0, maximum=2**31 - 1)
    resume: bool = parameter(False, "go on from the checkpoint of an interrupted run")
    run_folder: str = parameter(
        "", "folder for progress, metrics, report and checkpoint; empty puts '<output>_cryoden' beside the output"
    )

    def _validate_together(self) -> None:
        device = self.device
        if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
            raise JobError("parameter 'device' must be auto, cpu, cuda or cuda:N, not %r." % device)


#: A smaller crop shows a network nothing of the specimen.
SMALLEST_TILE = 32

NMSG_PRESETS = ("fast", "default", "best", "paper")
NOISE_MODELS = ("auto", "spectral", "gan")


@dataclass
class NmsgTraining(ComputeJob):
    """How NMSG learns the noise and trains its denoiser; shared by the two NMSG jobs."""

    preset: str = parameter(
        "default",
        "fast for a first look, default, best for a longer training, paper for the published recipe",
        choices=NMSG_PRESETS,
    )
    noise_model: str = parameter(
        "auto",
        "how the noise is modelled: spectral, gan, or auto (the GAN only where the spectral model fails its report)",
        choices=NOISE_MODELS,
    )
    steps: int = parameter(0, "training steps; 0 takes the preset's number", minimum=0, maximum=10**7)
    tile: int = parameter(
        0,
        "edge of the training and inference tiles; 0 chooses it from free memory",
        unit="voxels",
        minimum=0,
        maximum=2048,
    )
    guidance_weight: float = parameter(
        -1.0, "weight of the guidance term; -1 takes the preset's", minimum=-1.0, maximum=100.0, expert=True
    )
    sparsity_weight: float = parameter(
        -1.0, "weight of the sparsity (gradient) term; -1 takes the preset's", minimum=-1.0, maximum=100.0, expert=True
    )
    voxel_size: float = _voxel_size()

    def _validate_together(self) -> None:
        super()._validate_together()
        if 0 < self.tile < SMALLEST_TILE:
            raise JobError("parameter 'tile' must be 0 or at least %d, not %d." % (SMALLEST_TILE, self.tile))


@dataclass
class NmsgJob(NmsgTraining):
    """Denoise one tomogram: train NMSG on it, or apply a model that was trained before."""

    system: ClassVar[str] = "nmsg"

    input: str = parameter("", "tomogram to denoise (MRC)", required=True, positional=True)
    output: str = parameter("", "denoised tomogram to write (MRC)", required=True, alias="-o")
    even: str = parameter("", "tomogram of the even half; with --odd the noise is measured from their difference")
    odd: str = parameter("", "tomogram of the odd half")
    output_even: str = parameter("", "where to write the denoised even half; empty does not write it")
    output_odd: str = parameter("", "where to write the denoised odd half; empty does not write it")
    mask: str = parameter("", "mask of the specimen, 1 inside (MRC); training crops are taken there")
    model: str = parameter("", "apply this model (.safetensors) instead of training on the tomogram")
    save_model: str = parameter("", "where to write the trained model; empty keeps it in the run folder")
    strength: float = parameter(
        1.0, "share of the denoised volume in the output; the rest is the input", minimum=0.0, maximum=1.0
    )
    output_mode: str = parameter(
        "float32", "number format of the output", choices=("float32", "float16", "int8"), expert=True
    )

    def _validate_together(self) -> None:
        super()._validate_together()
        if bool(self.even) != bool(self.odd):
            raise JobError("give both halves or none: 'even' is %r, 'odd' is %r." % (self.even, self.odd))
        if (self.output_even or self.output_odd) and not self.even:
            raise JobError("denoised halves can only be written when 'even' and 'odd' are given.")
        outputs = [os.path.abspath(p) for p in (self.output, self.output_even, self.output_odd) if p]
        inputs = [os.path.abspath(p) for p in (self.input, self.even, self.odd, self.mask) if p]
        for path in outputs:
            if path in inputs:
                raise JobError("the output %s is also an input; choose another name." % path)
        if len(set(outputs)) != len(outputs):
            raise JobError("two outputs have the same name; choose different ones.")


@dataclass
class NmsgTrainJob(NmsgTraining):
    """Train one NMSG model on several tomograms, to be applied to a whole set."""

    system: ClassVar[str] = "nmsg-train"

    inputs: List[str] = parameter([], "tomograms to train on (MRC)", required=True, positional=True)
    output: str = parameter("", "model to write (.safetensors)", required=True, alias="-o")
    evens: List[str] = parameter([], "even halves, in the order of the tomograms")
    odds: List[str] = parameter([], "odd halves, in the order of the tomograms")

    def _validate_together(self) -> None:
        super()._validate_together()
        if len(self.evens) != len(self.odds) or len(self.evens) not in (0, len(self.inputs)):
            raise JobError(
                "give one even and one odd half for each tomogram, or none: %d tomograms, %d even, %d odd."
                % (len(self.inputs), len(self.evens), len(self.odds))
            )


@dataclass
class EvaluateJob(Job):
    """Compare a volume with the known truth, and its two halves with each other."""

    system: ClassVar[str] = "evaluate"

    test: str = parameter("", "volume to judge (MRC)", required=True, positional=True)
    reference: str = parameter("", "the truth, on the same grid (MRC)", required=True, positional=True)
    output: str = parameter("", "JSON file for the figures and curves; empty only prints them", alias="-o")
    mask: str = parameter("", "mask with a soft edge, 1 inside (MRC); only what lies inside counts")
    even: str = parameter("", "even half of the volume; with --odd the halves are compared too")
    odd: str = parameter("", "odd half of the volume")
    voxel_size: float = _voxel_size()

    def _validate_together(self) -> None:
        if bool(self.even) != bool(self.odd):
            raise JobError("give both halves or none: 'even' is %r, 'odd' is %r." % (self.even, self.odd))
        inputs = [os.path.abspath(p) for p in (self.test, self.reference, self.mask, self.even, self.odd) if p]
        if self.output and os.path.abspath(self.output) in inputs:
            raise JobError("the output %s is also an input; choose another name." % self.output)


PHANTOM_KINDS = ("packed", "spheres")


@dataclass
class PhantomJob(ComputeJob):
    """Make a specimen of which everything is known, its tilt series and its tomograms."""

    system: ClassVar[str] = "phantom"

    kind: str = parameter(
        "packed",
        "packed (macromolecules and vesicles) or spheres (hollow spheres)",
        choices=PHANTOM_KINDS,
        positional=True,
    )
    output: str = parameter("", "folder for everything that is written", required=True, alias="-o")
    depth: int = parameter(64, "size along z, the beam", unit="voxels", minimum=8, maximum=4096)
    height: int = parameter(256, "size along y, the tilt axis", unit="voxels", minimum=16, maximum=8192)
    width: int = parameter(256, "size along x", unit="voxels", minimum=16, maximum=8192)
    voxel_size: float = parameter(10.0, "voxel size", unit="angstrom", minimum=1.0, maximum=100.0)
    particles: int = parameter(200, "macromolecules or hollow spheres to place", minimum=1, maximum=10**6)
    vesicles: int = parameter(2, "membrane vesicles to place", minimum=0, maximum=10**4)
    beads: int = parameter(0, "gold beads to place", minimum=0, maximum=10**4)
    templates: str = parameter("", "folder of density maps (MRC, bright protein); empty takes built-in shapes")
    tilt_limit: float = parameter(60.0, "largest tilt angle, on both sides", unit="degrees", minimum=1.0, maximum=89.0)
    tilt_step: float = parameter(3.0, "tilt increment", unit="degrees", minimum=0.1, maximum=30.0)
    snr: float = parameter(
        0.1, "signal-to-noise ratio of the tomogram: variances inside the specimen", minimum=1e-6, maximum=1e6
    )
    noise: str = parameter("gaussian", "kind of noise in the views", choices=("gaussian", "poisson"))
    ctf: bool = parameter(False, "apply a contrast transfer function")
    defocus: float = parameter(3.0, "underfocus, used with ctf", unit="micrometres", minimum=0.1, maximum=20.0)
    sign: str = parameter("dark", "dark or bright protein in every file", choices=("dark", "bright"))

    def _validate_together(self) -> None:
        super()._validate_together()
        if self.tilt_step > self.tilt_limit:
            raise JobError(
                "the tilt step of %g degrees is larger than the largest tilt angle of %g; choose a smaller step."
                % (self.tilt_step, self.tilt_limit)
            )


#: Every job by the name of its system.
SYSTEMS: Dict[str, Type[Job]] = {cls.system: cls for cls in (NmsgJob, NmsgTrainJob, EvaluateJob, PhantomJob)}


def job_from_dict(content: Any, origin: str = "the job") -> Job:
    """A validated job from its JSON form.

    Raises
    ------
    JobError
        When the form, the schema version, the system or a parameter is wrong; ``origin`` names the file.
    """
    if not isinstance(content, dict) or set(content) != {"schema", "system", "parameters"}:
        raise JobError("%s must hold the three entries schema, system and parameters." % origin)
    if content["schema"] != SCHEMA_VERSION:
        raise JobError(
            "%s has schema %r, this version reads %d; write it again with the same version of cryoden."
            % (origin, content["schema"], SCHEMA_VERSION)
        )
    if not isinstance(content["system"], str) or content["system"] not in SYSTEMS:
        raise JobError(
            "%s asks for the unknown system %r; known are: %s." % (origin, content["system"], ", ".join(SYSTEMS))
        )
    if not isinstance(content["parameters"], dict):
        raise JobError("%s: 'parameters' must be a JSON object." % origin)
    return SYSTEMS[content["system"]].from_parameters(content["parameters"])


def read_job(path: str) -> Job:
    """Read and validate a job file.

    Raises
    ------
    JobError
        When the file is missing, is no JSON or is not a valid job.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except OSError as error:
        raise JobError("cannot read the job file %s: %s." % (path, error.strerror)) from error
    except ValueError as error:
        raise JobError("the job file %s is not valid JSON: %s." % (path, error)) from error
    return job_from_dict(content, "the job file %s" % path)


def write_job(job: Job, path: str) -> None:
    """Write a job file, whole or not at all."""
    write_json(job.to_dict(), path)


def write_json(content: Any, path: str) -> None:
    """Write JSON under a temporary name, flush it to the disk, then rename."""
    temporary = "%s.tmp%d" % (path, os.getpid())
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def read_json(path: str) -> Dict[str, Any]:
    """The object in a JSON file, or an empty one while the file is not there."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class RunFolder:
    """Names of the files that a run leaves beside its output; the plugin and the core both read them from here."""

    path: str

    @classmethod
    def beside(cls, output: str, given: str = "") -> RunFolder:
        """The folder of a job: ``given``, or ``<output without extension>_cryoden``."""
        return cls(given or os.path.splitext(output)[0] + "_cryoden")

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def job(self) -> str:
        """What was asked, resolved."""
        return self._file("job.json")

    @property
    def progress(self) -> str:
        """Stage, step, loss, time left; see :mod:`cryoden_core.progress`."""
        return self._file("progress.json")

    @property
    def metrics(self) -> str:
        """Every logged value, one row a step."""
        return self._file("metrics.csv")

    @property
    def report(self) -> str:
        """Picture: slices before, after and difference, loss, power spectrum."""
        return self._file("report.png")

    @property
    def noise_report(self) -> str:
        """The table of checks of the noise model."""
        return self._file("noise_report.json")

    @property
    def result(self) -> str:
        """Figures of the finished run: files written, times, noise before and after."""
        return self._file("result.json")

    @property
    def model(self) -> str:
        """The trained model."""
        return self._file("model.safetensors")

    @property
    def checkpoint(self) -> str:
        """The training's state, for ``resume``."""
        return self._file("checkpoint.pt")

    @property
    def noise_checkpoint(self) -> str:
        """The state of the noise model's training, for ``resume``."""
        return self._file("noise_checkpoint.pt")

"""What a job is: typed parameters with one definition each, validation, the JSON form.

Standard library and Python 3.8 only, like the whole package; see :mod:`cryoden_core.jobs`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Optional, Sequence, Type

from .files import RunFolder

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

    ``minimum`` and ``maximum`` are inclusive; ``choices`` lists the allowed strings; ``endings`` lists what the name of
    a file that is written may end in, lest a volume be called a table; ``unit`` is appended to the help; ``positional``
    and ``alias`` shape the command line only; ``expert`` hides the parameter in beginners' forms.
    """

    help: str
    unit: str = ""
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    choices: Sequence[str] = ()
    endings: Sequence[str] = ()
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
            text += " (one of %s)" % self._listed_choices()
        elif self.minimum is not None or self.maximum is not None:
            low = "-inf" if self.minimum is None else _number(self.minimum)
            high = "inf" if self.maximum is None else _number(self.maximum)
            text += " (%s to %s)" % (low, high)
        return text

    def _listed_choices(self) -> str:
        return ", ".join(choice or "empty" for choice in self.choices)

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
            return "parameter '%s' must be one of %s, not %r" % (name, self._listed_choices(), value)
        if self.endings and value and os.path.splitext(value)[1].lower() not in self.endings:
            return "parameter '%s' must be a name that ends in %s, not %r" % (name, " or ".join(self.endings), value)
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


def shown(value: Any) -> str:
    """A value as one types it; empty texts and lists are shown as nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    return "%g" % value if isinstance(value, float) else str(value)


@dataclass
class Job:
    """Base of all jobs: validation and the JSON form."""

    system: ClassVar[str] = ""

    #: Module and function of the core that carries the job out, ``module:function``; imported when it is asked for.
    carried_out_by: ClassVar[str] = ""

    def folder(self) -> Optional[RunFolder]:
        """Where the run leaves its files, or None when it leaves none."""
        return None

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


@dataclass
class ComputeJob(Job):
    """What every job that computes on a device shares."""

    device: str = parameter("auto", "where to compute: auto, cpu, cuda or cuda:N")
    cpu_fallback: bool = parameter(False, "go on without a GPU when the one that was asked for is absent")
    threads: int = parameter(0, "CPU threads; 0 takes all that this process may use", minimum=0, maximum=1024)
    run_folder: str = parameter(
        "", "folder for progress, metrics, report and checkpoint; empty puts '<output>_cryoden' beside the output"
    )

    def _validate_together(self) -> None:
        device = self.device
        if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
            raise JobError("parameter 'device' must be auto, cpu, cuda or cuda:N, not %r." % device)


@dataclass
class ResumableJob(ComputeJob):
    """What every job shares that keeps its work where it is interrupted."""

    resume: bool = parameter(False, "go on from what an interrupted run of the same job has left")


def refuse_clashes(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse an output that is also an input or is named twice; empty names do not count, and links are followed.

    Raises
    ------
    JobError
        With the name.
    """
    written = [os.path.realpath(path) for path in outputs if path]
    read = {os.path.realpath(path) for path in inputs if path}
    for path in written:
        if path in read:
            raise JobError("the output %s is also an input; choose another name." % path)
        if written.count(path) > 1:
            raise JobError("two outputs have the same name, %s; choose different ones." % path)


def refuse_one_half(even: str, odd: str, *denoised: str) -> None:
    """Refuse, with a :class:`JobError`, one half without the other, and names of denoised halves without halves."""
    if bool(even) != bool(odd):
        raise JobError("give both halves or none: 'even' is %r, 'odd' is %r." % (even, odd))
    if any(denoised) and not even:
        raise JobError("denoised halves can only be written when 'even' and 'odd' are given.")

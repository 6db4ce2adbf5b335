"""The command ``cryoden``: one sub-command for each job, made from the definitions in :mod:`cryoden_core.jobs`.

Exit codes: 0 done; 1 an unexpected failure; 2 wrong input or parameter; 3 the device asked for is absent; 75 stopped on
request, to be continued with ``--resume`` where the command has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import operator
import os
import shutil
import signal
import sys
import traceback
import typing
from typing import Annotated, Any

import tyro

from . import __version__
from .jobs import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_DEVICE,
    EXIT_OK,
    SYSTEMS,
    ComputeJob,
    DeviceError,
    Job,
    JobError,
    Parameter,
    ResumableJob,
    default_of,
    parameters_of,
    read_job,
)
from .jobs.contract import shown

DESCRIPTION = (
    f"CryoDen {__version__}: restore cryo-electron tomograms. Each command has its own --help. "
    "To begin: cryoden nmsg tomogram.mrc -o denoised.mrc --preset fast"
)


#: What the operating system answers where a disk, a quota or the largest size of a file is exhausted.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: What the commands with sub-commands are for.
GROUPS = {
    "dual": "Learn to denoise and to simulate tomograms from unpaired noisy and clean volumes.",
    "evaluate": "Judge volumes, picking, simulations, denoisers, filled wedges and training sets.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    # Threads that wait must not spin: with two jobs on one computer, spinning made each step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in (["--version"], ["version"]):
        print(__version__)
        return EXIT_OK
    try:
        command = _parse(list(given))
    except JobError as error:
        return _say(error, EXIT_BAD_INPUT)
    except BrokenPipeError:
        # Whoever reads the help, such as ``head``, has seen enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    try:
        with _terminated_like_interrupted():
            return command.execute()
    except DeviceError as error:
        return _say(error, EXIT_NO_DEVICE)
    except JobError as error:
        return _say(error, EXIT_BAD_INPUT)
    except ModuleNotFoundError:
        # What is not installed is told by cryoden_core.__main__.
        raise
    except KeyboardInterrupt:
        kept = "what was whole has been kept, and --resume, where the command has it, goes on from there"
        return _say(f"stopped on request; {kept}.", EXIT_INTERRUPTED)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            return _say(f"{error}; go on with --resume.", EXIT_INTERRUPTED)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            what = error.filename or "the files of the run"
            return _say(f"cannot write {what}: {(error.strerror or '').lower()}.", EXIT_BAD_INPUT)
        traceback.print_exc()
        return _say(f"{type(error).__name__}: {error}", EXIT_FAILED)


def _say(message: object, code: int) -> int:
    print(f"cryoden: {message}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _terminated_like_interrupted() -> typing.Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that temporary files are removed; training handles it itself."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        # Only the main thread may do this.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


#: What can follow ``cryoden``: a dataclass with ``execute``, or the table of a group's actions.
Commands = dict[str, Any]


def _parse(given: list[str]) -> Any:
    """The command that was asked for, parsed by itself: a mistyped option is looked for among its own only."""
    found: Any = _commands()
    words, rest = ["cryoden"], given
    while isinstance(found, dict) and rest and rest[0] in found:
        found = found[rest[0]]
        words, rest = [*words, rest[0]], rest[1:]
    about = found.__doc__
    if isinstance(found, dict):
        rest = rest or ["--help"]
        if not rest[0].startswith("-"):
            raise JobError(_no_such_command([*words[1:], rest[0]], list(found)))
        about = GROUPS[words[-1]] if len(words) > 1 else DESCRIPTION
        found = typing.Union[tuple(_listed(name, command) for name, command in found.items())]
    return tyro.cli(found, prog=" ".join(words), description=about, args=rest)


def _no_such_command(words: list[str], known: list[str]) -> str:
    alike = difflib.get_close_matches(words[-1], known, n=1)
    guess = f"did you mean '{' '.join([*words[:-1], *alike])}'?" if alike else f"there are {', '.join(known)}."
    return f"there is no command '{' '.join(words)}'; {guess}"


def _commands() -> Commands:
    """All commands by name."""
    commands: Commands = {}
    for system, job in SYSTEMS.items():
        name, _, action = system.partition(" ")
        if action:
            commands.setdefault(name, {})[action] = _job_command(job)
        else:
            commands[name] = _job_command(job)
    return {**commands, "run": RunCommand, "doctor": DoctorCommand}


def _listed(name: str, command: Any) -> Any:
    """A command as its parent's help lists it; a group stands there for its actions."""
    if isinstance(command, dict):
        command = dataclasses.make_dataclass(name.title() + "Group", [])
        command.__doc__ = GROUPS[name]
    return operator.getitem(Annotated, (command, tyro.conf.subcommand(name, description=command.__doc__)))


def _job_command(job: type[Job]) -> Any:
    """A dataclass with the job's fields, annotated for the command line, that runs the job."""
    hints = typing.get_type_hints(job)
    fields: list[Any] = []
    # What every job shares, such as the device, comes last: the help opens with what this command is about.
    shared = {field.name for field in dataclasses.fields(ResumableJob)}
    for field in sorted(dataclasses.fields(job), key=lambda field: field.name in shared):
        about = field.metadata["parameter"]
        kind: Any = hints[field.name]
        named: dict[str, Any] = {"aliases": [about.alias]} if about.alias else {}
        if kind is not bool:
            named["metavar"] = _placeholder(field.name, about, kind)
        default = "required" if about.required else "default: " + (shown(default_of(job, field.name)) or "empty")
        details: list[Any] = [tyro.conf.arg(help=about.describe(), help_behavior_hint=f"({default})", **named)]
        if about.positional:
            details.append(tyro.conf.Positional)
        annotated: Any = operator.getitem(Annotated, (kind, *details))
        if about.required:
            fields.append((field.name, annotated))
        elif field.default_factory is not dataclasses.MISSING:
            fields.append((field.name, annotated, dataclasses.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, annotated, dataclasses.field(default=field.default)))
    fields.sort(key=len)
    command = dataclasses.make_dataclass(
        job.__name__.replace("Job", "Command"), fields,
        namespace={"execute": lambda self: _execute_typed(job.from_parameters(_shallow(self)))},
    )  # fmt: skip
    command.__doc__ = job.__doc__
    return command


def _placeholder(name: str, about: Parameter, kind: Any) -> str:
    """What stands for the value in the help."""
    word = "WORD" if about.choices else {int: "N", float: "X"}.get(kind, "NAME")
    if about.positional:
        word = name.upper()
    return word + " ..." if typing.get_origin(kind) is list else word


def _shallow(command: Any) -> dict[str, Any]:
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}


def _execute_typed(job: Job) -> int:
    """Run what was typed; when it is refused, no folder is left behind that tells of nothing else."""
    folder = job.folder()
    fresh = folder is not None and not os.path.exists(folder.path)
    try:
        return _execute(job)
    except JobError:
        if folder is not None and fresh and os.path.isdir(folder.path):
            of_all_runs = {os.path.basename(path) for path in (folder.lock, folder.progress, folder.job)}
            if set(os.listdir(folder.path)) <= of_all_runs:
                shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _execute(job: Job) -> int:
    from .api import run

    result = run(job)
    for path in result.get("outputs") or [result.get("output")]:
        if path:
            print(path)
    return EXIT_OK


@dataclasses.dataclass
class RunCommand:
    """Run a job file (JSON), as the Scipion plugin writes it."""

    job: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="job file", metavar="JOB.json")]
    device: Annotated[
        str,
        tyro.conf.arg(help="in place of the job's device", metavar="NAME", help_behavior_hint="(default: the job's)"),
    ] = ""
    resume: Annotated[
        bool,
        tyro.conf.arg(
            help="go on from what an interrupted run has left, where the job can; others start anew",
            help_behavior_hint="(default: as in the job)",
        ),
    ] = False

    def execute(self) -> int:
        """Read, adjust, run."""
        job = read_job(self.job)
        if isinstance(job, ComputeJob):
            job.device = self.device or job.device
        if self.resume and "resume" in parameters_of(job):
            job.resume = True  # type: ignore[attr-defined]
        return _execute(job)


@dataclasses.dataclass
class DoctorCommand:
    """Show what this computer offers: torch, GPUs, memory, number formats, Scipion."""

    def execute(self) -> int:
        """Print the table."""
        from .doctor import examine

        for name, value in examine():
            print(f"{name:<26}{value}")
        return EXIT_OK

"""The command ``cryoden``: one sub-command for each job, made from the definitions in :mod:`cryoden_core.jobs`.

Exit codes: 0 done; 1 an unexpected failure; 2 wrong input or parameter; 3 the device asked for is absent; 75 stopped on
request, to be continued with ``--resume``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
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
    parameters_of,
    read_job,
)

DESCRIPTION = f"CryoDen {__version__}: restore cryo-electron tomograms. Each command has its own --help."


#: What the commands with sub-commands are for.
GROUPS = {
    "dual": "Learn to denoise and to simulate tomograms from unpaired noisy and clean volumes.",
    "evaluate": "Judge volumes, picking, simulations, denoisers and filled wedges.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    # Threads that wait must not spin: with two jobs on one computer, spinning made each step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] in (["--version"], ["version"]):
        print(__version__)
        return EXIT_OK
    command = tyro.cli(_commands(), prog="cryoden", description=DESCRIPTION, args=given)
    try:
        with _terminated_like_interrupted():
            return command.execute()
    except DeviceError as error:
        return _say(error, EXIT_NO_DEVICE)
    except JobError as error:
        return _say(error, EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        return _say("stopped on request; what was whole has been kept.", EXIT_INTERRUPTED)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            return _say(f"{error}; go on with --resume.", EXIT_INTERRUPTED)
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


def _commands() -> Any:
    """The union of all sub-commands, for tyro."""
    commands: list[Any] = []
    groups: dict[str, list[Any]] = {}
    for name, job in SYSTEMS.items():
        group, _, action = name.partition(" ")
        if action:
            groups.setdefault(group, []).append(_job_command(action, job))
        else:
            commands.append(_job_command(name, job))
    commands += [_group_command(name, actions) for name, actions in groups.items()]
    commands.append(Annotated[RunCommand, tyro.conf.subcommand("run")])
    commands.append(Annotated[DoctorCommand, tyro.conf.subcommand("doctor")])
    return typing.Union[tuple(commands)]


def _job_command(name: str, job: type[Job]) -> Any:
    """A dataclass with the job's fields, annotated for the command line, that runs the job."""
    hints = typing.get_type_hints(job)
    fields: list[Any] = []
    for field in dataclasses.fields(job):
        about = field.metadata["parameter"]
        kind: Any = hints[field.name]
        details: list[Any] = [tyro.conf.arg(help=about.describe(), aliases=[about.alias] if about.alias else None)]
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
        name.replace("-", " ").title().replace(" ", "") + "Command", fields,
        namespace={"execute": lambda self: _execute(job.from_parameters(_shallow(self)))},
    )  # fmt: skip
    command.__doc__ = job.__doc__
    return Annotated[command, tyro.conf.subcommand(name, description=job.__doc__)]


def _group_command(name: str, actions: list[Any]) -> Any:
    """The command ``name`` with one sub-command for each of ``actions``, each a job's command."""
    action: Any = operator.getitem(Annotated, (typing.Union[tuple(actions)], tyro.conf.arg(name="")))
    command = dataclasses.make_dataclass(
        name.title() + "Commands", [("action", action)], namespace={"execute": lambda self: self.action.execute()}
    )
    command.__doc__ = GROUPS[name]
    return Annotated[command, tyro.conf.subcommand(name, description=GROUPS[name])]


def _shallow(command: Any) -> dict[str, Any]:
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}


def _execute(job: Job) -> int:
    from .api import run

    result = run(job)
    if result.get("output"):
        print(result["output"])
    return EXIT_OK


@dataclasses.dataclass
class RunCommand:
    """Run a job file (JSON), as the Scipion plugin writes it."""

    job: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="job file", metavar="JOB.json")]
    device: Annotated[str, tyro.conf.arg(help="in place of the job's device; empty keeps it")] = ""
    resume: Annotated[bool, tyro.conf.arg(help="go on from the checkpoint, if there is one")] = False

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
            print(f"{name:<22}{value}")
        return EXIT_OK

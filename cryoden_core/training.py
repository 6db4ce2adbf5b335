"""The one training loop.

A *task* brings its networks and optimisers and says what one step is; everything else is here: seeds, mixed precision,
learning-rate schedule, exponential moving average, gradient averaging under ``torchrun``, checkpoints that are whole or
absent, stopping on SIGTERM with one, refusing NaN, and reporting.  A resumed run makes the same steps with the same
random numbers as an uninterrupted one, so on the CPU it ends with the same bits.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from .device import mixed_precision
from .jobs import JobError, whole_file
from .mrc import errors_of_writing
from .progress import Progress

#: Steps with a loss or gradient that is not finite, one after another, before training goes on in float32; and as
#: many again before it gives up.
PATIENCE = 5


class TrainingDiverged(JobError):
    """The loss stayed NaN or infinite, in float32 too: as far as can be known it is the input's fault."""


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint has been written."""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast to train.

    ``warm_up`` and ``final_rate`` are shares of the steps and of the learning rate.  After a linear rise the rate falls
    along half a cosine (``schedule`` cosine), linearly during the second half (linear), or not at all (constant).
    """

    steps: int
    warm_up: float = 0.05
    final_rate: float = 0.02
    ema_decay: float = 0.99
    clip: float = 1.0
    log_every: int = 10
    checkpoint_seconds: float = 60.0
    precision: bool = True
    schedule: str = "cosine"

    def rate(self, step: int) -> float:
        """Factor of the learning rate at ``step``."""
        rise = max(1.0, self.warm_up * self.steps)
        done = step / max(1, self.steps)
        level = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": min(1.0, 2 - 2 * done), "constant": 1.0}
        fall = self.final_rate + (1 - self.final_rate) * level[self.schedule]
        return min(1.0, (step + 1) / rise) * fall


class Task(Protocol):
    """What is trained."""

    name: str
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One step: compute losses, call ``trainer.update``, return the values to log (``loss`` among them).

        A task may end the training early with ``trainer.finish()``.
        """


@dataclass
class Trainer:
    """Runs a :class:`Task`.

    Parameters
    ----------
    task, settings, device, seed, progress
        What, how long, where, with which random numbers, and who is told.
    checkpoint
        File for the state; empty keeps none.
    fingerprint
        Text that identifies input and parameters; a checkpoint of another one is refused.
    """

    task: Task
    settings: TrainingSettings
    device: torch.device
    seed: int
    progress: Progress
    checkpoint: str = ""
    fingerprint: str = ""
    generator: torch.Generator = field(init=False)
    averages: dict[str, dict[str, torch.Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.rank, self.world = _join_processes(self.device)
        self.generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.rank)
        self.step = 0
        self._full_precision = not self.settings.precision
        self._bad_steps = dict.fromkeys(self.task.optimizers, 0)
        self._stop = False
        self._finished = False
        #: Lowered once, when the loss stayed not finite and the last checkpoint was restored.
        self._rate_factor = 1.0
        self._restore = False
        self._base_rates = {
            name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in self.task.optimizers.items()
        }
        self.averages = {
            name: {key: value.detach().clone() for key, value in network.state_dict().items()}
            for name, network in self.task.networks.items()
        }

    # ---- what a task calls -------------------------------------------------------------------------------------------

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Mixed precision for the networks; losses and Fourier transforms belong outside."""
        return mixed_precision(self.device, not self._full_precision)

    def update(self, optimizer: str, loss: torch.Tensor | Iterable[torch.Tensor]) -> bool:
        """Descend ``loss`` with one optimiser; a loss or gradient that is not finite is skipped (returns False).

        Several losses are made and backpropagated one after the other and descended as their sum, so that only one of
        their graphs is in memory.
        """
        chosen = self.task.optimizers[optimizer]
        chosen.zero_grad(set_to_none=True)
        finite = True
        for part in [loss] if isinstance(loss, torch.Tensor) else loss:
            part.backward()
            finite &= bool(torch.isfinite(part))
        parameters = [p for group in chosen.param_groups for p in group["params"] if p.grad is not None]
        finite = self._average_gradients(parameters, finite)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        if not (finite and torch.isfinite(norm)):
            self._count_bad_step(optimizer)
            return False
        self._bad_steps[optimizer] = 0
        chosen.step()
        return True

    def finish(self) -> None:
        """End the training with the step that is being made."""
        self._finished = True

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def fit(self, resume: bool = False) -> None:
        """Train to the last step.

        Raises
        ------
        Interrupted
            After SIGTERM or SIGINT, with a checkpoint written.
        TrainingDiverged
            When the loss stays not finite.
        """
        settings = self.settings
        if resume:
            self._load()
        self.progress.stage(self.task.name, settings.steps, first=self.step)
        self.progress.rewind(self.step)
        saved = time.monotonic()
        with self._stop_on_signals():
            while self.step < settings.steps and not self._finished:
                self._set_rates()
                values = self.task.step(self.step, self)
                if self._restore:
                    self._start_over()
                    continue
                self._update_averages()
                self.step += 1
                self._report(values)
                stop = self._asked_to_stop()
                due = time.monotonic() - saved > settings.checkpoint_seconds
                if due or stop or self._finished or self.step == settings.steps:
                    self.save()
                    saved = time.monotonic()
                if stop:
                    raise Interrupted(f"stopped at step {self.step} of {settings.steps} of {self.task.name}")

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the networks hold their moving averages."""
        trained = {
            name: {key: value.detach().clone() for key, value in network.state_dict().items()}
            for name, network in self.task.networks.items()
        }
        for name, network in self.task.networks.items():
            network.load_state_dict(self.averages[name])
        try:
            yield
        finally:
            for name, network in self.task.networks.items():
                network.load_state_dict(trained[name])

    def use_averages(self) -> None:
        """Leave the moving averages in the networks for good."""
        for name, network in self.task.networks.items():
            network.load_state_dict(self.averages[name])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises
        ------
        JobError
            When the disk is full or refuses it for another reason; the checkpoint before it stays.
        """
        if not self.checkpoint or self.rank:
            return
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "networks": {name: network.state_dict() for name, network in self.task.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()},
            "averages": self.averages,
            "generator": self.generator.get_state(),
            "full_precision": self._full_precision,
            "rate_factor": self._rate_factor,
            "finished": self._finished,
        }
        with errors_of_writing(self.checkpoint), whole_file(self.checkpoint) as temporary:
            _write_state(state, temporary)

    def _load(self) -> None:
        if not self.checkpoint or not os.path.exists(self.checkpoint):
            return
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            written_for = state["fingerprint"]
        except Exception as error:
            # What torch says about a spoiled file is a page long; it is kept as the cause.
            raise JobError(f"the checkpoint {self.checkpoint} cannot be read; start without --resume.") from error
        if written_for != self.fingerprint:
            raise JobError(
                f"the checkpoint {self.checkpoint} belongs to other input or parameters; start without --resume."
            )
        for name, network in self.task.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.task.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.averages = {
            name: {key: value.to(self.averages[name][key].device) for key, value in average.items()}
            for name, average in state["averages"].items()
        }
        self.step = state["step"]
        if self.rank:
            # The checkpoint holds the first process's generator only; new numbers, not again those of the beginning.
            self.generator.manual_seed(self.seed + 1_000_003 * self.rank + self.step)
        else:
            self.generator.set_state(state["generator"])
        self._full_precision = state["full_precision"]
        self._rate_factor, self._finished = state["rate_factor"], state["finished"]
        self.progress.say(f"resuming at step {self.step} of {self.settings.steps}")

    def _set_rates(self) -> None:
        factor = self.settings.rate(self.step) * self._rate_factor
        for name, optimizer in self.task.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base_rates[name], strict=True):
                group["lr"] = base * factor

    @torch.no_grad()
    def _update_averages(self) -> None:
        # Early averages must forget the random start: the decay grows with the number of steps made.
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for name, network in self.task.networks.items():
            for key, value in network.state_dict().items():
                average = self.averages[name][key]
                if average.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def _report(self, values: dict[str, float]) -> None:
        if self.rank:
            return
        self.progress.advance(loss=values.get("loss"))
        if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
            rates = {f"rate_{name}": o.param_groups[0]["lr"] for name, o in self.task.optimizers.items()}
            self.progress.log(self.step, {**values, **rates})

    def _count_bad_step(self, optimizer: str) -> None:
        self._bad_steps[optimizer] += 1
        if self._bad_steps[optimizer] < PATIENCE:
            return
        if self._full_precision and self._rate_factor == 1.0 and self.checkpoint and os.path.exists(self.checkpoint):
            self._restore = True
            return
        if self._full_precision:
            raise TrainingDiverged(
                f"{self.task.name}: the loss is not a finite number at step {self.step}; check the input for extreme "
                "values or try another seed."
            )
        self.progress.warn("the loss was not finite; training goes on in float32.")
        self._full_precision, self._bad_steps[optimizer] = True, 0

    def _start_over(self) -> None:
        """Go back to the last checkpoint and on from there in float32 with half the learning rate."""
        self.progress.warn("the loss was not finite; training goes on from the last checkpoint with half the rate.")
        self._load()
        self.progress.stage(self.task.name, self.settings.steps, first=self.step)
        self.progress.rewind(self.step)
        self._full_precision, self._rate_factor, self._restore = True, 0.5, False
        self._bad_steps = dict.fromkeys(self.task.optimizers, 0)

    def _average_gradients(self, parameters: list[nn.Parameter], finite: bool) -> bool:
        """Over all processes; returns whether the loss is finite in every one of them."""
        if self.world == 1:
            return finite
        failed = torch.tensor([float(not finite)], device=self.device)
        flat = torch.cat([*(p.grad.reshape(-1) for p in parameters), failed])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for p in parameters:
            p.grad = flat[offset : offset + p.numel()].view_as(p)
            offset += p.numel()
        return not bool(flat[-1])

    def _asked_to_stop(self) -> bool:
        """Whether any process was: one that stopped by itself would leave the others waiting for its gradients."""
        if self.world == 1:
            return self._stop
        asked = torch.tensor([float(self._stop)], device=self.device)
        dist.all_reduce(asked)
        return bool(asked)

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            self._stop = True

        try:
            before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            # Signals can only be handled in the main thread; elsewhere the regular checkpoints must do.
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def random_integer(generator: torch.Generator, high: int) -> int:
    """A random whole number from 0 to ``high`` - 1."""
    return int(torch.randint(high, (), generator=generator))


def _write_state(state: dict[str, Any], path: str) -> None:
    with open(path, "wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:
            # What the operating system refused, a full disk for one, torch hides behind an error of its own archive.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _join_processes(device: torch.device) -> tuple[int, int]:
    """Rank and number of processes; under ``torchrun`` the group is made on first use."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()

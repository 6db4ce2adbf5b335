"""How long to fit, and how strongly to ask for sparsity, found with views that are held out.

Every eighth view is left out of short fits to a few sections in the middle of the tomogram; what the network then says
of those views is compared with them.  The noise of a held-out view cannot be predicted, so the error falls while the
network learns the specimen and rises once it learns the noise (Morozov's discrepancy principle needs the noise's level,
this does not).  Penalties are tried from weak to strong until they do worse; the fit to all views is then made with the
strongest that do as well as any, and the number of passes where their error was least.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from ..jobs import read_json, write_json
from ..progress import Progress
from ..tomography.inputs import AlignedSeries
from ..training import Trainer
from .data import FitData, Preparation, prepare, remove_prepared
from .single import Settings, SingleFit

#: One view in so many is held out.
HELD_OUT = 8
#: Sections that the pilot is fitted to.
SECTIONS = 32
#: The pilot ends when the error has risen at so many checks, one after the other.
PATIENCE = 3


@dataclass(frozen=True)
class Choice:
    """What the pilot found.

    Attributes
    ----------
    passes
        Number with the least error.
    penalties
        Weights of sparsity and total variation.
    error
        Share of the held-out views' variance that is not explained there, see :func:`unexplained_share`.
    errors
        By weights, the error after each check.
    """

    passes: int
    penalties: tuple[float, float]
    error: float
    errors: dict[str, list[float]]


class _Watch:
    """Takes the error on held-out views after each check, and ends the fit when it keeps rising."""

    def __init__(self, data: FitData, every: int) -> None:
        self.data, self.every = data, every
        self.fit: SingleFit | None = None
        self.per_view: list[np.ndarray] = []

    @torch.no_grad()
    def __call__(self, passes: int, trainer: Trainer) -> dict[str, float]:
        if passes % self.every or self.fit is None:
            return {}
        data, task = self.data, self.fit.task
        sections = torch.arange(data.sections)
        target, weights = data.views_of(sections)
        predicted = data.projector.forward(task.density(trainer, self.fit.data[1], sections))
        # Both without the masked pixels, which are 0 in the target.
        self.per_view.append(unexplained_share(predicted * (weights > 0), target))
        if len(self.per_view) - 1 - self.best >= PATIENCE:
            trainer.finish()
        # Rows of the loop itself come at every tenth step, which is seldom the end of a pass.
        trainer.progress.log(trainer.step + 1, {"held_out_error": self.errors[-1]})
        return {}

    @property
    def errors(self) -> list[float]:
        """Mean over the held-out views after each check."""
        return [float(errors.mean()) for errors in self.per_view]

    @property
    def best(self) -> int:
        """Number of the check with the least error."""
        return int(np.argmin(self.errors))

    @property
    def standard_error(self) -> float:
        """How well the least error is known."""
        return float(self.per_view[self.best].std() / math.sqrt(len(self.per_view[self.best])))


def choose(
    series: AlignedSeries, how: Preparation, settings: Settings, seed: int, mask: np.ndarray | None,
    progress: Progress, path: str, fingerprint: str, resume: bool,
) -> Choice:  # fmt: skip
    """Run the pilot, or read what an interrupted run's pilot found.

    Parameters
    ----------
    series, how, mask
        See :func:`cryoden_core.mlp.data.prepare`.
    settings, seed
        Of the fit that is to follow.
    path, fingerprint, resume
        File that keeps the choice, what it depends on, and whether to believe it.
    """
    kept = read_json(path) if resume else {}
    if kept.get("fingerprint") == fingerprint:
        return Choice(**{**kept["choice"], "penalties": tuple(kept["choice"]["penalties"])})
    block, part = _central(series, mask)
    held = np.arange(series.views) % HELD_OUT == HELD_OUT // 2
    small = dataclasses.replace(settings, shape=block.volume_shape)
    how = dataclasses.replace(how, longest=max(block.volume_shape))
    # What lies outside the tomogram stays in the held-out views: it adds the same to every error.
    blind = dataclasses.replace(how, scale=how.scale.of(held), start="none", outside=False)
    how = dataclasses.replace(how, scale=how.scale.of(~held))
    every = max(1, settings.preset.passes // 15)
    watches: dict[tuple[float, float], _Watch] = {}
    try:
        data = prepare(block.subset(~held), how, "pilot", 1, None if part is None else part[~held])
        hidden = prepare(block.subset(held), blind, "held_out", 1, None if part is None else part[held])
        for penalties in settings.preset.penalties:
            watch = _Watch(hidden, every)
            watch.fit = SingleFit(
                {1: data}, dataclasses.replace(small, preset=dataclasses.replace(small.preset, penalties=(penalties,))),
                seed, progress, name=f"pilot with {_label(penalties)}", on_pass=watch,
            )  # fmt: skip
            watch.fit.fit()
            watches[penalties] = watch
            if _strongest_that_will_do(watches) != penalties:
                break
    finally:
        remove_prepared(how.folder, "pilot", "held_out")
    chosen = _strongest_that_will_do(watches)
    watch = watches[chosen]
    errors = {_label(penalties): watch.errors for penalties, watch in watches.items()}
    choice = Choice((watch.best + 1) * every, chosen, watch.errors[watch.best], errors)
    write_json({"fingerprint": fingerprint, "choice": dataclasses.asdict(choice)}, path)
    return choice


def unexplained_share(predicted: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """Share of each target view's power that a prediction, with the best gain, does not explain, (views,).

    Frequencies count as they do in the volume, where those of a view are spread over a length that grows with the
    frequency: without that, the error of views is ruled by what is coarse.  The gain is free because the penalties
    shrink densities, and an error that blamed them for it would prefer noise to them.

    Parameters
    ----------
    predicted, target : Tensor (views, y, u)
    """
    width = target.shape[-1]
    spread = torch.arange(width // 2 + 1, device=target.device) / width
    a, b = (torch.fft.rfft(values.float()) for values in (predicted, target))
    explained = (spread * (a * b.conj()).real).sum(dim=(1, 2)).square()
    power = [(spread * values.abs().square()).sum(dim=(1, 2)) for values in (a, b)]
    return (1 - explained / (power[0] * power[1]).clamp_min(1e-30)).cpu().numpy()


def _strongest_that_will_do(watches: dict[tuple[float, float], _Watch]) -> tuple[float, float]:
    """The last of the penalties, which grow, whose least error is the least of all within what that is known to.

    The rule of one standard error (Breiman et al., *Classification and Regression Trees*, 1984): held-out views lie
    between views that were fitted, and so see less of the noise in a volume than a volume has.
    """
    least = min(watches.values(), key=lambda watch: watch.errors[watch.best])
    limit = least.errors[least.best] + least.standard_error
    return [penalties for penalties, watch in watches.items() if watch.errors[watch.best] <= limit][-1]


def _label(penalties: tuple[float, float]) -> str:
    return "sparsity {:g}, total variation {:g}".format(*penalties)


def _central(series: AlignedSeries, mask: np.ndarray | None) -> tuple[AlignedSeries, np.ndarray | None]:
    """The sections in the middle."""
    height = series.projections.shape[1]
    first = max(0, (height - SECTIONS) // 2)
    part = slice(first, min(height, first + SECTIONS))
    return (
        dataclasses.replace(series, projections=series.projections[:, part]),
        None if mask is None else mask[:, part],
    )

"""Fit a field to a tilt series: what one step of the one training loop is here.

A *pass* visits every section along y once, in random order scattered over the volume: neighbouring sections would give
nearly the same gradient (150 steps of contiguous slabs ended 2 dB below scattered ones).  The order of a pass follows
from the seed and its number alone, so a resumed fit sees the same sections.

Where the sections of a step do not fit into memory with their gradient, the density is first evaluated without one,
the projections give the gradient with respect to the density, and the network is then evaluated again piece by piece
and each piece backpropagated: the same gradient, with the memory of one piece (about a third more time).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..device import is_out_of_memory
from ..training import Trainer
from .data import FitData
from .fields import Field
from .losses import WedgePenalty, projection_loss, sparsity, total_variation

#: Sections a step at least, where there are as many.
FEWEST_SECTIONS = 4
#: A pass has about this many steps unless the number of sections a step is given.
STEPS_PER_PASS = 8
#: Share of the fit after which the penalties begin, and over which they grow to their weight.
PENALTY_START, PENALTY_RISE = 0.1, 0.2
#: Weight that keeps gains near 1 and offsets near 0, per view.
VIEW_PRIOR = 1e-3


@dataclass(frozen=True)
class Weights:
    """How much each penalty counts beside the projections, and which loss those have."""

    loss: str = "l2"
    crowther: float = 0.0
    sparsity: float = 0.0
    total_variation: float = 0.0

    @property
    def pairs(self) -> bool:
        """Whether sections are drawn with a neighbour."""
        return self.total_variation > 0


@dataclass(frozen=True)
class Stage:
    """Some passes over one binning, to its start or to its projections."""

    data: FitData
    passes: int
    to_start: bool = False


@dataclass(frozen=True)
class Place:
    """Where a step lies: its stage, the number of its pass from 0, its batch, and whether it ends the pass."""

    stage: Stage
    number: int
    batch: int
    last: bool


class ViewScale(nn.Module):
    """A gain and an offset for each view, since the beam and the background are not quite the same in all."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.zeros(views))
        self.offset = nn.Parameter(torch.zeros(views))

    @property
    def gains(self) -> Tensor:
        """Gain of each view, (views,); their geometric mean is 1, for the volume has a scale of its own."""
        return (self.logarithm - self.logarithm.mean()).exp()

    def forward(self, projections: Tensor, sd: float) -> Tensor:
        """Scale projections (views, y, u) of standard deviation ``sd``."""
        return projections * self.gains[:, None, None] + sd * self.offset[:, None, None]

    def prior(self) -> Tensor:
        """What holds gains and offsets back."""
        return VIEW_PRIOR * (self.gains.log().square() + self.offset.square()).mean()


@dataclass(eq=False)
class FitTask:
    """The task that the training loop carries out.

    Parameters
    ----------
    network
        The field.
    stages
        In order; all data have the same views.
    weights
        Of the penalties.
    rate
        Learning rate of the network.
    sections
        Sections in a step; 0 makes them an eighth of all.
    piece_voxels
        Voxels evaluated at a time with their gradient.
    seed
        Of the order of the sections.
    fit_views
        Fit a gain and an offset for each view.
    on_pass
        Called after each pass to the projections with the number of passes made and the trainer; may finish it.
    """

    network: Field
    stages: list[Stage]
    weights: Weights
    rate: float
    sections: int = 0
    piece_voxels: int = 2**40
    seed: int = 1
    fit_views: bool = True
    on_pass: Callable[[int, Trainer], dict[str, float]] | None = None
    name: str = "fitting the network"
    networks: dict[str, nn.Module] = field(init=False)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        device = self.stages[0].data.projector.device
        self.network.to(device)
        self.views = ViewScale(self.stages[0].data.series.views).to(device)
        self.networks = {"field": self.network, "views": self.views}
        groups = [
            {"params": list(self.network.parameters()), "lr": self.rate},
            {"params": list(self.views.parameters()), "lr": 2e-3 if self.fit_views else 0.0},
        ]
        self.optimizers = {"fit": torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)}
        self.penalties = {
            id(stage.data): WedgePenalty(
                *stage.data.series.volume_shape[::2], _tilts(stage.data), device=device
            )
            for stage in self.stages
        }  # fmt: skip
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        #: In the steps of this run; those before it was resumed do not count.
        self.voxels_visited = 0

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.passes * self.batches(stage.data) for stage in self.stages)

    @property
    def passes(self) -> int:
        """Passes to the projections."""
        return sum(stage.passes for stage in self.stages if not stage.to_start)

    def batches(self, data: FitData) -> int:
        """Steps in a pass."""
        return math.ceil(data.sections / self.sections_of(data))

    def sections_of(self, data: FitData) -> int:
        """Sections in a step; an even number when they come in pairs."""
        wanted = self.sections or max(FEWEST_SECTIONS, math.ceil(data.sections / STEPS_PER_PASS))
        return min(data.sections, wanted + wanted % 2 if self.weights.pairs else wanted)

    def place(self, step: int) -> Place:
        """Where a step lies."""
        number = 0
        for stage in self.stages:
            batches = self.batches(stage.data)
            if step < stage.passes * batches:
                return Place(stage, number + step // batches, step % batches, step % batches == batches - 1)
            step -= stage.passes * batches
            number += stage.passes
        raise IndexError("step beyond the last stage")

    def drawn(self, place: Place) -> Tensor:
        """The y sections of a step, (sections,)."""
        if self._order[0] != place.number:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + place.number)
            self._order = place.number, scattered_order(place.stage.data.sections, generator, self.weights.pairs)
        size = self.sections_of(place.stage.data)
        return self._order[1][place.batch * size : (place.batch + 1) * size]

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """Descend once for some sections; memory that runs out halves the pieces."""
        start = time.monotonic()
        place = self.place(step)
        sections = self.drawn(place)
        self.network.finest = place.stage.data.binning
        voxels = len(sections) * math.prod(place.stage.data.series.volume_shape[::2])
        while True:
            values: dict[str, float] = {}
            try:
                trainer.update("fit", self._losses(place, sections, step / trainer.settings.steps, trainer, values))
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.piece_voxels < 1024:
                    raise
                self.piece_voxels = min(self.piece_voxels, voxels) // 2
                trainer.progress.warn("memory ran out; going on with smaller pieces.")
        self.voxels_visited += voxels
        values["mvoxels_per_second"] = voxels / 1e6 / max(time.monotonic() - start, 1e-9)
        if place.last and not place.stage.to_start and self.on_pass is not None:
            first = sum(stage.passes for stage in self.stages if stage.to_start)
            values.update(self.on_pass(place.number - first + 1, trainer))
        return values

    def _losses(
        self, place: Place, sections: Tensor, done: float, trainer: Trainer, values: dict[str, float]
    ) -> Iterator[Tensor]:
        """The loss of a step in the parts that are backpropagated one after the other."""
        z, y, x = place.stage.data.axes
        y = y[sections.to(y.device)]
        rows, columns = pieces(len(z), len(y), len(x), self.piece_voxels)
        if len(rows) * len(columns) == 1:
            with trainer.autocast():
                density = self.network(z, y, x)
            yield self._loss(density, place, sections, done, values)
            return
        density = self._evaluated(z, y, x, trainer).requires_grad_()
        yield self._loss(density, place, sections, done, values)
        gradient = density.grad
        assert gradient is not None
        for row in rows:
            for column in columns:
                with trainer.autocast():
                    piece = self.network(z[row], y[column], x)
                yield (piece * gradient[row, column]).sum()

    def _loss(self, density: Tensor, place: Place, sections: Tensor, done: float, values: dict[str, float]) -> Tensor:
        data = place.stage.data
        if place.stage.to_start:
            loss = (density - data.start_of(sections)).square().mean()
            values.update(loss=loss.item(), loss_start=loss.item())
            return loss
        target, weights = data.views_of(sections)
        residual = (self.views(data.projector.forward(density), data.sd) - target) / data.sd
        # A masked pixel has no weight, but a robust loss must not see its value either.
        fit = projection_loss(
            torch.where(weights > 0, residual, torch.zeros_like(residual)), self.weights.loss, weights
        )
        values["loss_projections"] = fit.item()
        loss = fit + self.views.prior() if self.fit_views else fit
        share = min(1.0, max(0.0, (done - PENALTY_START) / PENALTY_RISE))
        for name, weight, penalty in self._penalties(density, data):
            if share * weight > 0:
                value = penalty()
                values[name] = value.item()
                loss = loss + share * weight * value
        values["loss"] = loss.item()
        return loss

    def _penalties(self, density: Tensor, data: FitData) -> list[tuple[str, float, Callable[[], Tensor]]]:
        weights, wedge = self.weights, self.penalties[id(data)]
        return [
            ("wedge", weights.crowther if wedge.active else 0.0, lambda: wedge(density)),
            ("sparsity", weights.sparsity, lambda: sparsity(density)),
            ("variation", weights.total_variation, lambda: total_variation(density, pairs=True)),
        ]

    def density(self, trainer: Trainer, data: FitData, sections: Tensor) -> Tensor:
        """The density of some sections, (z, sections, x), at the binning of ``data``."""
        z, y, x = data.axes
        self.network.finest = data.binning
        return self._evaluated(z, y[sections.to(y.device)], x, trainer)

    @torch.no_grad()
    def _evaluated(self, z: Tensor, y: Tensor, x: Tensor, trainer: Trainer) -> Tensor:
        """The density (z, y, x) without its gradient, piece by piece."""
        result = torch.empty((len(z), len(y), len(x)), device=z.device)
        rows, columns = pieces(len(z), len(y), len(x), self.piece_voxels)
        with trainer.autocast():
            for row in rows:
                for column in columns:
                    result[row, column] = self.network(z[row], y[column], x)
        return result


def scattered_order(sections: int, generator: torch.Generator, pairs: bool) -> Tensor:
    """All sections in random order, each once; in pairs of neighbours, 2 i and 2 i + 1 of the result, when asked.

    Which neighbours belong together changes from pass to pass; what is left over at an end comes last.
    """
    if not pairs:
        return torch.randperm(sections, generator=generator)
    first = int(torch.randint(2, (), generator=generator))
    count = (sections - first) // 2
    lower = first + 2 * torch.randperm(count, generator=generator)
    order = torch.stack([lower, lower + 1], dim=1).reshape(-1)
    rest = sorted(set(range(sections)) - set(order.tolist()))
    return torch.cat([order, torch.tensor(rest, dtype=order.dtype)])


def pieces(depth: int, sections: int, width: int, voxels: int) -> tuple[list[slice], list[slice]]:
    """Cut (z, y, x) along z and y into pieces of at most ``voxels`` voxels, or of one line."""
    columns = max(1, min(sections, voxels // (depth * width)))
    rows = max(1, min(depth, voxels // (columns * width)))
    return _slices(depth, rows), _slices(sections, columns)


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _tilts(data: FitData) -> np.ndarray:
    return np.degrees(data.series.geometry().angles_radians)

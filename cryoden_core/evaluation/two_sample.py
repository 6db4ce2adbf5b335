"""Can a classifier tell two sets of blocks apart?  The classifier two-sample test (Lopez-Paz and Oquab 2017).

Two classifiers are trained on one half of the volumes and tested on the other, then the other way round: a linear one
on features (log spectra by shell and direction, autocorrelation, moments at three scales), and a small convolutional
network on the voxels.  Both sets have the same number of blocks, so blind guessing is right in half of the cases.  The
accuracy is that on held-out blocks that do not overlap, with its exact binomial interval; the more blocks, the smaller
a difference is found, so accuracies compare only at the same number of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import nn

from ..nets.critics import NoiseCritic3d
from ..progress import Progress
from ..training import Trainer, TrainingSettings
from .blocks import Blocks

#: Fewer held-out blocks than this in either half say nothing.
FEWEST = 4
#: Shrinkage of the covariance of the features; there may be more of them than blocks.
_SHRINKAGE = 0.2
_BATCH = 16
#: Indices to train on, their labels (1 or -1), indices to test on -> scores.
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out blocks that were told apart; ``low`` to ``high`` is the 95 % interval."""

    right: int
    tested: int

    @property
    def value(self) -> float:
        """0.5 when the sets cannot be told apart."""
        return self.right / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson (1934)."""
        found = stats.binomtest(self.right, self.tested).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def enough(blocks: Blocks) -> bool:
    """Whether both halves have blocks to test on."""
    return all(np.count_nonzero(blocks.apart & (blocks.fold == fold)) >= FEWEST for fold in (0, 1))


def linear_test(first: Blocks, second: Blocks, seed: int = 0) -> Accuracy:
    """Accuracy of a linear discriminant on features of the blocks."""
    first, second = _equally_many(first, second, seed)
    table = np.concatenate([blocks.measured.features() for blocks in (first, second)])
    return _cross_validate(first, second, lambda train, label, test: _discriminate(table[train], label, table[test]))


def network_test(
    first: Blocks, second: Blocks, steps: int, seed: int = 0, device: str = "cpu", progress: Progress | None = None
) -> Accuracy:
    """Accuracy of a convolutional network with a second head on the spectrum, trained for ``steps`` steps."""
    first, second = _equally_many(first, second, seed)
    data = np.concatenate([first.data, second.data])

    def predict(train: np.ndarray, label: np.ndarray, test: np.ndarray) -> np.ndarray:
        task = _Telling(data[train], label, seed, torch.device(device))
        settings = TrainingSettings(steps, ema_decay=0.95)
        trainer = Trainer(task, settings, torch.device(device), seed, progress or Progress(quiet=True))
        trainer.fit()
        trainer.use_averages()
        return task.predict(data[test])

    return _cross_validate(first, second, predict)


def _equally_many(first: Blocks, second: Blocks, seed: int) -> tuple[Blocks, Blocks]:
    """As many blocks of the one as of the other in each half, of those to train on and of those to test on."""
    random = np.random.default_rng(seed)
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for fold in (0, 1):
        for apart in (False, True):
            members = [np.flatnonzero((b.fold == fold) & (b.apart == apart)) for b in (first, second)]
            count = min(len(indices) for indices in members)
            for kept, indices in zip(chosen, members, strict=True):
                kept.append(random.permutation(indices)[:count])
    return first.where(np.concatenate(chosen[0])), second.where(np.concatenate(chosen[1]))


def _cross_validate(first: Blocks, second: Blocks, predict: Predictor) -> Accuracy:
    """Learn on one half and test on the other, both ways; ``predict(train, label, test)`` scores above 0 for first."""
    label = np.concatenate([np.ones(len(first)), -np.ones(len(second))])
    fold = np.concatenate([first.fold, second.fold])
    apart = np.concatenate([first.apart, second.apart])
    right = tested = 0
    for held_out in (0, 1):
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero((fold == held_out) & apart)
        right += int(np.count_nonzero(predict(train, label[train], test) * label[test] > 0))
        tested += len(test)
    return Accuracy(right, tested)


def _discriminate(train: np.ndarray, label: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fisher's discriminant with a covariance shrunk towards its diagonal (Ledoit and Wolf 2004, fixed share)."""
    means = [train[label == sign].mean(axis=0) for sign in (1, -1)]
    within = train - np.where(label[:, None] > 0, means[0], means[1])
    sd = np.maximum(within.std(axis=0), 1e-9)
    correlation = (within / sd).T @ (within / sd) / len(within)
    shrunk = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(sd))
    direction = np.linalg.solve(shrunk, (means[0] - means[1]) / sd)
    return ((test - (means[0] + means[1]) / 2) / sd) @ direction


class _Telling:
    """Training of the network: the logistic loss on batches that hold as many blocks of either set."""

    name = "learning to tell the sets apart"

    def __init__(self, data: np.ndarray, label: np.ndarray, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.device = device
        network = NoiseCritic3d(features=12, shells=min(data.shape[1:]) // 2).to(device)
        self.networks: dict[str, nn.Module] = {"network": network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
        }
        self._sets = [torch.from_numpy(data[label > 0]), torch.from_numpy(data[label < 0])]

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One batch, mirrored along y or turned about it by 180 degrees, which leaves every missing wedge in place."""
        drawn = [members[torch.randint(len(members), (_BATCH // 2,), generator=trainer.generator)]
                 for members in self._sets]  # fmt: skip
        batch = torch.cat(drawn)[:, None].to(self.device)
        mirrored, turned = torch.randint(2, (2,), generator=trainer.generator).tolist()
        batch = batch.flip([3] * mirrored + [2, 4] * turned)
        scores = self.networks["network"](batch)
        sign = torch.cat([torch.ones(_BATCH // 2), -torch.ones(_BATCH // 2)]).to(self.device)
        loss = nn.functional.softplus(-sign * scores).mean()
        trainer.update("network", loss)
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def predict(self, data: np.ndarray) -> np.ndarray:
        """Above 0 for the first set."""
        blocks = torch.from_numpy(data)[:, None]
        return torch.cat([self.networks["network"](part.to(self.device)).cpu() for part in blocks.split(32)]).numpy()

"""Learn from tomograms alone what their missing wedge should hold.

``consistent`` (the default): a crop is filled by the network as it stands, turned by a rotation of the grid, and loses
its missing wedge a second time.  Of what was cut away, the part that the views had measured before the turn is known,
and the network is asked for it: the training signal of IsoNet (Liu et al. 2022, Nat. Commun. 13, 6482), with a loss on
measured coefficients only as in DeepDeWedge (Wiedemann and Heckel 2024, Nat. Commun. 15, 8255).  The noise of
different coefficients being independent, the target's noise teaches nothing: the network tends to the mean of what can
be known.  A critic can be added that compares, in the manner of the DUAL paper (Zeng et al. 2024), filled crops with
crops whose x and z are exchanged, both cut to what the exchanged views measure.  On phantoms a weight of 0.05 gained
a little where there was hardly any noise and lost more where there was some, since it asks for noise too: it is off.

``cycle`` is the paper's literal reading: one network translates to the exchanged domain and, with x and z exchanged,
back; the cycle must close, and a critic with two heads judges the translation.  What the exchanged domain lacks the
network must then delete and bring back, which it can only do by hiding it.  On a phantom it filled the wedge with
less of the truth than was there before: it is kept for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..fourier import edge_window
from ..nets.unet3d import UNet3d
from ..training import Trainer
from .crops import CropSource
from .losses import critic_loss, generator_loss, reconstruction
from .missing_wedge import EXCHANGED, CubeWedge, TiltRange, Turn, turns
from .networks import TwoHeadedCritic

#: A turn that leaves fewer known coefficients than this share in the cut wedge teaches too little.
SMALLEST_LESSON = 0.05
#: Weight of the critic's spectral head, as in the training of DUAL.
SPECTRAL_WEIGHT = 0.5
#: Where the reward for closing the cycle ends.  With the printed loss, which has no floor, doing nothing is rewarded
#: without limit, and the network was seen to do just that.
CYCLE_FLOOR = 0.1


@dataclass(frozen=True)
class WedgePreset:
    """One way to learn the missing wedge.

    ``features`` and ``depth`` are the U-Net's, ``edge`` and ``batch`` the crops'.  More steps are not better on noisy
    data, whose noise is learned too: what ``default`` filled into a phantom (signal-to-noise ratio 0.1) correlated with
    the truth by 0.52 after 100 steps and by 0.44 after 800, ``fast`` by 0.50.
    """

    features: int
    depth: int
    edge: int
    batch: int
    steps: int
    rate: float = 1e-3


PRESETS = {
    "fast": WedgePreset(features=12, depth=3, edge=48, batch=1, steps=200),
    "default": WedgePreset(features=16, depth=3, edge=64, batch=2, steps=200),
}


class Filler(nn.Module):
    """What fills the wedge: a U-Net on volumes (batch, 1, z, y, x) that is zero at the start.

    A ``translating`` one adds its result to what it is given.  Where only the missing part of the result is used, that
    would let through what interpolation has left in the wedge of a tomogram, which is mostly noise.
    """

    def __init__(self, features: int, depth: int, translating: bool = False) -> None:
        super().__init__()
        self.architecture = {"features": features, "depth": depth, "translating": translating}
        self.network = UNet3d(1, 1, features, depth)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Sizes must be multiples of :attr:`multiple`."""
        filled = self.network(volume)
        return volume + filled if self.architecture["translating"] else filled

    @property
    def multiple(self) -> int:
        """The U-Net's stride."""
        return self.network.multiple


class WedgeTask:
    """What the two modes share: networks, crops, and the critic's turn."""

    name = "learning the missing wedge"
    translating = False

    def __init__(
        self, source: CropSource, tilt_range: TiltRange, preset: WedgePreset, adversary: float, device: torch.device,
        seed: int,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.source, self.preset, self.adversary, self.device = source, preset, adversary, device
        self.filler = Filler(preset.features, preset.depth, self.translating)
        self.filler.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"filler": self.filler}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "filler": torch.optim.AdamW(self.filler.parameters(), preset.rate, betas=(0.9, 0.99), weight_decay=1e-4)
        }
        smallest = min(min(volume.shape) for volume in source.volumes)
        self.edge = min(preset.edge, smallest // self.filler.multiple * self.filler.multiple)
        self.wedge = CubeWedge(tilt_range.measured(self.edge, self.edge), device)
        #: Crops are not periodic: their faces are faded out before a wedge is cut, and do not count in the loss.
        self.taper = torch.from_numpy(edge_window((self.edge,) * 3, 0.1)).to(device)
        if adversary:
            self._add_critic()

    def _add_critic(self) -> None:
        # The critic sees the crop's middle, an edge of a power of two.
        self.critic_edge = 32 if self.edge >= 32 else 16
        self.critic = TwoHeadedCritic(self.critic_edge, features=2 * self.preset.features).to(self.device)
        self.networks["critic"] = self.critic
        self.optimizers["critic"] = torch.optim.AdamW(self.critic.parameters(), 2e-4, betas=(0.5, 0.999))
        generator = torch.Generator().manual_seed(0)
        self.critic.spectral.measure(self._middle(EXCHANGED.apply(self._draw(generator))) for _ in range(16))

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One step; each mode has its own."""
        raise NotImplementedError

    def _draw(self, generator: torch.Generator) -> torch.Tensor:
        return self.source.draw(self.preset.batch, self.edge, generator).to(self.device)

    def _fill(self, cubes: torch.Tensor, trainer: Trainer) -> torch.Tensor:
        with trainer.autocast():
            return self.filler(cubes.contiguous(memory_format=torch.channels_last_3d)).float()

    def _middle(self, cubes: torch.Tensor) -> torch.Tensor:
        first = (self.edge - self.critic_edge) // 2
        inside = slice(first, first + self.critic_edge)
        return cubes[..., inside, inside, inside]

    def _judge(self, cubes: torch.Tensor, trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
        with trainer.autocast():
            return self.critic(self._middle(cubes))

    def _train_critic(self, fake: torch.Tensor, trainer: Trainer) -> dict[str, float]:
        """One step of the critic; real are crops with x and z exchanged."""
        real = self._judge(EXCHANGED.apply(self._draw(trainer.generator)), trainer)
        made = self._judge(fake.detach(), trainer)
        spatial, spectral = (critic_loss("hinge", a, b) for a, b in zip(real, made, strict=True))
        trainer.update("critic", spatial + SPECTRAL_WEIGHT * spectral)
        return {"critic_spatial": spatial.item(), "critic_spectral": spectral.item()}

    def _deception(self, fake: torch.Tensor, trainer: Trainer) -> torch.Tensor:
        """How little the critic believes the filled crops."""
        spatial, spectral = (generator_loss("hinge", scores) for scores in self._judge(fake, trainer))
        return spatial + SPECTRAL_WEIGHT * spectral


class ConsistentTask(WedgeTask):
    """Mode ``consistent``; see the module's text."""

    def __init__(
        self, source: CropSource, tilt_range: TiltRange, preset: WedgePreset, adversary: float, device: torch.device,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__(source, tilt_range, preset, adversary, device, seed)
        self.window = torch.from_numpy(edge_window((self.edge,) * 3, 0.3)).to(device)
        self.exchanged_wedge = CubeWedge(EXCHANGED.measured(self.edge, tilt_range)[:, 0], device)
        missing = ~self.wedge.measured
        self.lessons: list[tuple[Turn, torch.Tensor]] = []
        for turn in turns():
            known = torch.from_numpy(turn.measured(self.edge, tilt_range)).to(device) & missing
            if known.float().mean() > SMALLEST_LESSON:
                self.lessons.append((turn, known))

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """Fill, turn, cut again, and ask for what is known; 1 is the loss of a wedge left empty."""
        crops = self._draw(trainer.generator)
        with torch.set_grad_enabled(self.adversary > 0):
            filled = self.wedge.merge(crops, self.taper * self._fill(crops, trainer))
        values: dict[str, float] = {}
        deception = torch.zeros((), device=self.device)
        if self.adversary:
            fake = self.exchanged_wedge.cut(filled)
            values = self._train_critic(fake, trainer)
            deception = self._deception(fake, trainer)
        recovery = self._recovery(filled.detach(), trainer)
        loss = recovery + self.adversary * deception
        trainer.update("filler", loss)
        return {"loss": recovery.item(), **values}

    def _recovery(self, whole: torch.Tensor, trainer: Trainer) -> torch.Tensor:
        """Error of what the filler puts into a second wedge over the power that was known there."""
        indices = torch.randint(len(self.lessons), (len(whole),), generator=trainer.generator).tolist()
        turned = torch.stack([self.lessons[i][0].apply(cube) for i, cube in zip(indices, whole, strict=True)])
        known = torch.stack([self.lessons[i][1] for i in indices])[:, None]
        answer = self._fill(self.wedge.cut(self.taper * turned), trainer)
        return self._power(answer - turned, known) / self._power(turned, known).clamp_min(1e-12)

    def _power(self, cubes: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return (torch.fft.rfftn(self.window * cubes, dim=(-3, -2, -1)).abs().square() * known).mean()


class CycleTask(WedgeTask):
    """Mode ``cycle``; see the module's text.  The cycle from the other domain is the same one, by symmetry."""

    translating = True

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """There and back again."""
        crops = self._draw(trainer.generator)
        there = self._fill(crops, trainer)
        values = self._train_critic(there, trainer)
        back = EXCHANGED.apply(self._fill(EXCHANGED.apply(there), trainer))
        cycle = reconstruction(crops, back, CYCLE_FLOOR)
        deception = self._deception(there, trainer)
        trainer.update("filler", cycle.loss + self.adversary * deception)
        return {"loss": cycle.loss.item(), "cycle_correlation": cycle.correlation.item(), **values}

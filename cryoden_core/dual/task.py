"""One training step of DUAL: both cycles, the critics, the generators (Zeng et al. 2024; the order of its Figure 1).

Denoising branch:  v_f = Dn(t),          noisy cycle  t' = Gs(v_f + Gn(E(t))).
Simulation branch: t_f = Gs(v + P Gn(z)), clean cycle  v' = Dn(t_f).

Unless the preset is ``paper``, the simulator begins with measured filters (see :mod:`cryoden_core.dual.transfer`), and
the clean cycle is v' = Dn(g H v + N P Gn(z)): the denoiser learns from the measured mixture and not from what the
simulator's network makes of it, to which the cycle gives no gradient.  So the simulator has no reason to hide the clean
volume in what it makes, and the denoiser cannot learn the faults of a simulator that is still learning.  The strength g
of the signal differs from crop to crop, since what was measured is a mean over tomograms and has an error.  A term of
its own asks for what the tomograms show best, frequency by frequency: nearly all of the power of a density is coarser.
"""

from __future__ import annotations

import torch
from torch import nn

from ..device import is_out_of_memory
from ..fourier import missing_wedge_mask
from ..training import Trainer
from . import losses
from .crops import CropSource, batches
from .model import PARTS
from .networks import Architecture, Simulator, TwoHeadedCritic, build_networks, code_shape, unstructured_noise
from .presets import Preset
from .transfer import Curve, measure_transfer

#: Crops of the real domain from which the spectral heads take the mean and spread of each frequency.
MEASURED_BATCHES = 24

Scores = tuple[torch.Tensor, torch.Tensor]


class DualTask:
    """The training task of DUAL's six networks.

    Parameters
    ----------
    noisy, clean
        The two domains.
    preset
        Sizes, weights and schedule.
    tilt_range
        Of the noisy domain, degrees.
    device, seed
        Where, and from which random weights.
    """

    name = "training DUAL"
    #: The even and the odd halves of the noisy domain, where they are known: sources that draw alike.
    halves: tuple[CropSource, CropSource] | None = None

    def __init__(
        self, noisy: CropSource, clean: CropSource, preset: Preset, tilt_range: tuple[float, float],
        device: torch.device, seed: int,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.noisy, self.clean, self.preset, self.tilt_range = noisy, clean, preset, tilt_range
        self.device, self.seed, self.batch_divisor = device, seed, 1
        self.architecture = Architecture(
            preset.features,
            preset.depth,
            preset.norm,
            preset.code,
            preset.code_channels,
            preset.patch,
            preset.transfer,
        )
        parts = build_networks(self.architecture)
        self.denoiser, simulator, self.noise_decoder, self.encoder = (parts[name] for name in PARTS)
        assert isinstance(simulator, Simulator)
        self.simulator = simulator
        self.critics = {
            name: TwoHeadedCritic(preset.patch, preset.critic_features, preset.mean_free, preset.bounded_critics)
            for name in ("critic_noisy", "critic_clean")
        }
        for network in (*parts.values(), *self.critics.values()):
            network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {**parts, **self.critics}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generators": self._optimizer(list(parts.values()), preset.rate),
            "critics": self._optimizer(list(self.critics.values()), preset.critic_rate),
        }
        self.measure_spectra(preset.patch)

    def measure_spectra(self, edge: int) -> None:
        """Let the spectral heads measure the real domains' spectra for crops of an edge; the same for every process."""
        for source, critic in ((self.noisy, "critic_noisy"), (self.clean, "critic_clean")):
            drawn = batches(source, MEASURED_BATCHES, 8, edge, self.seed)
            self.critics[critic].spectral.measure(crops.to(self.device) for crops in drawn)

    def measure_transfer(self, signal_share: Curve, clean_has_wedge: bool = False) -> None:
        """Give the simulator its filters (see :func:`transfer.measure_transfer`); the same for every process."""
        filters = measure_transfer(
            self.noisy, self.clean, signal_share, self.tilt_range, self.seed, clean_has_wedge
        )  # fmt: skip
        assert self.simulator.transfer is not None
        self.simulator.transfer.set(*filters)

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One step of the critics, then one of the generators; the batch is halved once when memory runs out."""
        try:
            return self._step(step, trainer)
        except Exception as error:
            # Of several processes all must make the same steps.
            if not is_out_of_memory(error) or self.batch_divisor > 1 or trainer.world > 1:
                raise
        self.batch_divisor = 2
        trainer.progress.warn("memory ran out; going on with batches of half the size.")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._step(step, trainer)

    def _step(self, step: int, trainer: Trainer) -> dict[str, float]:
        noisy, clean, code = self._draw(step, trainer)
        with trainer.autocast():
            denoised = self.denoiser(noisy)
            drawn = unstructured_noise(self.noise_decoder, code, self.architecture, trainer.generator)
            signal, noise = self.simulator.parts(clean, drawn)
            simulated = self.simulator.refine(signal + noise)
        values = self._train_critics(step, trainer, (noisy, simulated), (clean, denoised))
        learned_from = self._varied(signal.detach(), trainer) + noise.detach() if self.preset.transfer else simulated
        loss, parts = self._generators_loss(step, trainer, noisy, clean, denoised, simulated, learned_from)
        trainer.update("generators", loss)
        return {"loss": loss.item(), **values, **{name: float(value) for name, value in parts.items()}}

    def _varied(self, signal: torch.Tensor, trainer: Trainer) -> torch.Tensor:
        """Crops with the signal stronger or weaker than was measured, each by a factor of its own."""
        even = 2 * torch.rand((len(signal), 1, 1, 1, 1), generator=trainer.generator) - 1
        return signal * (self.preset.signal_spread * even).exp().to(signal.device)

    def _draw(self, step: int, trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        preset, generator = self.preset, trainer.generator
        edge, count = preset.patch, preset.batch
        if preset.large_share and step >= (1 - preset.large_share) * trainer.settings.steps:
            edge, count = preset.large_patch, preset.large_batch
            if step - 1 < (1 - preset.large_share) * trainer.settings.steps:
                self.measure_spectra(edge)
        count = max(2, count // self.batch_divisor)
        noisy, clean = (source.draw(count, edge, generator) for source in (self.noisy, self.clean))
        code = torch.randn(code_shape(self.architecture, count, (edge, edge, edge)), generator=generator)
        noisy, clean = (crops.to(self.device, memory_format=torch.channels_last_3d) for crops in (noisy, clean))
        return noisy, clean, code.to(self.device)

    # ---- critics -----------------------------------------------------------------------------------------------------

    def _train_critics(
        self, step: int, trainer: Trainer, noisy: tuple[torch.Tensor, torch.Tensor],
        clean: tuple[torch.Tensor, torch.Tensor],
    ) -> dict[str, float]:  # fmt: skip
        preset, loss, values = self.preset, torch.zeros((), device=self.device), {}
        self._freeze_critics(False)
        for name, (real, fake) in (("critic_noisy", noisy), ("critic_clean", clean)):
            with trainer.autocast():
                of_real, of_fake = (self.critics[name](volumes) for volumes in (real, fake.detach()))
            for head, weight, real_scores, fake_scores in zip(
                ("spatial", "spectral"), (1.0, preset.spectral_weight), of_real, of_fake, strict=True
            ):
                part = losses.critic_loss(preset.gan, real_scores, fake_scores)
                loss = loss + weight * part
                values[f"{name}_{head}_loss"] = part.item()
                values[f"{name}_{head}_right"] = _share_right(preset.gan, real_scores, fake_scores)
            if preset.r1 and step % preset.r1_every == 0:
                penalty = self._gradient_penalty(name, real)
                loss = loss + preset.r1 * preset.r1_every * penalty
                values[f"{name}_gradient"] = penalty.item()
        trainer.update("critics", loss)
        self._freeze_critics(True)
        return values

    def _gradient_penalty(self, critic: str, real: torch.Tensor) -> torch.Tensor:
        """R1 on the spatial head, in float32."""
        real = real.detach().requires_grad_(True)
        return losses.gradient_at_real(self.critics[critic].spatial(real), real)

    def _freeze_critics(self, frozen: bool) -> None:
        for critic in self.critics.values():
            critic.requires_grad_(not frozen)

    # ---- generators --------------------------------------------------------------------------------------------------

    def _generators_loss(
        self, step: int, trainer: Trainer, noisy: torch.Tensor, clean: torch.Tensor, denoised: torch.Tensor,
        simulated: torch.Tensor, learned_from: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """The loss of Dn, Gs, Gn and E, and the terms to log."""
        preset, done = self.preset, step / trainer.settings.steps
        with trainer.autocast():
            code = self.encoder(noisy)
            noise = self.noise_decoder(code)
            found = denoised if preset.cycle_into_denoiser else denoised.detach()
            noisy_again = self.simulator(self._shaken(found, trainer), noise)
            clean_again = self.denoiser(self._shaken(learned_from, trainer))
            scores: dict[str, Scores] = {
                "noisy": self.critics["critic_noisy"](simulated),
                "clean": self.critics["critic_clean"](denoised),
            }
        noisy_cycle = losses.reconstruction(noisy, noisy_again, preset.floor)
        clean_cycle = losses.reconstruction(clean, clean_again, preset.floor)
        divergence = losses.code_divergence(code, preset.printed_divergence)
        loss = preset.reconstruction * (noisy_cycle.loss + clean_cycle.loss) + preset.divergence * divergence
        parts = {
            "noisy_cycle_loss": noisy_cycle.loss, "clean_cycle_loss": clean_cycle.loss,
            "noisy_cycle_error": noisy_cycle.square, "clean_cycle_error": clean_cycle.square,
            "noisy_cycle_correlation": noisy_cycle.correlation, "clean_cycle_correlation": clean_cycle.correlation,
            "divergence": divergence, "noise_sd": noise.float().std(),
            "simulated_sd": simulated.float().std(), "denoised_sd": denoised.float().std(),
        }  # fmt: skip
        if self.simulator.transfer is not None:
            seen, seen_again = (self.simulator.transfer.above_noise(volumes) for volumes in (clean, clean_again))
            parts["clean_detail_correlation"] = losses.pearson(seen, seen_again)
            loss = loss + preset.detail * losses.unlikeness(parts["clean_detail_correlation"], preset.floor)
        for domain, heads in scores.items():
            for head, weight, score in zip(("spatial", "spectral"), (1.0, preset.spectral_weight), heads, strict=True):
                part = losses.generator_loss(preset.gan, score)
                loss = loss + weight * part * (preset.adversarial if domain == "noisy" else preset.denoiser_adversarial)
                parts[f"generator_{domain}_{head}_loss"] = part
        extra = self._safeguards(done, trainer, noisy, clean, noise, simulated)
        for name, (weight, part) in extra.items():
            loss = loss + weight * part
            parts[name] = part
        return loss, {name: part.detach() for name, part in parts.items()}

    def _safeguards(
        self, done: float, trainer: Trainer, noisy: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor,
        simulated: torch.Tensor,
    ) -> dict[str, tuple[float, torch.Tensor]]:  # fmt: skip
        """The terms that the paper does not have, as name to weight and value."""
        preset, terms = self.preset, {}
        if self.simulator.transfer is not None:
            terms["signal_mismatch"] = (preset.shown, (self.simulator.transfer.shown(simulated, clean) - 1).square())
        if preset.moments:
            terms["moment_mismatch"] = (preset.moments, losses.moment_mismatch(simulated, noisy))
        if preset.spectrum:
            spectra = self.critics["critic_noisy"].spectral.standardised(simulated)
            terms["spectral_mismatch"] = (preset.spectrum, losses.spectral_mismatch(spectra))
        if preset.decorrelation:
            leak = losses.structure_in_noise(noise, noisy)
            terms["structure_in_noise"] = (preset.decorrelation, leak.square())
        if preset.identity and done < 0.1:
            with trainer.autocast():
                same = self.denoiser(clean)
            terms["identity"] = (preset.identity, (same.float() - clean).square().mean())
        if self.halves is not None:
            terms["half_disagreement"] = (preset.halves, self._half_disagreement(trainer, self.halves))
        return terms

    def _half_disagreement(self, trainer: Trainer, halves: tuple[CropSource, CropSource]) -> torch.Tensor:
        """How badly the denoiser tells one half from the other, on crops of one place; which is which is drawn."""
        count, edge = max(2, self.preset.batch // self.batch_divisor), self.preset.patch
        seed = int(torch.randint(2**31, (), generator=trainer.generator))
        sources = halves if seed % 2 else halves[::-1]
        one, other = (
            source.draw(count, edge, torch.Generator().manual_seed(seed)).to(self.device) for source in sources
        )
        with trainer.autocast():
            denoised = self.denoiser(one.contiguous(memory_format=torch.channels_last_3d))
        return losses.half_disagreement(denoised, other, self._measured(other))

    def _shaken(self, volumes: torch.Tensor, trainer: Trainer) -> torch.Tensor:
        """A little noise on what a cycle goes through, against messages hidden in it."""
        if not self.preset.jitter:
            return volumes
        noise = torch.randn(volumes.shape, generator=trainer.generator)
        return volumes + self.preset.jitter * noise.to(volumes.device, volumes.dtype)

    def _measured(self, volumes: torch.Tensor) -> torch.Tensor:
        """Mask of the frequencies that the noisy domain's views measure, for crops of this size."""
        mask = missing_wedge_mask(tuple(volumes.shape[-3:]), *self.tilt_range)
        return torch.from_numpy(mask).to(volumes.device)

    def _optimizer(self, networks: list[nn.Module], rate: float) -> torch.optim.Optimizer:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return torch.optim.AdamW(parameters, rate, betas=(self.preset.beta, 0.999), eps=1e-8, weight_decay=1e-6)


def _share_right(gan: str, real: torch.Tensor, fake: torch.Tensor) -> float:
    """Share of the scores that tell real from fake."""
    middle = 0.5 if gan == "ls" else 0.0
    return 0.5 * float((real > middle).float().mean() + (fake < middle).float().mean())

"""A trained DUAL model: denoiser, simulator, noise decoder and encoder, and what they were trained on, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..jobs import JobError
from ..models import load_model, save_model
from ..tiling import Shape
from .networks import Architecture, build_networks, draw_noise

SYSTEM = "dual"
PARTS = ("denoiser", "simulator", "noise_decoder", "encoder")


@dataclass
class DualModel:
    """The four networks of DUAL that are applied; the critics stay behind.

    All of them take and give standardised volumes (batch, 1, z, y, x) of bright density at ``voxel_size`` angstrom (see
    :func:`cryoden_core.dual.domains.open_volume_for`), soft-clipped as in training; edges are multiples of
    :attr:`multiple`.  ``about`` is the metadata: ``architecture``, ``contrast`` of both domains (dark or bright),
    ``preset``, ``trained_on``, ``statistics`` of both domains, ``tilt_range`` in degrees.
    """

    denoiser: nn.Module
    simulator: nn.Module
    noise_decoder: nn.Module
    encoder: nn.Module
    architecture: Architecture
    voxel_size: float
    about: dict[str, Any]

    @classmethod
    def new(cls, architecture: Architecture, voxel_size: float, about: dict[str, Any] | None = None) -> DualModel:
        """A model with random weights (of torch's own generator)."""
        given = {"contrast": {"noisy": "bright", "clean": "bright"}, "tilt_range": [-60.0, 60.0], **(about or {})}
        return cls(**build_networks(architecture), architecture=architecture, voxel_size=voxel_size, about=given)

    @classmethod
    def load(cls, path: str, device: torch.device | str = "cpu") -> DualModel:
        """Read a model, ready to be applied.

        Raises
        ------
        JobError
            The file is missing, is no model of DUAL, or does not fit this version's networks.
        """
        weights, about = load_model(path, SYSTEM)
        try:
            model = cls.new(Architecture(**about["architecture"]), float(about["voxel_size"]), about)
            for part in PARTS:
                prefix = part + "."
                own = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
                getattr(model, part).load_state_dict(own)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise JobError(
                f"the weights of {path} do not fit this version's networks (it was written by version "
                f"{about.get('core_version', 'unknown')}); train a new model."
            ) from error
        return model.to(device)

    def to(self, device: torch.device | str) -> DualModel:
        """Move the networks to a device, in the memory layout that is fastest for convolutions, for application."""
        for part in PARTS:
            network = getattr(self, part)
            network.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)
        return self

    def save(self, path: str) -> None:
        """Write the model as one safetensors file, whole or not at all."""
        weights = {
            f"{part}.{name}": value for part in PARTS for name, value in getattr(self, part).state_dict().items()
        }
        about = {
            **self.about, "system": SYSTEM, "architecture": self.architecture.to_dict(), "voxel_size": self.voxel_size,
        }  # fmt: skip
        save_model(path, weights, about)

    @property
    def multiple(self) -> int:
        """Edges of what goes in must be multiples of this."""
        return max(2, 2**self.architecture.depth)

    @property
    def tilt_range(self) -> tuple[float, float]:
        """Of the tomograms trained on, degrees."""
        low, high = self.about["tilt_range"]
        return float(low), float(high)

    @property
    def receptive_radius(self) -> int:
        """Voxels around a voxel that can change its denoised or simulated value, in theory."""
        return int(self.denoiser.receptive_radius)  # type: ignore[arg-type]

    def draw_noise(self, shape: Shape, generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
        """One field of unstructured noise (z, y, x) for a whole volume, to be added before the simulator."""
        return draw_noise(self.noise_decoder, self.architecture, shape, generator, torch.device(device))

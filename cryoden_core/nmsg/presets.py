"""What the presets of NMSG stand for.

Standard library and Python 3.8 syntax only: the Scipion plugin reads the numbers of steps for its estimate of time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One way to train and apply NMSG's denoiser.

    ``alpha`` is the strength of the added noise in the recorrupted pair (y + alpha n, y - n / alpha); ``flips`` the
    number of mirrored copies that are averaged when the network is applied (1, 2, 4 or 8).
    """

    features: int
    depth: int
    steps: int
    tile: int
    batch: int
    rate: float
    flips: int
    alpha: float = 0.8
    guidance_weight: float = 0.02
    sparsity_weight: float = 0.01
    base_kernel: int = 3


#: ``paper`` is not in this table: its network, loss and training are those of :mod:`cryoden_core.nmsg.paper`.
PRESETS = {
    "fast": Preset(features=16, depth=3, steps=120, tile=64, batch=1, rate=1e-3, flips=2),
    "default": Preset(features=16, depth=3, steps=400, tile=64, batch=1, rate=1e-3, flips=4),
    "best": Preset(features=24, depth=3, steps=2000, tile=64, batch=1, rate=1e-3, flips=8),
}

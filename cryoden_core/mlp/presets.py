"""What the presets of the reconstruction by a coordinate network stand for.

Standard library and Python 3.8 syntax only: the Scipion plugin reads the numbers of passes for its estimate of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Preset:
    """One way to fit a network.

    Attributes
    ----------
    field, width, depth, first_frequency
        See :func:`cryoden_core.mlp.fields.make_field`.
    rate
        Learning rate.
    start, start_iterations, start_passes
        What the network is fitted to first, iterations when that is SIRT, and for how many passes.
    passes
        Times that every section is visited, all binnings together.
    sections
        In a step; 0 makes it an eighth of all.
    loss, crowther_weight
        See :mod:`cryoden_core.mlp.losses`.
    penalties
        Pairs of weights (sparsity, total variation), growing, among which views that are held out choose; the first
        is taken where none are.
    """

    field: str = "lattice"
    width: int = 32
    depth: int = 1
    first_frequency: float = 30.0
    rate: float = 1e-2
    start: str = "sirt"
    start_iterations: int = 20
    start_passes: int = 3
    passes: int = 60
    sections: int = 0
    loss: str = "l2"
    crowther_weight: float = 0.05
    penalties: Tuple[Tuple[float, float], ...] = ((1.0, 0.0), (1.0, 1.0))


PRESETS = {
    "fast": Preset(passes=20),
    "default": Preset(),
    "best": Preset(field="siren", width=128, depth=4, first_frequency=50.0, rate=1e-3, start_passes=10, sections=16),
    "paper": Preset(
        field="siren", width=256, depth=5, first_frequency=30.0, rate=1e-3, start="none", start_passes=0, passes=500,
        sections=16, loss="l1", crowther_weight=0.0, penalties=((0.0, 0.0),),
    ),
}  # fmt: skip

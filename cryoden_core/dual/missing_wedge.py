"""The missing wedge as an operator: cut it, fill it, and leave what was measured alone.

Which frequencies a tilt series about y measures depends on kx and kz only, so every operation here works on the (z, x)
sections of a volume one by one: results are exact for volumes of any size, and little memory is needed.  The merge is
that of the DUAL paper (Zeng et al. 2024, bioRxiv 2024.03.02.583135), u = M t + (1 - M) g in Fourier space; it is
computed as t plus the missing part of g - t, so that the measured part of t keeps its digits.

Nothing here is learned; see :mod:`cryoden_core.dual.wedge_training`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft

from ..fourier import is_measured, missing_wedge_mask
from ..tiling import Readable, shape_of

#: Bytes of (z, x) sections that are transformed at once.
SECTION_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TiltRange:
    """Angles of the first and last view, degrees; they need not be symmetric."""

    minimum: float = -60.0
    maximum: float = 60.0

    def measured(self, depth: int, width: int) -> np.ndarray:
        """Measured coefficients of the ``rfft2`` of (z, x) sections: bool (depth, width // 2 + 1)."""
        measured = missing_wedge_mask((depth, 1, width), self.minimum, self.maximum)[:, 0].copy()
        return _hermitian(measured, depth, width)


def _hermitian(measured: np.ndarray, depth: int, width: int) -> np.ndarray:
    """Where the half layout holds both k and -k (kx = 0 or at Nyquist) they count as measured together."""
    mirrored = -np.arange(depth) % depth
    for column in {0, width // 2} if width % 2 == 0 else {0}:
        measured[:, column] |= measured[mirrored, column]
    return measured


def sections(height: int, section_bytes: int) -> Iterator[slice]:
    """Ranges of y whose (z, x) sections, of ``section_bytes`` each, are transformed at once."""
    rows = max(1, SECTION_BYTES // section_bytes)
    for first in range(0, height, rows):
        yield slice(first, min(first + rows, height))


def missing_part(volume: np.ndarray, tilt_range: TiltRange) -> np.ndarray:
    """What the views did not measure of a volume (z, y, x), float32."""
    depth, _, width = volume.shape
    transform = fft.rfft2(np.asarray(volume, np.float32), axes=(0, 2))
    transform *= ~tilt_range.measured(depth, width)[:, None, :]
    return fft.irfft2(transform, s=(depth, width), axes=(0, 2))


def merge(
    measured: Readable,
    filled: Readable,
    output: np.ndarray,
    tilt_range: TiltRange,
    on_section: Callable[[int], None] | None = None,
) -> None:
    """Fill ``output`` with the measured part of one volume and the missing part of another.

    Parameters
    ----------
    measured, filled
        (z, y, x) on one grey scale; either may be ``output``.
    output
        (z, y, x), float32.
    tilt_range
        What was measured.
    on_section
        Called with the number of sections after each group of them.
    """
    depth, height, width = shape_of(measured)
    for rows in sections(height, 4 * depth * width):
        region = (slice(None), rows, slice(None))
        data = np.asarray(measured[region], np.float32)
        change = np.asarray(filled[region], np.float32) - data
        output[:, rows] = data + missing_part(change, tilt_range)
        if on_section:
            on_section(rows.stop - rows.start)


# ---- turned cubes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A rotation of the grid onto itself: output axis i is input axis ``axes[i]``, reversed where ``reversed[i]``."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, cube: torch.Tensor) -> torch.Tensor:
        """Turn a cube (..., z, y, x)."""
        first = cube.dim() - 3
        lead = tuple(range(first))
        return cube.permute(*lead, *(first + axis for axis in self.axes)).flip(
            [first + axis for axis in range(3) if self.reversed[axis]]
        )

    def measured(self, edge: int, tilt_range: TiltRange) -> np.ndarray:
        """Measured coefficients of a turned cube, in the layout of ``rfftn``: bool (edge, edge, edge // 2 + 1)."""
        out = np.meshgrid(np.fft.fftfreq(edge), np.fft.fftfreq(edge), np.fft.rfftfreq(edge), indexing="ij")
        before = list(out)
        for axis in range(3):
            before[self.axes[axis]] = -out[axis] if self.reversed[axis] else out[axis]
        return is_measured(before[0], before[2], tilt_range.minimum, tilt_range.maximum)


def turns() -> list[Turn]:
    """The 24 rotations of a cube; mirror images are left out, as they would change the hand of the molecules."""
    found = []
    for axes in itertools.permutations(range(3)):
        odd = np.linalg.det(np.eye(3)[list(axes)]) < 0
        for flips in itertools.product((False, True), repeat=3):
            if sum(flips) % 2 == odd:
                found.append(Turn(axes, flips))  # type: ignore[arg-type]
    return found


#: The paper's second domain: x and z exchanged, the tilt axis stays y (reversed, so that it is a rotation).
EXCHANGED = Turn((2, 1, 0), (False, True, False))


class CubeWedge:
    """The missing wedge on batches of cubes, differentiable, in float32.

    ``measured`` is bool (n, n // 2 + 1) as :meth:`TiltRange.measured` gives it.
    """

    def __init__(self, measured: np.ndarray, device: torch.device) -> None:
        self.edge = measured.shape[0]
        self.measured = torch.from_numpy(measured.copy()).to(device)[:, None, :]

    def missing(self, cubes: torch.Tensor) -> torch.Tensor:
        """What the views did not measure of cubes (batch, 1, n, n, n)."""
        transform = torch.fft.rfftn(cubes.float(), dim=(-3, -1)) * ~self.measured
        return torch.fft.irfftn(transform, s=(self.edge, self.edge), dim=(-3, -1))

    def cut(self, cubes: torch.Tensor) -> torch.Tensor:
        """What the views measured."""
        return cubes - self.missing(cubes)

    def merge(self, measured: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        """The measured part of one batch and the missing part of another."""
        return measured + self.missing(filled - measured)

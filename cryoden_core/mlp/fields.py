"""Coordinate networks: a density as a function of position.

Three kinds with one interface.  ``LatticeField`` interpolates features from regular lattices of several spacings and
turns them into density with a small network (the dense form of Mueller et al., *Instant neural graphics primitives*,
2022).  ``SirenField`` is a network of sines (Sitzmann et al., *Implicit neural representations with periodic activation
functions*, 2020), the network of Van Veen's study.  ``FourierField`` feeds fixed random sines into a network
(Tancik et al., *Fourier features*, 2020) and is the reference.

A field is evaluated on the product of three lists of coordinates, as every section of a volume is.  That makes the
first layer cheap and exact: a sine of a sum of phases follows from the sines and cosines of each axis, and an
interpolation is done axis by axis.  Coordinates are isotropic: centred positions over half of the longest edge.  The
first layer and its sines are in float32, since bfloat16 would merge neighbouring voxels; later layers may run in mixed
precision, the last one never does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]

#: How sharply a non-negative density bends at zero: softplus(s v) / s.
SHARPNESS = 10.0
#: The lattices' features start at random between this and its negative.
FEATURE_BOUND = 0.02


def grid_axes(
    shape: Shape, longest: int = 0, binning: int = 1, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of the voxels of a volume along z, y and x.

    Parameters
    ----------
    shape
        (z, y, x) of the volume, binned or not.
    longest
        Longest edge of the volume without binning; 0 takes that of ``shape``.
    binning
        How many times larger the voxels of ``shape`` are.
    device
        Where the coordinates are wanted.

    Returns
    -------
    tuple of Tensor (z,), (y,), (x,) float32
        Positions from the volume's centre over half of its longest edge.
    """
    half = (longest or max(shape)) / 2
    z, y, x = ((torch.arange(size, device=device) - (size - 1) / 2) * (binning / half) for size in shape)
    return z, y, x


class Field(nn.Module):
    """A density as a function of position; subclasses say how positions become features.

    Parameters
    ----------
    non_negative
        Bend the density so that it never falls below zero.
    """

    def __init__(self, non_negative: bool = False) -> None:
        super().__init__()
        self.non_negative = non_negative
        #: Lattices finer than this many voxels are left out, while the volume is binned.
        self.finest = 1

    def forward(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Evaluate on a product of coordinates.

        Parameters
        ----------
        z, y, x : Tensor (nz,), (ny,), (nx,)
            Coordinates as :func:`grid_axes` gives them.

        Returns
        -------
        Tensor (nz, ny, nx) float32
        """
        density = self._density(z, y, x)
        return functional.softplus(SHARPNESS * density) / SHARPNESS if self.non_negative else density

    @property
    def bytes_per_voxel(self) -> int:
        """Memory that the gradient of one voxel keeps, an estimate from above."""
        raise NotImplementedError

    def _density(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class LatticeField(Field):
    """Features on lattices of several spacings, interpolated and turned into density by a small network.

    Parameters
    ----------
    shape
        (z, y, x) voxels of the volume without binning.
    strides
        Spacing of each lattice in voxels.
    features
        Features at each point of a lattice.
    width
        Units of the one hidden layer.
    """

    def __init__(
        self, shape: Shape, strides: Sequence[int] = (8, 4, 2, 1), features: int = 4, width: int = 32,
        non_negative: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(non_negative)
        self.shape, self.strides = shape, tuple(strides)
        sizes = [[math.ceil((size - 1) / stride) + 1 for size in shape] for stride in strides]
        self.lattices = nn.ParameterList(
            nn.Parameter(torch.empty(features, *size).uniform_(-FEATURE_BOUND, FEATURE_BOUND)) for size in sizes
        )
        self.hidden = nn.Linear(features * len(self.strides), width)
        self.last = nn.Linear(width, 1)

    @property
    def bytes_per_voxel(self) -> int:
        return 4 * (4 * self.hidden.in_features + 3 * self.hidden.out_features)

    def _density(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        read = [
            self._read(lattice, stride, (z, y, x)) for lattice, stride in zip(self.lattices, self.strides, strict=True)
        ]
        hidden = functional.gelu(self.hidden(torch.cat(read).movedim(0, -1)))
        with torch.autocast(hidden.device.type, enabled=False):
            return self.last(hidden.float())[..., 0]

    def _read(self, lattice: Tensor, stride: int, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features (features, nz, ny, nx) of one lattice, interpolated linearly axis by axis."""
        if stride < self.finest:
            return lattice.new_zeros((lattice.shape[0], *(len(axis) for axis in axes)))
        values = lattice
        # The sections first: they are few, and what is left is small.
        for axis in (1, 0, 2):
            values = self._interpolate(values, axis, stride, axes[axis])
        return values

    def _interpolate(self, values: Tensor, axis: int, stride: int, coordinates: Tensor) -> Tensor:
        """Interpolate along axis 0, 1 or 2 of a lattice (features, z, y, x)."""
        size = self.shape[axis]
        # Rounding would move a voxel off the lattice point that it lies on: a sixteenth of a voxel is never meant.
        voxels = (coordinates.double() * (max(self.shape) / 2) + (size - 1) / 2).mul(16).round().div(16)
        place = (voxels / stride).clamp(0, values.shape[axis + 1] - 1)
        low = place.floor().long().clamp(max=max(0, values.shape[axis + 1] - 2))
        above = (place - low).float()
        if stride == 1 and not above.any():
            return values.index_select(axis + 1, low)
        # A product with a matrix of two weights in each row: faster than gathering, and its gradient is as exact.
        weights = values.new_zeros((len(low), values.shape[axis + 1]))
        rows = torch.arange(len(low), device=low.device)
        weights[rows, low] = 1 - above
        if values.shape[axis + 1] > 1:
            weights[rows, low + 1] += above
        with torch.autocast(values.device.type, enabled=False):
            return torch.tensordot(values, weights, dims=([axis + 1], [1])).movedim(-1, axis + 1)


class SirenField(Field):
    """A network of sines.

    Parameters
    ----------
    width, depth
        Units of a layer, and number of layers of sines.
    first_frequency
        Greatest phase slope of the first layer along each axis, radians from the volume's centre to its edge; what
        the network can resolve grows with it.
    inner_frequency
        Factor inside the sines of the other layers (30 in the publication).
    """

    def __init__(
        self, width: int = 128, depth: int = 4, first_frequency: float = 30.0, inner_frequency: float = 30.0,
        non_negative: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(non_negative)
        self.inner_frequency = inner_frequency
        self.first = nn.Linear(3, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, 1)
        nn.init.uniform_(self.first.weight, -first_frequency / 3, first_frequency / 3)
        nn.init.uniform_(self.first.bias, -math.pi, math.pi)
        bound = math.sqrt(6 / width) / inner_frequency
        for layer in (*self.inner, self.last):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    @property
    def bytes_per_voxel(self) -> int:
        return self.first.out_features * (16 + 8 * len(self.inner))

    def _density(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        values = product_sines(self.first.weight, self.first.bias, z, y, x)[0]
        for layer in self.inner:
            values = torch.sin(self.inner_frequency * layer(values))
        with torch.autocast(values.device.type, enabled=False):
            return self.last(values.float())[..., 0]


class FourierField(Field):
    """Fixed random sines and cosines, then a network with Gaussian error linear units.

    Parameters
    ----------
    width, depth
        Units of a layer, which is also the number of sines and of cosines, and number of hidden layers.
    frequency_sd
        Standard deviation of the phase slopes, radians from the volume's centre to its edge.
    """

    phases: Tensor

    def __init__(
        self, width: int = 128, depth: int = 3, frequency_sd: float = 20.0, non_negative: bool = False
    ) -> None:
        super().__init__(non_negative)
        self.register_buffer("phases", frequency_sd * torch.randn(width, 3))
        sizes = [2 * width] + [width] * depth
        self.inner = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(width, 1)

    @property
    def bytes_per_voxel(self) -> int:
        return self.last.in_features * (24 + 8 * len(self.inner))

    def _density(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        values = torch.cat(product_sines(self.phases, self.phases.new_zeros(len(self.phases)), z, y, x), dim=-1)
        for layer in self.inner:
            values = functional.gelu(layer(values))
        with torch.autocast(values.device.type, enabled=False):
            return self.last(values.float())[..., 0]


def product_sines(slopes: Tensor, offsets: Tensor, z: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of ``slopes . (x, y, z) + offsets`` on a product of coordinates, in float32.

    Parameters
    ----------
    slopes : Tensor (units, 3)
        Along x, y, z.
    offsets : Tensor (units,)
    z, y, x : Tensor (nz,), (ny,), (nx,)

    Returns
    -------
    tuple of Tensor (nz, ny, nx, units)
    """
    along = x[:, None] * slopes[:, 0]
    across = (z[:, None, None] * slopes[:, 2] + y[:, None] * slopes[:, 1] + offsets)[:, :, None]
    sin_x, cos_x, sin_zy, cos_zy = along.sin(), along.cos(), across.sin(), across.cos()
    return sin_zy * cos_x + cos_zy * sin_x, cos_zy * cos_x - sin_zy * sin_x


def make_field(kind: str, shape: Shape, width: int, depth: int, first_frequency: float, non_negative: bool) -> Field:
    """The field of a preset.

    Parameters
    ----------
    kind
        ``lattice``, ``siren`` or ``fourier``.
    shape
        (z, y, x) voxels of the volume without binning.
    width, depth
        Of the network; the lattice has one hidden layer whatever the depth.
    first_frequency
        For a volume of 64 voxels along its longest edge; it grows with that edge, so that a voxel keeps its phase.
    non_negative
        See :class:`Field`.
    """
    if kind == "lattice":
        return LatticeField(shape, width=width, non_negative=non_negative)
    frequency = first_frequency * max(shape) / 64
    if kind == "siren":
        return SirenField(width, depth, frequency, non_negative=non_negative)
    return FourierField(width, depth, frequency / 2, non_negative=non_negative)

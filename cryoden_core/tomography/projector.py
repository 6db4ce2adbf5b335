"""Parallel projection of a volume for single-axis tilt, and its exact adjoint.

All y sections of a volume share one sparse matrix from the voxels ``(z, x)`` to the pixels ``(view, u)``: each voxel
gives its value to the two pixels nearest to where it lands, by linear interpolation (pixel-driven projection; the
adjoint is the linear-interpolation back-projection of Herman, *Fundamentals of Computerized Tomography*, ch. 10).
The matrix and its transpose are built once and multiply all y at once, in pieces of bounded size; the adjoint is
therefore exact to rounding, which gradients and SIRT rely on.  Lengths are in voxels: a projection is a sum of
densities along the ray.

The footprint hardly matters: on hollow rods with exact projections, SIRT with this matrix, with Joseph's ray-driven one
and with exact voxel shadows ended within 1 percent of each other (relative error 0.369, 0.367 and 0.368 after 100
iterations); this one is the cheapest to build and the one that IMOD back-projects with.

It does not model tilts about x, local warping, the transfer function or blurring of the detector.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..jobs import JobError
from .geometry import TiltGeometry

#: Entries of a matrix computed at a time: 8 bytes each when done, about 6 times that while they are computed.
MATRIX_ENTRIES_AT_ONCE = 4_000_000

#: y sections multiplied at once.  On the CPU 32 to 64 columns keep the dense operand in the second-level cache, which
#: was 3 times faster than 256; a GPU wants enough columns to be busy.
SECTIONS_AT_ONCE_CPU = 48
SECTIONS_AT_ONCE_CUDA = 256


def sections_at_once(device: torch.device) -> int:
    """How many y sections one multiplication takes on this kind of device."""
    return SECTIONS_AT_ONCE_CPU if device.type == "cpu" else SECTIONS_AT_ONCE_CUDA


class SparseRows(NamedTuple):
    """A sparse matrix in compressed rows, on the host."""

    pointers: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    shape: tuple[int, int]

    def to_torch(self, device: torch.device) -> Tensor:
        """The same matrix as a torch CSR tensor."""
        pointers, columns, weights = (torch.from_numpy(part).to(device) for part in self[:3])
        with warnings.catch_warnings():
            # Torch calls every compressed sparse tensor beta, once a process; products with dense ones are all we use.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(pointers, columns, weights, self.shape, check_invariants=False)

    def transposed(self) -> SparseRows:
        """The transpose, again in compressed rows."""
        from scipy.sparse import csr_matrix

        columns = csr_matrix((self.weights, self.columns, self.pointers), shape=self.shape).tocsc()
        return SparseRows(columns.indptr, columns.indices, columns.data, (self.shape[1], self.shape[0]))


def back_projection_rows(geometry: TiltGeometry, rows: slice | None = None) -> SparseRows:
    """The matrix of linear-interpolation back-projection for some z rows of the volume.

    Parameters
    ----------
    geometry : TiltGeometry
    rows : slice, optional
        Rows along z; all when not given.

    Returns
    -------
    SparseRows
        Matrix (rows * x, views * u); a pixel beyond the detector's ends has no entry.
    """
    width = geometry.detector_width
    positions = np.moveaxis(geometry.detector_positions(rows), 0, -1)  # (rows, x, views)
    positions = positions.reshape(-1, geometry.views)
    below = np.floor(positions)
    above = (positions - below).astype(np.float32)
    first = below.astype(np.int32)
    columns = np.stack([first, first + 1], axis=-1)
    weights = np.stack([1 - above, above], axis=-1)
    inside = (columns >= 0) & (columns < width) & (weights != 0)
    columns += (np.arange(geometry.views, dtype=np.int32) * width)[:, None]
    pointers = np.zeros(len(positions) + 1, dtype=np.int64)
    np.cumsum(inside.sum(axis=(1, 2)), out=pointers[1:])
    return SparseRows(
        pointers.astype(np.int32), columns[inside], weights[inside], (len(positions), geometry.views * width)
    )


def row_slabs(geometry: TiltGeometry) -> Iterator[slice]:
    """Slabs of z rows whose back-projection matrices have at most :data:`MATRIX_ENTRIES_AT_ONCE` entries."""
    depth, _, width = geometry.volume_shape
    step = max(1, MATRIX_ENTRIES_AT_ONCE // (2 * geometry.views * width))
    for first in range(0, depth, step):
        yield slice(first, min(first + step, depth))


def _whole_back_projection(geometry: TiltGeometry) -> SparseRows:
    """The matrix for all rows, put together from slabs to bound the memory of the intermediate arrays."""
    slabs = [back_projection_rows(geometry, rows) for rows in row_slabs(geometry)]
    entries = sum(len(slab.weights) for slab in slabs)
    if entries >= 2**31:
        raise JobError("the volume is too large for one projection matrix; use a smaller or binned volume.")
    before = np.cumsum([0] + [len(slab.weights) for slab in slabs]).astype(np.int32)
    pointers = [slab.pointers[:-1] + start for slab, start in zip(slabs, before, strict=False)]
    return SparseRows(
        np.concatenate([*pointers, before[-1:]]),
        np.concatenate([slab.columns for slab in slabs]),
        np.concatenate([slab.weights for slab in slabs]),
        (sum(slab.shape[0] for slab in slabs), slabs[0].shape[1]),
    )


class Projector:
    """Projects volumes and back-projects tilt series of one geometry.

    The matrix takes about ``16 * views * z * x`` bytes on the device, twice that with its transpose.

    Parameters
    ----------
    geometry : TiltGeometry
        The y size is not looked at: volumes and projections may have any number of y sections.
    device : str or torch.device
        Where the matrices live and the work is done.
    """

    def __init__(self, geometry: TiltGeometry, device: str | torch.device = "cpu") -> None:
        self.geometry = geometry
        self.device = torch.device(device)
        back = _whole_back_projection(geometry)
        self._back = back.to_torch(self.device)
        self._ahead = back.transposed().to_torch(self.device)

    def forward(self, volume: Tensor) -> Tensor:
        """Project a volume.

        Parameters
        ----------
        volume : Tensor (z, y, x) float
            Any y; z and x as in the geometry.

        Returns
        -------
        Tensor (views, y, u) float32
            Sums of density along the rays, on the projector's device; differentiable.
        """
        depth, _, width = self.geometry.volume_shape
        if volume.ndim != 3 or (volume.shape[0], volume.shape[2]) != (depth, width):
            raise JobError(f"volume of shape {tuple(volume.shape)} does not fit (z, y, x) = ({depth}, any, {width}).")
        return _Project.apply(self._as_input(volume), self)

    def adjoint(self, projections: Tensor) -> Tensor:
        """Back-project: the transpose of :meth:`forward`.

        Parameters
        ----------
        projections : Tensor (views, y, u) float
            Any y; views and u as in the geometry.

        Returns
        -------
        Tensor (z, y, x) float32
            Sum over the views, on the projector's device; differentiable.
        """
        views, width = self.geometry.views, self.geometry.detector_width
        if projections.ndim != 3 or (projections.shape[0], projections.shape[2]) != (views, width):
            raise JobError(
                f"projections of shape {tuple(projections.shape)} do not fit (views, y, u) = ({views}, any, {width})."
            )
        return _BackProject.apply(self._as_input(projections), self)

    def _as_input(self, data: Tensor) -> Tensor:
        # Mixed precision would round sums over hundreds of voxels to eight bits: always full floats.
        return data.to(device=self.device, dtype=torch.float32)

    def _project(self, volume: Tensor) -> Tensor:
        return multiply_sections(self._ahead, volume, (self.geometry.views, self.geometry.detector_width))

    def _back_project(self, projections: Tensor) -> Tensor:
        return multiply_sections(self._back, projections, self.geometry.volume_shape[::2])


def multiply_sections(matrix: Tensor, data: Tensor, shape: tuple[int, int]) -> Tensor:
    """Multiply every y section of ``data (a, y, b)`` by a sparse matrix over ``(a, b)``.

    Parameters
    ----------
    matrix : Tensor (c * d, a * b), sparse
    data : Tensor (a, y, b) float32
    shape : (c, d)

    Returns
    -------
    Tensor (c, y, d) float32
    """
    sections = data.shape[1]
    result = data.new_empty((shape[0], sections, shape[1]))
    step = sections_at_once(data.device)
    with torch.autocast(data.device.type, enabled=False):
        for start in range(0, sections, step):
            part = slice(start, min(start + step, sections))
            columns = data[:, part].transpose(1, 2).reshape(matrix.shape[1], -1)
            product = matrix @ columns
            result[:, part] = product.reshape(shape[0], shape[1], -1).transpose(1, 2)
    return result


class _Project(torch.autograd.Function):
    """Projection whose gradient is the adjoint, without torch's slow transposition of sparse matrices."""

    @staticmethod
    def forward(ctx, volume: Tensor, projector: Projector) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.projector = projector
        return projector._project(volume)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return _BackProject.apply(gradient, ctx.projector), None


class _BackProject(torch.autograd.Function):
    """Back-projection whose gradient is the projection."""

    @staticmethod
    def forward(ctx, projections: Tensor, projector: Projector) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.projector = projector
        return projector._back_project(projections)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return _Project.apply(gradient, ctx.projector), None


def project(volume: Tensor, geometry: TiltGeometry) -> Tensor:
    """Project one volume on its own device; make a :class:`Projector` for repeated use.

    Parameters
    ----------
    volume : Tensor (z, y, x) float
    geometry : TiltGeometry

    Returns
    -------
    Tensor (views, y, u) float32
        Differentiable with respect to ``volume``.
    """
    return Projector(geometry, volume.device).forward(volume)

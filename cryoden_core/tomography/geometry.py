"""Where a voxel lands on the detector in each view of a single-axis tilt series.

The convention is the one that IMOD's ``tilt`` followed by ``trimvol -rx`` was measured to follow: arrays are
``(z, y, x)``, the tilt axis is y, the beam is z, and with coordinates centred at ``(n - 1) / 2``
``u = x cos(theta) + z sin(theta)``, ``v = y``, theta being the angle of the ``.tlt`` file as it is.  IMOD itself
departs from this by half a voxel at odd thickness (z + 0.5) and odd output width (x - 0.5); this module does not.

Nothing here knows of tilts about x, of local alignments or of magnification changes: those belong into the aligned
stack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..jobs import JobError

#: Steepest angle accepted, in degrees: beyond it a slab is seen edge-on and a ``.tlt`` file is most likely wrong.
STEEPEST_ANGLE_DEGREES = 90.0


@dataclass(frozen=True, eq=False)
class TiltGeometry:
    """A single-axis tilt series and the volume that it sees.

    Parameters
    ----------
    tilt_angles_degrees : ndarray (views,)
        Tilt of each view, degrees, in the order of the images.
    volume_shape : (z, y, x)
        Voxels of the volume; y is also the height of the projections.
    detector_width : int
        Pixels of a projection along u.
    angle_offset_degrees : float
        Added to every angle (first number of IMOD's ``OFFSET``).
    tilt_axis_shift : float
        Pixels by which the tilt axis lies beyond the centre of the projections along u (second number of ``OFFSET``).
    x_shift, z_shift : float
        IMOD's ``SHIFT``, voxels: features move to ``x + x_shift`` and ``z - z_shift``.

    Raises
    ------
    JobError
        When an angle is not finite or too steep, or a size is not positive.
    """

    tilt_angles_degrees: np.ndarray
    volume_shape: tuple[int, int, int]
    detector_width: int
    angle_offset_degrees: float = 0.0
    tilt_axis_shift: float = 0.0
    x_shift: float = 0.0
    z_shift: float = 0.0

    def __post_init__(self) -> None:
        angles = np.array(self.tilt_angles_degrees, dtype=np.float64)
        if angles.ndim != 1 or angles.size == 0:
            raise JobError(f"tilt angles must be a list with one angle per view, not an array of shape {angles.shape}.")
        terms = (self.angle_offset_degrees, self.tilt_axis_shift, self.x_shift, self.z_shift)
        if not all(math.isfinite(term) for term in terms):
            raise JobError("the angle offset, the tilt-axis shift and the x and z shifts must be finite numbers.")
        tilted = angles + self.angle_offset_degrees
        wrong = np.flatnonzero(~(np.abs(tilted) <= STEEPEST_ANGLE_DEGREES))
        if wrong.size:
            raise JobError(
                f"view {wrong[0] + 1} has a tilt angle of {tilted[wrong[0]]:g} degrees; "
                f"angles must be numbers between -{STEEPEST_ANGLE_DEGREES:g} and {STEEPEST_ANGLE_DEGREES:g}."
            )
        if len(self.volume_shape) != 3 or min(self.volume_shape) < 1 or self.detector_width < 1:
            raise JobError(
                f"volume size {tuple(self.volume_shape)} and detector width {self.detector_width} must be positive."
            )
        angles.flags.writeable = False
        object.__setattr__(self, "tilt_angles_degrees", angles)
        object.__setattr__(self, "volume_shape", tuple(int(size) for size in self.volume_shape))

    @property
    def views(self) -> int:
        """Number of views."""
        return self.tilt_angles_degrees.size

    @property
    def projection_shape(self) -> tuple[int, int, int]:
        """Shape (views, y, u) of the projections."""
        return self.views, self.volume_shape[1], self.detector_width

    @property
    def angles_radians(self) -> np.ndarray:
        """Tilt of each view with the offset added, radians, (views,)."""
        return np.deg2rad(self.tilt_angles_degrees + self.angle_offset_degrees)

    def detector_positions(self, rows: slice | None = None) -> np.ndarray:
        """Detector coordinate u of the voxels of some z rows in every view.

        Parameters
        ----------
        rows : slice, optional
            Rows along z; all when not given.

        Returns
        -------
        ndarray (views, rows, x) float64
            0-based pixel coordinate along u; may lie outside the detector.
        """
        depth, _, width = self.volume_shape
        z = (np.arange(depth) - (depth - 1) / 2 + self.z_shift)[rows or slice(None)]
        x = np.arange(width) - (width - 1) / 2 - self.x_shift
        theta = self.angles_radians[:, None, None]
        centre = (self.detector_width - 1) / 2 + self.tilt_axis_shift
        return x * np.cos(theta) + z[:, None] * np.sin(theta) + centre


def covering_width(geometry: TiltGeometry) -> int:
    """Width of the slab that fills the detector in every view of a geometry and holds its volume in the middle.

    Shifts put the volume off the detector's centre, so the slab must reach further on one side; both sides get it.

    Returns
    -------
    int
        Even or odd as the volume's width, and at least that.
    """
    seen = geometry.detector_width + 2 * math.ceil(abs(geometry.tilt_axis_shift))
    depth, _, width = geometry.volume_shape
    depth += 2 * math.ceil(abs(geometry.z_shift))
    wide = width_covering_every_view(seen, depth, np.degrees(geometry.angles_radians))
    wide += 2 * math.ceil(abs(geometry.x_shift))
    return max(width, wide + (wide - width) % 2)


def width_covering_every_view(detector_width: int, thickness: int, tilt_angles_degrees: np.ndarray) -> int:
    """Width along x of a slab that fills the detector in every view.

    A tilted view sees more of a slab than the untilted one: a ray that meets the edge of the detector crosses the slab
    up to ``(detector / 2 + thickness / 2 sin(theta)) / cos(theta)`` from the axis.  A reconstruction that must explain
    the projections (SIRT) needs this width; one that ends at the detector's width puts the outside's density inside.

    Parameters
    ----------
    detector_width, thickness : int
        Pixels and voxels.
    tilt_angles_degrees : ndarray (views,)
        Degrees; angles steeper than 80 degrees count as 80.

    Returns
    -------
    int
        Even or odd as ``detector_width``, so that the centres of voxels and pixels keep coinciding at zero tilt.
    """
    steepest = math.radians(min(80.0, float(np.abs(tilt_angles_degrees).max())))
    width = math.ceil((detector_width + thickness * math.sin(steepest)) / math.cos(steepest))
    return width + (width - detector_width) % 2

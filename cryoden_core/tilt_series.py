"""A tilt series on disk and what is known of each of its images.

Angle, alignment transform and the excluded mark belong to an image by its place in the stack and are never sorted: a
dose-symmetric stack with a sorted angle list reconstructs to nonsense without a word.  Files read are IMOD's ``.tlt``
or ``.rawtlt`` (one angle a line), ``.xf`` (one transform a line) and doses (one a line).  The aligned stack is made
with a single interpolation by a cubic spline, straight from the raw images (Unser, *IEEE Signal Processing Magazine*
16, 22, 1999); IMOD's ``newstack`` uses a sharper cubic convolution, the images agree to a correlation of 0.9995.

It estimates no alignment, and knows no local alignments, distortion or magnification corrections.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from .jobs import JobError
from .mrc import MrcHeader, open_volume, read_header

#: What names of tilt series end in, raw or aligned, and names of tomograms do not.
STACK_ENDINGS = (".st", ".ali", ".preali", ".mrcs")


def _identity() -> np.ndarray:
    return np.eye(3)


@dataclass(frozen=True, eq=False)
class View:
    """One image of a tilt series.

    Parameters
    ----------
    index : int
        Section of the stack, from 0.
    tilt_angle_degrees : float
        Degrees.
    transform : ndarray (3, 3)
        From raw to aligned coordinates ``(x, y, 1)``, pixels about the centres ``(n - 1) / 2`` of both images.
    enabled : bool
        False for an image that must not be used.
    dose : float
        Exposure accumulated before and during this image, electrons per square angstrom; 0 where unknown.
    """

    index: int
    tilt_angle_degrees: float
    transform: np.ndarray = field(default_factory=_identity)
    enabled: bool = True
    dose: float = 0.0


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """The stack and its views.

    Parameters
    ----------
    stack_path : str
        MRC stack, (images, y, x).
    views : sequence of View
        In any order; they are kept in the order of the stack.
    voxel_size : float
        Angstrom per pixel; 0 where unknown.

    Raises
    ------
    JobError
        When a view points outside the stack, two views share an image, no view is enabled, an angle is no number or a
        transform cannot be inverted.
    """

    stack_path: str
    views: tuple[View, ...]
    voxel_size: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stack_path", os.fspath(self.stack_path))
        object.__setattr__(self, "views", tuple(sorted(self.views, key=lambda view: view.index)))
        images = read_header(self.stack_path).shape[0]
        indices = [view.index for view in self.views]
        if len(set(indices)) != len(indices):
            raise JobError(f"two views of the tilt series {self.stack_path} point to the same image of the stack.")
        if indices and not (indices[0] >= 0 and indices[-1] < images):
            raise JobError(
                f"a view points to image {(indices[0] if indices[0] < 0 else indices[-1]) + 1} "
                f"but the stack {self.stack_path} has {images}."
            )
        if not self.enabled_views:
            raise JobError(f"every view of the tilt series {self.stack_path} is excluded.")
        for view in self.views:
            _check_view(view, self.stack_path)

    @classmethod
    def from_files(
        cls,
        stack: str | os.PathLike[str],
        tilt_angles: str | os.PathLike[str],
        transforms: str | os.PathLike[str] | None = None,
        exclude: Iterable[int] = (),
        doses: str | os.PathLike[str] | None = None,
    ) -> TiltSeries:
        """Read a tilt series from IMOD's files.

        Parameters
        ----------
        stack : path
            MRC stack of all images, the excluded ones too.
        tilt_angles : path
            ``.tlt`` or ``.rawtlt`` with one angle for each image, in the order of the images.
        transforms : path, optional
            ``.xf`` with one line for each image; without it the stack counts as aligned.
        exclude : iterable of int
            Views to leave out, counted from 1 as IMOD and Scipion do.
        doses : path, optional
            Accumulated dose of each image, electrons per square angstrom, one a line in the order of the images.

        Returns
        -------
        TiltSeries

        Raises
        ------
        JobError
            When a file is missing or unreadable, or the counts of images, angles, transforms and doses differ.
        """
        header = read_header(os.fspath(stack))
        images = header.shape[0]
        angles = read_tilt_angles(tilt_angles)
        _check_count(len(angles), header, "tilt angle", tilt_angles, stack)
        matrices = [_identity() for _ in angles]
        if transforms is not None:
            matrices = read_transforms(transforms)
            _check_count(len(matrices), header, "transform", transforms, stack)
        accumulated = [0.0 for _ in angles]
        if doses is not None:
            accumulated = read_doses(doses)
            _check_count(len(accumulated), header, "dose", doses, stack)
        left_out = {int(number) for number in exclude}
        unknown = sorted(number for number in left_out if not 1 <= number <= images)
        if unknown:
            raise JobError(
                f"view {unknown[0]} cannot be excluded: views are counted from 1 and {os.fspath(stack)} has {images}."
            )
        views = tuple(
            View(index, angle, matrix, index + 1 not in left_out, dose)
            for index, (angle, matrix, dose) in enumerate(zip(angles, matrices, accumulated, strict=True))
        )
        return cls(os.fspath(stack), views, header.voxel_size)

    @property
    def enabled_views(self) -> tuple[View, ...]:
        """The views to use, in stack order."""
        return tuple(view for view in self.views if view.enabled)

    @property
    def tilt_angles_degrees(self) -> np.ndarray:
        """Angles of the enabled views in stack order, (views,), degrees."""
        return np.array([view.tilt_angle_degrees for view in self.enabled_views], dtype=np.float64)

    @property
    def aligned_shape(self) -> tuple[int, int, int]:
        """Shape (views, y, x) of the aligned stack.

        Width and height change places when the tilt axis is turned by 45 to 135 degrees, so that the long side of the
        image stays inside.
        """
        _, height, width = read_header(self.stack_path).shape
        matrices = [view.transform for view in self.enabled_views]
        turns = [abs(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))) for matrix in matrices]
        size = (width, height) if 45 < np.median(turns) < 135 else (height, width)
        return len(matrices), *size

    def aligned_stack(self, out: np.ndarray | None = None) -> np.ndarray:
        """Interpolate the enabled images into alignment, one after the other.

        Parameters
        ----------
        out : array (views, y, x) float32, optional
            Filled in place and returned; may be a memory-map.

        Returns
        -------
        ndarray (views, y, x) float32
            Enabled views in stack order, tilt axis along y; what lies outside the raw image has the image's mean.

        Raises
        ------
        JobError
            When the stack cannot be read or ``out`` has another shape.
        """
        shape = self.aligned_shape
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif tuple(out.shape) != shape:
            raise JobError(f"the output has shape {tuple(out.shape)}, the aligned stack {shape}.")
        for place, image in enumerate(self.aligned_images()):
            out[place] = image
        return out

    def aligned_images(self) -> Iterator[np.ndarray]:
        """The images of :meth:`aligned_stack`, (y, x) float32, one after the other; raises as it does."""
        shape = self.aligned_shape
        stack = open_volume(self.stack_path)
        for view in self.enabled_views:
            image = np.asarray(stack[view.index], dtype=np.float32)
            if not np.isfinite(image).all():
                raise JobError(
                    f"image {view.index + 1} of {self.stack_path} holds pixels that are not numbers (NaN or inf); "
                    "exclude the view or repair the image."
                )
            yield align_image(image, view.transform, shape[1:])


def align_image(image: np.ndarray, transform: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Apply a raw-to-aligned transform to one image.

    Parameters
    ----------
    image : array (y, x) float32
    transform : ndarray (3, 3)
        See :class:`View`.
    shape : (y, x)
        Of the result.

    Returns
    -------
    ndarray (y, x) float32
        Outside the raw image: the mean of the image.
    """
    if shape == image.shape and np.array_equal(transform, np.eye(3)):
        return image
    # scipy asks, for each output pixel (y, x), where in the input it comes from.
    back = np.linalg.inv(transform)[1::-1, 1::-1]
    shift = transform[1::-1, 2]
    start = (np.array(image.shape) - 1) / 2 - back @ ((np.array(shape) - 1) / 2 + shift)
    mean = float(image.mean(dtype=np.float64))
    return ndimage.affine_transform(
        image, back, start, output_shape=shape, output=np.float32, order=3, mode="constant", cval=mean
    )


def read_tilt_angles(path: str | os.PathLike[str]) -> list[float]:
    """Angles of a ``.tlt`` or ``.rawtlt`` file, degrees, in the order of its lines.

    Raises
    ------
    JobError
        When the file is missing or empty, or a line does not hold one number first.
    """
    # AreTomo and others add columns (dose, order) after the angle.
    angles = [row[0] for row in _read_numbers(path, at_least=1)]
    if not angles:
        raise JobError(f"{os.fspath(path)} is empty; it must hold the angle of each image, one a line.")
    return angles


def read_transforms(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Transforms of an ``.xf`` file as 3 x 3 matrices, in the order of its lines.

    Each line holds ``a11 a12 a21 a22 dx dy``.

    Raises
    ------
    JobError
        When the file is missing or a line does not hold six numbers.
    """
    matrices = []
    for a11, a12, a21, a22, dx, dy, *_ in _read_numbers(path, at_least=6):
        matrices.append(np.array([[a11, a12, dx], [a21, a22, dy], [0, 0, 1]], dtype=np.float64))
    return matrices


def read_doses(path: str | os.PathLike[str]) -> list[float]:
    """Accumulated doses, electrons per square angstrom, in the order of the lines.

    Raises
    ------
    JobError
        When the file is missing, a line does not hold one number first, or a dose is negative.
    """
    doses = [row[0] for row in _read_numbers(path, at_least=1)]
    if doses and min(doses) < 0:
        raise JobError(f"{os.fspath(path)} holds a negative dose, {min(doses):g}; doses accumulate from 0.")
    return doses


def sign_of_tilt_series(path: str | os.PathLike[str]) -> str:
    """What makes a file look like a tilt series and not a tomogram, as part of a sentence; empty when nothing does.

    Only what seldom deceives counts: its name, its header, or that a file of as many tilt angles lies beside it.
    """
    name = os.fspath(path)
    stem, ending = os.path.splitext(name)
    if ending in STACK_ENDINGS:
        return f"its name ends in {ending}"
    header = read_header(name)
    if header.stack:
        return "its header calls it a stack of images"
    for beside in (stem + ".tlt", stem + ".rawtlt"):
        try:
            angles = read_tilt_angles(beside)
        except JobError:
            continue
        if len(angles) == header.shape[0]:
            return f"{beside} has as many angles as it has sections"
    return ""


def _read_numbers(path: str | os.PathLike[str], at_least: int) -> list[list[float]]:
    name = os.fspath(path)
    try:
        # Editors on Windows put a mark before the first character; utf-8-sig leaves it out.
        with open(name, encoding="utf-8-sig") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"cannot read {name}: {getattr(error, 'strerror', None) or 'it is not a text file'}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) < at_least or not all(map(math.isfinite, row)):
            wanted = "a number" if at_least == 1 else f"{at_least} numbers"
            raise JobError(f"line {number} of {name} must hold {wanted}, not {line.strip()!r}.")
        rows.append(row)
    return rows


def _check_count(
    found: int, header: MrcHeader, what: str, path: str | os.PathLike[str], stack: str | os.PathLike[str]
) -> None:
    images = header.shape[0]
    if found == images:
        return
    # Many stacks say that they are volumes; only together with a wrong count does it mean something.
    volume = " (its header calls it a volume: is it a tomogram?)" if header.ispg == 1 else ""
    raise JobError(
        f"{os.fspath(path)} holds {found} {what}s but the stack {os.fspath(stack)} has {images} images{volume}; "
        f"give one {what} for each image, in the order of the stack."
    )


def _check_view(view: View, stack: str) -> None:
    if not math.isfinite(view.tilt_angle_degrees):
        raise JobError(f"the tilt angle of image {view.index + 1} of {stack} is not a number.")
    matrix = np.asarray(view.transform)
    # Alignment turns, shifts and slightly stretches: a determinant far from 1 is a broken file, not a magnification.
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-3:
        raise JobError(f"the transform of image {view.index + 1} of {stack} cannot be inverted.")

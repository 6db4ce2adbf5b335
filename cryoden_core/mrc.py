"""Volumes in and out of MRC files, memory-mapped and by slabs.

The format is that of Cheng et al. (2015), J. Struct. Biol. 192, 146 (MRC2014), with mode 12 (float16) and IMOD's sign
flag for bytes; headers are read and made in :mod:`cryoden_core.mrc_header`.  Reading is permissive: old files without
the ``MAP`` word or with a wrong machine stamp, image stacks (space group 0) and extended headers are all accepted.

Columns, rows and sections are taken as x, y and z whatever the header's axis words say, extended headers are skipped
and never written, and integers are returned as they are stored (no scaling is undone).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Sequence, Tuple, Union

import numpy as np

from .jobs import JobError
from .mrc_header import HEADER_BYTES, UNREADABLE_MODES, MrcHeader, header_bytes, read_header, reason

__all__ = [
    "MrcHeader", "VolumeStatistics", "check_finite_and_varying", "check_writable", "create_volume", "errors_of_writing",
    "open_volume", "read_header", "read_volume", "reserve", "size_text", "slabs", "volume_statistics", "write_volume",
]  # fmt: skip

#: Half of the range of an int8 map, in standard deviations about the mean.
INT8_RANGE_SD = 6.0
SLAB_BYTES = 64 * 2**20

_WRITTEN = {"float32": (2, "<f4"), "float16": (12, "<f2"), "int8": (0, "i1"), "int16": (1, "<i2"), "uint16": (6, "<u2")}
#: Formats for labels: whole numbers that are stored as they are.
_WHOLE = ("int16", "uint16")
_LARGEST_FLOAT16 = 65504.0
#: Below this standard deviation float16 loses digits, since its smallest normal number is 6.1e-5.
_SMALLEST_FLOAT16_SD = 1e-3


@dataclass(frozen=True)
class VolumeStatistics:
    """Extremes, mean and standard deviation of a volume."""

    minimum: float
    maximum: float
    mean: float
    sd: float


def open_volume(path: str) -> np.memmap:
    """Memory-map the volume of an MRC file, read-only.

    Returns
    -------
    np.memmap
        (z, y, x), in the file's own number format and byte order: convert each piece with
        ``np.asarray(piece, np.float32)``.

    Raises
    ------
    JobError
        When the file is missing, no MRC file, truncated, a stack of volumes, a single image, complex or RGB.
    """
    path = os.fspath(path)
    header = read_header(path)
    if header.mode in UNREADABLE_MODES:
        raise JobError("%s holds %s, not densities (MRC mode %d)." % (path, UNREADABLE_MODES[header.mode], header.mode))
    if 401 <= header.ispg <= 630:
        raise JobError(
            "%s is a stack of volumes (space group %d); give one file for each volume." % (path, header.ispg)
        )
    if header.shape[0] == 1 or header.dtype is None:
        raise JobError("%s is a single image of %d x %d pixels, not a volume." % (path, *header.shape[:0:-1]))
    wanted = header.data_offset + math.prod(header.shape) * header.dtype.itemsize
    found = os.path.getsize(path)
    if found < wanted:
        raise JobError("%s is truncated: its header announces %d bytes and it has %d." % (path, wanted, found))
    try:
        return np.memmap(path, dtype=header.dtype, mode="r", offset=header.data_offset, shape=header.shape)
    except OSError as error:
        raise JobError("cannot read %s: %s." % (path, reason(error))) from error


def size_text(shape: Sequence[int]) -> str:
    """The edges (z, y, x) of a volume as messages give them: x, y, z."""
    return " x ".join(str(edge) for edge in reversed(shape))


def read_volume(path: str) -> np.ndarray:
    """Read a whole volume as float32 (z, y, x); raises as :func:`open_volume` does."""
    return np.array(open_volume(path), dtype=np.float32, order="C", subok=False)


def slabs(volume: Any, slab_bytes: int = SLAB_BYTES) -> Iterator[slice]:
    """Slices of whole sections, each of at most ``slab_bytes`` bytes as float32 (one section at least)."""
    sections = max(1, slab_bytes // max(1, 4 * math.prod(volume.shape[1:])))
    for first in range(0, volume.shape[0], sections):
        yield slice(first, min(first + sections, volume.shape[0]))


def volume_statistics(volume: Any) -> VolumeStatistics:
    """Statistics of a (z, y, x) array, computed by slabs; NaN when a value is not finite."""
    count, mean, squares = 0, 0.0, 0.0
    minimum, maximum = math.inf, -math.inf
    for slab in slabs(volume):
        values = np.asarray(volume[slab], dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return VolumeStatistics(math.nan, math.nan, math.nan, math.nan)
        minimum, maximum = min(minimum, low), max(maximum, high)
        # Chan et al. (1983): partial means and sums of squares join without loss of digits.
        slab_mean = float(values.mean(dtype=np.float64))
        slab_squares = float(values.var(dtype=np.float64)) * values.size
        shift = slab_mean - mean
        total = count + values.size
        squares += slab_squares + shift * shift * count * values.size / total
        mean += shift * values.size / total
        count = total
    return VolumeStatistics(minimum, maximum, mean, math.sqrt(squares / count))


def voxel_size_of(path: str, given: float, warn: Callable[[str], None]) -> float:
    """The voxel size that was given, or else that of a file's header (0 when it has none), angstrom.

    Where both are known and differ by more than 5 % the one that was given is taken, with a warning.
    """
    stored = read_header(path).voxel_size
    if given and stored and abs(given - stored) > 0.05 * stored:
        warn(
            "the voxel size of %s was given as %g A, but its header says %g A; %g A is taken."
            % (path, given, round(stored, 3), given)
        )
    return given or stored


def check_finite_and_varying(volume: Union[str, os.PathLike, np.ndarray], name: str = "") -> VolumeStatistics:
    """Refuse a volume with NaN or infinite values, or of one single value; it is read by slabs.

    Parameters
    ----------
    volume
        A path or a (z, y, x) array.
    name
        How the message calls it; empty takes the path.

    Raises
    ------
    JobError
        With one sentence.
    """
    if isinstance(volume, (str, os.PathLike)):
        name = name or os.fspath(volume)
        volume = open_volume(os.fspath(volume))
    name = name or "the volume"
    found = volume_statistics(volume)
    if math.isnan(found.mean):
        raise JobError("%s holds NaN or infinite values; repair it first." % name)
    if found.minimum == found.maximum:
        raise JobError("%s is constant: every voxel is %g." % (name, found.minimum))
    return found


def check_writable(path: str) -> None:
    """Refuse, before the work begins, an output that could not be written; its folder is made if need be.

    Raises
    ------
    JobError
        When the folder cannot be made or written to, or the name is that of a folder.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise JobError("cannot write %s: it is a folder." % path)
    probe = _temporary(path, "probe")
    with errors_of_writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(probe, "wb"):
            pass
        os.remove(probe)


def write_volume(
    path: str,
    data: Any,
    voxel_size: float = 0.0,
    origin: Tuple[float, float, float] = (0.0, 0.0, 0.0),
    mode: str = "float32",
    stack: bool = False,
) -> None:
    """Write a volume, or a stack of images, whole or not at all.

    Parameters
    ----------
    path
        File to write; one that exists is replaced.
    data
        (z, y, x) array or memory-map; it is read by slabs.
    voxel_size, origin
        In angstrom; the origin is (x, y, z).
    mode
        ``float32``; ``float16`` (MRC mode 12, refused when the values do not fit it); ``int8``, in which mean - 6 sd
        to mean + 6 sd becomes -127 to 127, values beyond are clipped, and a label in the header gives the scale; or,
        for labels, ``int16`` and ``uint16``, which store whole numbers as they are and refuse what does not fit.
    stack
        Whether the sections are images, such as those of a tilt series; the header says so.

    Raises
    ------
    JobError
        When the disk is full, the folder cannot be written to, or the values are not finite or do not fit.
    """
    path = os.fspath(path)
    if data.ndim != 3:
        raise ValueError("a volume has three dimensions, not %d" % data.ndim)
    check_writable(path)
    found = volume_statistics(data)
    partial = _temporary(path, "part")
    with _removed_on_failure(partial), errors_of_writing(path):
        _write_converted(partial, path, data, found, voxel_size, origin, mode, stack)
        os.replace(partial, path)


@contextlib.contextmanager
def create_volume(
    path: str,
    shape: Tuple[int, int, int],
    voxel_size: float = 0.0,
    origin: Tuple[float, float, float] = (0.0, 0.0, 0.0),
    mode: str = "float32",
) -> Iterator[np.memmap]:
    """A disk-backed float32 volume of zeros, to be filled in any order, that becomes ``path`` when the block ends.

    Its space is reserved first, so a full disk is a sentence at the start and not a crash in the middle.  When the
    block ends with an exception nothing is left behind.  Parameters and errors are those of :func:`write_volume`.

    Yields
    ------
    np.memmap
        ``shape`` (z, y, x), float32.
    """
    path = os.fspath(path)
    check_writable(path)
    scratch, partial = _temporary(path, "scratch"), _temporary(path, "part")
    with _removed_on_failure(scratch, partial):
        with errors_of_writing(path):
            reserve(scratch, HEADER_BYTES + 4 * math.prod(shape))
            volume = np.memmap(scratch, dtype="<f4", mode="r+", offset=HEADER_BYTES, shape=tuple(shape))
        yield volume
        with errors_of_writing(path):
            volume.flush()
            found = volume_statistics(volume)
            if mode == "float32":
                _refuse_unfit(path, found, mode)
                with open(scratch, "r+b") as stream:
                    stream.write(header_bytes(volume.shape, found, voxel_size, origin, _WRITTEN[mode][0]))
                    _flush(stream)
                os.replace(scratch, path)
            else:
                _write_converted(partial, path, volume, found, voxel_size, origin, mode)
                os.replace(partial, path)
                os.remove(scratch)


def _write_converted(
    partial: str,
    path: str,
    data: Any,
    found: VolumeStatistics,
    voxel_size: float,
    origin: Tuple[float, float, float],
    mode: str,
    stack: bool = False,
) -> None:
    _refuse_unfit(path, found, mode)
    dtype = np.dtype(_WRITTEN[mode][1])
    scale = found.sd * INT8_RANGE_SD / 127 or 1.0
    with open(partial, "wb") as stream:
        stream.write(bytes(HEADER_BYTES))
        for slab in slabs(data):
            values = np.asarray(data[slab], dtype=np.float32)
            if mode == "int8":
                values = np.clip(np.rint((values - found.mean) / scale), -127, 127)
            stored_values = np.ascontiguousarray(values, dtype=dtype)
            if mode in _WHOLE and not np.array_equal(stored_values, values):
                raise JobError("%s was not written: it holds values that are no whole numbers." % path)
            stream.write(stored_values.data)
        stream.flush()
        # The header describes what is stored, which rounding and clipping have changed.
        stored = found
        if mode != "float32":
            stored = volume_statistics(
                np.memmap(partial, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=tuple(data.shape))
            )
        labels = ["int8: density = %.7g + %.7g * value" % (found.mean, scale)] if mode == "int8" else []
        header = header_bytes(data.shape, stored, voxel_size, origin, _WRITTEN[mode][0], labels, stack)
        stream.seek(0)
        stream.write(header)
        _flush(stream)


def _refuse_unfit(path: str, found: VolumeStatistics, mode: str) -> None:
    if mode not in _WRITTEN:
        raise JobError("an MRC file is written as one of %s, not %r." % (", ".join(_WRITTEN), mode))
    if math.isnan(found.mean):
        raise JobError("%s was not written: the volume holds NaN or infinite values." % path)
    if mode in _WHOLE:
        limits = np.iinfo(_WRITTEN[mode][1])
        if found.minimum < limits.min or found.maximum > limits.max:
            raise JobError(
                "%s was not written: values from %g to %g do not fit %s." % (path, found.minimum, found.maximum, mode)
            )
    too_large = max(abs(found.minimum), abs(found.maximum)) > _LARGEST_FLOAT16
    if mode == "float16" and (too_large or 0 < found.sd < _SMALLEST_FLOAT16_SD):
        raise JobError(
            "%s was not written: values from %g to %g do not fit float16; choose float32."
            % (path, found.minimum, found.maximum)
        )


def _temporary(path: str, kind: str) -> str:
    return "%s.%s%d" % (path, kind, os.getpid())


def reserve(path: str, size: int) -> None:
    """A file of zeros whose blocks exist: a write into a mapped hole of a full disk would kill the process."""
    with open(path, "wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # This file system cannot reserve: zeros that are written reserve as well.
            for first in range(0, size, SLAB_BYTES):
                stream.write(bytes(min(SLAB_BYTES, size - first)))


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextlib.contextmanager
def errors_of_writing(path: str) -> Iterator[None]:
    """Turn what the operating system refuses while ``path`` is written into one sentence (:class:`JobError`)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = "no space left on the disk to write %s; free some or choose another folder." % path
        else:
            message = "cannot write %s: %s." % (path, reason(error))
        raise JobError(message) from error


@contextlib.contextmanager
def _removed_on_failure(*paths: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            if os.path.exists(path):
                os.remove(path)
        raise

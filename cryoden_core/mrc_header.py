"""The 1024 bytes at the start of an MRC file.

The layout is that of MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192, 146), taken from the ``mrcfile`` library, with
IMOD's stamp for unsigned bytes.  Files with a wrong or missing ``MAP`` word or machine stamp are accepted as long as
their sizes and their mode make sense.  Extended headers are only measured, so that they can be skipped.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from .jobs import JobError

HEADER_BYTES = 1024
READABLE_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
UNREADABLE_MODES = {
    3: "complex values (a transform)",
    4: "complex values (a transform)",
    16: "RGB colours",
    101: "4-bit values",
}
_IMOD_STAMP = 1146047817
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class MrcHeader:
    """What the header of an MRC file says.

    ``shape`` is (z, y, x); ``voxel_size`` is in angstrom along x (0 when the header has none); ``origin`` is (x, y, z)
    in angstrom; ``nstart`` is the first column, row and section (x, y, z) in voxels; ``ispg`` is the space group;
    ``stack`` tells that the header calls the sections images of their own and not slices of a volume (space group 0,
    one section in each); ``dtype`` and ``data_offset`` (bytes) say how and where the values are stored.
    """

    shape: Tuple[int, int, int]
    mode: int
    voxel_size: float
    origin: Tuple[float, float, float]
    nstart: Tuple[int, int, int]
    ispg: int
    stack: bool
    dtype: Optional[np.dtype]
    data_offset: int


def read_header(path: str) -> MrcHeader:
    """Read the header of an MRC file.

    Raises
    ------
    JobError
        When the file cannot be read or is not an MRC file.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(HEADER_BYTES)
    except OSError as error:
        raise JobError("cannot read %s: %s." % (path, reason(error))) from error
    if raw.startswith(_COMPRESSED):
        raise JobError("%s is compressed; decompress it first." % path)
    header, order = _parse(raw)
    if header is None:
        raise JobError("%s is not an MRC file." % path)
    mode = int(header["mode"])
    return MrcHeader(
        shape=(int(header["nz"]), int(header["ny"]), int(header["nx"])),
        mode=mode,
        voxel_size=_voxel_size(header),
        origin=_finite_origin(header),
        nstart=(int(header["nxstart"]), int(header["nystart"]), int(header["nzstart"])),
        ispg=int(header["ispg"]),
        stack=int(header["ispg"]) == 0 and int(header["mz"]) == 1 < int(header["nz"]),
        dtype=_dtype(header, mode, order),
        data_offset=HEADER_BYTES + max(0, int(header["nsymbt"])),
    )


def header_bytes(
    shape: Tuple[int, ...],
    statistics: Any,
    voxel_size: float,
    origin: Tuple[float, float, float],
    mode: int,
    labels: Optional[List[str]] = None,
    stack: bool = False,
) -> bytes:
    """The 1024 bytes of a little-endian MRC2014 header of a single volume, or of a ``stack`` of images.

    ``shape`` is (z, y, x); ``statistics`` has ``minimum``, ``maximum``, ``mean`` and ``sd`` of the stored values;
    ``labels`` are added after the program's own, 80 characters each.
    """
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    depth, height, width = shape
    samples = 1 if stack else depth
    cell = (width * voxel_size, height * voxel_size, samples * voxel_size)
    values: Dict[str, Any] = {
        "nx": width, "ny": height, "nz": depth, "mode": mode, "mx": width, "my": height, "mz": samples,
        "cella": cell, "cellb": (90.0, 90.0, 90.0), "mapc": 1, "mapr": 2, "maps": 3,
        "dmin": statistics.minimum, "dmax": statistics.maximum, "dmean": statistics.mean, "rms": statistics.sd,
        "ispg": 0 if stack else 1, "nversion": 20141, "origin": tuple(origin), "map": b"MAP ",
        "machst": (0x44, 0x44, 0, 0),
    }  # fmt: skip
    for name, value in values.items():
        header[name] = value
    labels = ["Written by CryoDen", *(labels or [])]
    header["nlabl"] = len(labels)
    for position, label in enumerate(labels):
        header["label"][position] = label.encode("ascii")[:80]
    return header.tobytes()


def _parse(raw: bytes) -> Tuple[Any, str]:
    """The header and the byte order in which it makes sense; the header is None when it does in neither."""
    if len(raw) < HEADER_BYTES:
        return None, "="
    stamped_big = raw[212] == 0x11
    for order in "><" if stamped_big else "<>":
        header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
        known = int(header["mode"]) in READABLE_MODES or int(header["mode"]) in UNREADABLE_MODES
        # A stamp can be wrong, but no mode other than 0 is still a mode when its bytes are swapped.
        if known and min(sizes) > 0 and max(sizes) < 2**22:
            return header, order
    return None, "="


def _dtype(header: np.ndarray, mode: int, order: str) -> Optional[np.dtype]:
    if mode not in READABLE_MODES:
        return None
    kind = READABLE_MODES[mode]
    if mode == 0:
        stamp, flags = np.frombuffer(header["extra2"].tobytes()[40:48], dtype=order + "i4")
        if stamp == _IMOD_STAMP and not flags & 1:
            kind = "u1"
    return np.dtype(order + kind)


def _voxel_size(header: np.ndarray) -> float:
    samples, length = int(header["mx"]), float(header["cella"]["x"])
    if samples <= 0 or not math.isfinite(length) or length <= 0:
        return 0.0
    # The cell is float32: 7 digits are all there are, and 10.52 should read as 10.52.
    return float("%.7g" % (length / samples))


def _finite_origin(header: np.ndarray) -> Tuple[float, float, float]:
    values = [float(header["origin"][axis]) for axis in "xyz"]
    x, y, z = (value if math.isfinite(value) else 0.0 for value in values)
    return x, y, z


def reason(error: OSError) -> str:
    """What the operating system says, to stand inside a sentence."""
    return (error.strerror or str(error)).lower()

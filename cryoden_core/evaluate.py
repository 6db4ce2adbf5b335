"""What ``cryoden evaluate`` does: judge a volume against the truth, and its halves against each other.

The figures are those of :mod:`cryoden_core.metrics`.  A tomogram keeps neither gain nor offset, so the volume is first
brought to the truth's scale by the best affine fit; only ``psnr_minmax`` has its own scaling.  Volumes are not aligned.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional

import numpy as np

from . import metrics, mrc
from .jobs import EvaluateJob, JobError, write_json
from .progress import Progress

THRESHOLDS = (0.5, 0.143)

_ROWS = (
    ("correlation", "Correlation", "%.4f"),
    ("psnr_affine", "PSNR after affine fit (dB)", "%.2f"),
    ("psnr_minmax", "PSNR after min-max scaling (dB)", "%.2f"),
    ("ssim", "SSIM, 3-D, after affine fit", "%.4f"),
    ("vif", "VIF, mean of slices, after affine fit", "%.4f"),
    ("reference_resolution_0.5", "FSC with the truth = 0.5 at (%s)", "%.2f"),
    ("reference_resolution_0.143", "FSC with the truth = 0.143 at (%s)", "%.2f"),
    ("halves_resolution_0.5", "FSC of the halves = 0.5 at (%s)", "%.2f"),
    ("halves_resolution_0.143", "FSC of the halves = 0.143 at (%s)", "%.2f"),
)


def evaluate(job: EvaluateJob, progress: Optional[Progress] = None) -> Dict[str, Any]:
    """Compute the figures of merit, print them as a table and write them as JSON where the job says.

    Returns
    -------
    dict
        ``correlation``, ``psnr_affine``, ``psnr_minmax`` (whole volume, mask or not), ``ssim``, ``vif`` (whole volume),
        ``gain`` and ``offset`` of the affine fit, ``reference_resolution_0.5`` and ``_0.143``, the same for
        ``halves_`` when halves are given, ``resolution_unit`` (angstrom; voxels when no voxel size is known), and the
        curves ``reference_fsc`` and ``halves_fsc`` as {"frequency", "fsc"} with frequencies in cycles per unit.  None
        stands for what is infinite or undefined: volumes without any agreement have no resolution.

    Raises
    ------
    JobError
        When a file cannot be used or the volumes differ in size.
    """
    progress = progress or Progress(quiet=True)
    if job.output:
        mrc.check_writable(job.output)
    names = [name for name in ("test", "reference", "mask", "even", "odd") if getattr(job, name)]
    volumes = _read_alike([getattr(job, name) for name in names])
    given = dict(zip(names, volumes, strict=True))
    voxel_size = job.voxel_size or mrc.read_header(job.test).voxel_size or mrc.read_header(job.reference).voxel_size
    if not voxel_size:
        progress.warn("no voxel size is known: resolutions are in voxels; give --voxel-size for angstrom.")
    result: Dict[str, Any] = {
        "test": job.test, "reference": job.reference, "mask": job.mask or None, "voxel_size": voxel_size or None,
        "resolution_unit": "angstrom" if voxel_size else "voxels",
    }  # fmt: skip
    progress.stage("comparing with the truth")
    result.update(_against_truth(given["test"], given["reference"], given.get("mask")))
    curve = metrics.fsc(given["test"], given["reference"], given.get("mask"))
    result.update(_resolutions("reference", curve, voxel_size or 1.0))
    if "even" in given:
        progress.stage("comparing the halves")
        curve = metrics.fsc(given["even"], given["odd"], given.get("mask"))
        result.update(_resolutions("halves", curve, voxel_size or 1.0))
    result = {name: _storable(value) for name, value in result.items()}
    if job.output:
        with mrc.errors_of_writing(job.output):
            write_json(result, job.output)
    print(format_table(result))
    return result


def format_table(result: Dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text."""
    lines: List[str] = []
    for name, title, form in _ROWS:
        if name in result:
            title = title % result["resolution_unit"] if "%s" in title else title
            value = result[name]
            lines.append("%-42s %10s" % (title, "none" if value is None else form % value))
    return "\n".join(lines)


def _read_alike(paths: List[str]) -> List[np.ndarray]:
    shape = mrc.open_volume(paths[0]).shape
    for path in paths[1:]:
        found = mrc.open_volume(path).shape
        if found != shape:
            sizes = tuple(" x ".join(str(size) for size in reversed(sides)) for sides in (found, shape))
            raise JobError("%s has %s voxels (x, y, z) and %s has %s; they must be equal." % (
                path, sizes[0], paths[0], sizes[1]))  # fmt: skip
    for path in paths:
        mrc.check_finite_and_varying(path)
    return [mrc.read_volume(path) for path in paths]


def _against_truth(test: np.ndarray, truth: np.ndarray, mask: Optional[np.ndarray]) -> Dict[str, Optional[float]]:
    gain, offset = metrics.affine_fit(test, truth, mask)
    fitted = np.float32(gain) * test + np.float32(offset)
    return {
        "correlation": metrics.correlation(test, truth, mask),
        "psnr_affine": metrics.psnr(fitted, truth, mask=mask),
        "psnr_minmax": metrics.psnr_minmax(test, truth),
        "ssim": metrics.ssim3d(fitted, truth, mask=mask),
        "vif": metrics.vif(fitted, truth) if min(truth.shape[1:]) >= 17 else None,
        "gain": gain,
        "offset": offset,
    }


def _resolutions(name: str, curve: metrics.Curve, voxel_size: float) -> Dict[str, Any]:
    frequency, fsc = curve
    result: Dict[str, Any] = {
        "%s_fsc" % name: {
            "frequency": [float(value) for value in frequency / voxel_size],
            "fsc": [_storable(float(value)) for value in fsc],
        }
    }
    for threshold in THRESHOLDS:
        crossing = metrics.frequency_at(frequency, fsc, threshold)
        result["%s_resolution_%g" % (name, threshold)] = voxel_size / crossing if crossing > 0 else None
    return result


def _storable(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What ``cryoden evaluate volume`` does: judge a volume against the truth, and its halves against each other.

The figures are those of :mod:`cryoden_core.metrics`.  A tomogram keeps neither gain nor offset, so the volume is first
brought to the truth's scale by the best affine fit.  Beside them stand the figures that publications give, each with
its own scaling: min-max (NMSG) and standardised volumes (DUAL, table 1).  These can be won without restoring anything:
the first is ruled by two voxels, the peak of the second by gold beads, and a structural similarity of standardised
volumes with its tiny constants by how flat the background is.  With labels the figures near the specimen tell what
they do not.
The agreement with the truth ends where its Fourier shell correlation falls below a threshold from its highest value on,
since contrast transfer leaves little at the lowest frequencies; that of halves, which share it, at the first crossing,
as is the custom.  Volumes are not aligned.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from .. import metrics, mrc
from ..jobs import EvaluateJob, JobError
from ..progress import Progress
from .common import finish, line, read_alike, storable, voxel_size_of

THRESHOLDS = (0.5, 0.143)
#: The window and the ranges of DUAL's table 1; 2 is what its figures agree with, the others are told beside it.
_DUAL_WINDOW = 7

_ROWS = (
    ("correlation", "Correlation", "%.4f"),
    ("psnr_affine", "PSNR after affine fit (dB)", "%.2f"),
    ("psnr_minmax", "PSNR after min-max scaling (dB)", "%.2f"),
    ("ssim", "SSIM, 3-D, after affine fit", "%.4f"),
    ("vif", "VIF, mean of slices, after affine fit", "%.4f"),
    ("standardised_mse", "Mean square error, standardised", "%.4f"),
    ("standardised_psnr", "PSNR, standardised (dB)", "%.2f"),
    ("standardised_peak", "  its peak, the truth's range (sd)", "%.2f"),
    ("standardised_ssim_2", "SSIM, standardised, 7^3, range 2", "%.4f"),
    ("standardised_ssim_1", "SSIM, standardised, 7^3, range 1", "%.4f"),
    ("standardised_ssim_peak", "SSIM, standardised, 7^3, truth's range", "%.4f"),
    ("near_correlation", "Correlation near the specimen", "%.4f"),
    ("near_ssim", "SSIM near the specimen, after affine fit", "%.4f"),
    ("contrast_to_noise", "Contrast to noise, particles", "%.3f"),
    ("reference_resolution_0.5", "FSC with the truth = 0.5 at (%s) *", "%.2f"),
    ("reference_resolution_0.143", "FSC with the truth = 0.143 at (%s) *", "%.2f"),
    ("halves_resolution_0.5", "FSC of the halves = 0.5 at (%s)", "%.2f"),
    ("halves_resolution_0.143", "FSC of the halves = 0.143 at (%s)", "%.2f"),
)
#: Of the titles.
_WIDTH = 42
#: Where a curve is said to cross a threshold.
_RULES = {"reference": "from the curve's highest value on", "halves": "first crossing"}
_GAIN_ROWS = (
    ("psnr_gain", "PSNR over the input (dB)", "%+.2f"),
    ("mse_ratio", "Mean square error over the input's", "%.4f"),
)


def evaluate(job: EvaluateJob, progress: Progress | None = None) -> dict[str, Any]:
    """Compute the figures of merit, print them as a table and write them as JSON where the job says.

    Returns
    -------
    dict
        ``correlation``, ``psnr_affine``, ``psnr_minmax`` (whole volume, mask or not), ``ssim``, ``vif`` (whole volume),
        ``gain`` and ``offset`` of the affine fit; of the standardised volumes, whole, ``standardised_mse``, ``_psnr``,
        ``_peak`` and ``_ssim_1``, ``_2``, ``_peak`` by data range; with labels ``near_correlation``, ``near_ssim`` and
        ``contrast_to_noise``; ``reference_resolution_0.5`` and ``_0.143``, the same for ``halves_`` when halves are
        given, with ``_rule`` where the curve is said to cross; ``resolution_unit`` (angstrom; voxels when no voxel size
        is known), and the curves ``reference_fsc`` and ``halves_fsc`` as {"frequency", "fsc"} with frequencies in
        cycles per unit.  With an input, ``before`` holds the same figures of it, ``psnr_gain`` and ``mse_ratio``
        compare the standardised ones.  None stands for what is infinite or undefined: volumes without any agreement
        have no resolution.

    Raises
    ------
    JobError
        When a file cannot be used or the volumes differ in size.
    """
    progress = progress or Progress(quiet=True)
    if job.output:
        mrc.check_writable(job.output)
    names = [name for name in ("test", "reference", "input", "mask", "labels", "even", "odd") if getattr(job, name)]
    given = dict(zip(names, read_alike([getattr(job, name) for name in names]), strict=True))
    voxel_size = voxel_size_of(job.voxel_size, job.test, job.reference)
    if not voxel_size:
        progress.warn("no voxel size is known: resolutions are in voxels; give --voxel-size for angstrom.")
    result: dict[str, Any] = {
        "test": job.test, "reference": job.reference, "mask": job.mask or None, "voxel_size": voxel_size or None,
        "resolution_unit": "angstrom" if voxel_size else "voxels",
    }  # fmt: skip
    regions = _regions(job, given["labels"], voxel_size) if "labels" in given else None
    progress.stage("comparing with the truth")
    result.update(_against_truth(given["test"], given["reference"], given.get("mask"), regions, voxel_size))
    if "input" in given:
        progress.stage("comparing the input with the truth")
        before = _against_truth(given["input"], given["reference"], given.get("mask"), regions, voxel_size)
        result.update(_gain(result, before), before=before)
    if "even" in given:
        progress.stage("comparing the halves")
        curve = metrics.fsc(given["even"], given["odd"], given.get("mask"))
        result.update(_resolutions("halves", curve, voxel_size or 1.0))
    result = storable(result)
    finish(result, format_table(result), job.output)
    return result


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text; those of the input, when given, in a column of their own."""
    before = result.get("before")
    lines = [line("", "input", "volume", width=_WIDTH)] if before else []
    for name, title, form in (*_ROWS, *_GAIN_ROWS):
        if name in result:
            title = title % result["resolution_unit"] if "%s" in title else title
            beside = [before.get(name, "")] if before else []
            lines.append(line(title, *beside, result[name], form=form, width=_WIDTH))
    return "\n".join([*lines, f"* {_RULES['reference']}; without contrast transfer in the truth it may begin low"])


class _Regions:
    """Where the specimen is: weights near it, its voxels, and the background.

    Gold is neither particle nor background, and what lies near it is left out.
    """

    def __init__(self, labels: np.ndarray, gold_label: int, dilation: float) -> None:
        labels = np.rint(labels).astype(np.int32)
        gold = labels == gold_label if gold_label else np.zeros(labels.shape, bool)
        self.particles = (labels > 0) & ~gold
        near_gold = _within(gold, dilation)
        near = _within(self.particles, dilation)
        self.background = ~near & ~near_gold
        self.near = (near & ~near_gold).astype(np.float32)


def _regions(job: EvaluateJob, labels: np.ndarray, voxel_size: float) -> _Regions:
    if not voxel_size:
        raise JobError("the dilation around the labels is in angstrom and no voxel size is known; give --voxel-size.")
    regions = _Regions(labels, job.gold_label, job.dilation / voxel_size)
    if not regions.particles.any():
        raise JobError(f"{job.labels} has no voxel of a particle: every label is 0 or that of gold.")
    if not regions.near.any():
        raise JobError(f"within {job.dilation:g} angstrom of gold lies all that {job.labels} has; lower the dilation.")
    return regions


def _within(voxels: np.ndarray, distance: float) -> np.ndarray:
    """True no further than ``distance`` (voxels) from a voxel that is True."""
    if not voxels.any() or distance <= 0:
        return voxels
    return ndimage.distance_transform_edt(~voxels) <= distance


def _against_truth(
    test: np.ndarray, truth: np.ndarray, mask: np.ndarray | None, regions: _Regions | None, voxel_size: float
) -> dict[str, Any]:
    gain, offset = metrics.affine_fit(test, truth, mask)
    fitted = np.float32(gain) * test + np.float32(offset)
    figures = {
        "correlation": metrics.correlation(test, truth, mask),
        "psnr_affine": metrics.psnr(fitted, truth, mask=mask),
        "psnr_minmax": metrics.psnr_minmax(test, truth),
        "ssim": metrics.ssim3d(fitted, truth, mask=mask),
        "vif": metrics.vif(fitted, truth) if min(truth.shape[1:]) >= 17 else None,
        "gain": gain,
        "offset": offset,
        **_standardised(test, truth),
    }
    if regions:
        figures["near_correlation"] = metrics.correlation(test, truth, regions.near)
        near_gain, near_offset = metrics.affine_fit(test, truth, regions.near)
        fitted = np.float32(near_gain) * test + np.float32(near_offset)
        figures["near_ssim"] = metrics.ssim3d(fitted, truth, mask=regions.near)
        figures["contrast_to_noise"] = metrics.contrast_to_noise(test, regions.particles, regions.background)
    figures.update(_resolutions("reference", metrics.fsc(test, truth, mask), voxel_size or 1.0))
    return figures


def _standardised(test: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The figures of DUAL's table 1, whole volumes."""
    decibels, peak = metrics.psnr_standardised(test, truth)
    volumes = metrics.standardised(test), metrics.standardised(truth)
    figures = {
        "standardised_mse": metrics.standardised_square_error(test, truth),
        "standardised_psnr": decibels,
        "standardised_peak": peak,
    }
    for name, data_range in (("2", 2.0), ("1", 1.0), ("peak", peak)):
        figures["standardised_ssim_" + name] = metrics.ssim3d(*volumes, data_range, uniform_window=_DUAL_WINDOW)
    return figures


def _gain(after: dict[str, Any], before: dict[str, Any]) -> dict[str, float]:
    """What was gained on the input, by figures that do not depend on the truth's range."""
    wrong, now = before["standardised_mse"], after["standardised_mse"]
    return {
        "psnr_gain": after["standardised_psnr"] - before["standardised_psnr"],
        "mse_ratio": now / wrong if wrong > 0 else math.nan,
    }


def _resolutions(name: str, curve: metrics.Curve, voxel_size: float) -> dict[str, Any]:
    frequency, fsc = curve
    result: dict[str, Any] = {
        f"{name}_fsc": {"frequency": frequency / voxel_size, "fsc": fsc}, f"{name}_resolution_rule": _RULES[name],
    }  # fmt: skip
    for threshold in THRESHOLDS:
        crossing = metrics.frequency_at(frequency, fsc, threshold, from_highest=name == "reference")
        result[f"{name}_resolution_{threshold:g}"] = voxel_size / crossing if crossing > 0 else None
    return result

"""What ``cryoden evaluate wedge`` does: judge what was put into the missing wedge, and that nothing else was touched.

Three questions, each with its own figures.  Was the measured region kept?  Does the missing region correlate with the
truth, where one is known (0 before, and for anything that was only made to look right)?  And the self-test of the DUAL
paper (Zeng et al. 2024, table 3), which needs no truth: the filled volume is turned so that x and z change places, the
wedge that is now missing is cut out of it, the method fills it again, and the result is compared with the volume before
the cut.  That test judges a method by its own first output, so one that fills in nothing looks good; therefore the
power in the missing region, and what the cut volume scores without any method, stand beside it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from .. import metrics, mrc
from ..dual.missing_wedge import EXCHANGED, TiltRange, missing_part
from ..fourier import half_transform, hermitian_weights
from ..jobs import EvaluateWedgeJob, JobError
from ..progress import Progress
from .common import finish, line, read_alike, storable, voxel_size_of
from .repetition import read_method, repeat

_WINDOW = 7
#: A smaller share of the power is the rounding of single precision.
_ROUNDING = 1e-9
_TRUTH_ROWS = (
    ("correlation_missing", "correlation with the truth, missing region"),
    ("correlation_measured", "correlation with the truth, measured region"),
    ("missing_share", "share of the power in the missing region"),
)
_SELF_ROWS = (
    ("correlation_removed", "correlation in what was cut out"),
    ("missing_share", "share of the power there"),
    ("psnr", "PSNR, standardised (dB)"),
    ("ssim", "SSIM, standardised, 7^3, range 2"),
)


def evaluate(job: EvaluateWedgeJob, progress: Progress | None = None) -> dict[str, Any]:
    """Compute the figures, print them, write them as JSON and the self-test's volume where the job says.

    Returns
    -------
    dict
        ``measured_change`` (root mean square over that of the input); ``before`` and ``after`` with ``missing_share``
        and, with a truth, ``correlation_missing``, ``correlation_measured`` and the curve ``missing_fsc``;
        ``truth_missing_share``; with a filled self-test ``self_test``, and ``self_test_cut`` for the volume with the
        wedge cut out, see :func:`self_test`.

    Raises
    ------
    JobError
        When a file cannot be used or the volumes differ in size.
    """
    progress = progress or Progress(quiet=True)
    for path in job.outputs():
        mrc.check_writable(path)
    if job.job:
        read_method(job.job)
    names = [name for name in ("compensated", "input", "truth") if getattr(job, name)]
    given = dict(zip(names, read_alike([getattr(job, name) for name in names]), strict=True))
    tilts = TiltRange(job.tilt_min, job.tilt_max)
    progress.stage("comparing the measured and the missing region")
    measured = _measured(given["input"].shape, tilts)
    result: dict[str, Any] = {
        "measured_change": metrics.fourier_change(given["compensated"], given["input"], measured),
        "before": _region_figures(given["input"], given.get("truth"), tilts),
        "after": _region_figures(given["compensated"], given.get("truth"), tilts),
    }
    if "truth" in given:
        result["truth_missing_share"] = missing_share(given["truth"], tilts)
    result.update(_self_test(job, given["compensated"], tilts, progress))
    result = storable(result)
    finish(result, format_table(result), job.output)
    return result


def exchanged(volume: np.ndarray) -> np.ndarray:
    """The volume turned so that x and z change places and the tilt axis is reversed; twice gives it back."""
    return np.ascontiguousarray(EXCHANGED.apply(torch.from_numpy(volume)).numpy())


def prepare_self_test(compensated: np.ndarray, tilts: TiltRange) -> np.ndarray:
    """The filled volume turned by :func:`exchanged`, and without what a tilt series would miss of it then."""
    turned = exchanged(compensated)
    return turned - missing_part(turned, tilts)


def self_test(filled: np.ndarray, reference: np.ndarray, tilts: TiltRange) -> dict[str, float]:
    """How well what had been cut out was found again.

    Parameters
    ----------
    filled
        (z, y, x), what the method made of :func:`prepare_self_test`'s volume.
    reference
        The turned volume before the cut.
    tilts
        Range of the tilt series.

    Returns
    -------
    dict
        ``correlation_removed`` within what was cut out, ``missing_share`` of the power there, and the paper's ``psnr``
        and ``ssim`` of the standardised whole volumes.
    """
    volumes = metrics.standardised(filled), metrics.standardised(reference)
    return {
        "correlation_removed": _correlation_missing(filled, reference, tilts),
        "missing_share": missing_share(filled, tilts),
        "psnr": metrics.psnr_standardised(filled, reference)[0],
        "ssim": metrics.ssim3d(*volumes, data_range=2.0, uniform_window=_WINDOW),
    }


def missing_share(volume: np.ndarray, tilts: TiltRange) -> float:
    """Share of the power of a volume (z, y, x) that lies in directions that no view measured."""
    power = np.abs(half_transform(volume - volume.mean(dtype=np.float64).astype(np.float32))) ** 2
    power *= hermitian_weights(volume.shape[-1])
    return float((power * (1 - _measured(volume.shape, tilts))).sum() / power.sum())


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text."""
    lines = [line("change of the measured region", result["measured_change"], form="%.2e")]
    before, after = result["before"], result["after"]
    known = "truth_missing_share" in result
    lines.append(line("", "before", "filled", *(["truth"] if known else [])))
    for name, title in _TRUTH_ROWS:
        if name in after:
            truth = [result["truth_missing_share"]] if known and name == "missing_share" else []
            lines.append(line(title, before[name], after[name], *truth))
    if "self_test" in result:
        lines.append(line("self-test", "cut", "filled again"))
        lines += [line(title, result["self_test_cut"][name], result["self_test"][name]) for name, title in _SELF_ROWS]
    return "\n".join(lines)


def _region_figures(volume: np.ndarray, truth: np.ndarray | None, tilts: TiltRange) -> dict[str, Any]:
    figures: dict[str, Any] = {"missing_share": missing_share(volume, tilts)}
    if truth is not None:
        measured = _measured(volume.shape, tilts)
        frequency, _, missing = metrics.wedge_fsc(volume, truth, tilts.minimum, tilts.maximum)
        figures["correlation_missing"] = _correlation_missing(volume, truth, tilts)
        figures["correlation_measured"] = metrics.fourier_correlation(volume, truth, measured)
        figures["missing_fsc"] = {"frequency": frequency, "fsc": missing}
    return figures


def _correlation_missing(volume: np.ndarray, truth: np.ndarray, tilts: TiltRange) -> float:
    """Correlation in the missing region; 0 where the volume holds nothing there but rounding."""
    if missing_share(volume, tilts) < _ROUNDING:
        return 0.0
    return metrics.fourier_correlation(volume, truth, 1 - _measured(volume.shape, tilts))


def _self_test(job: EvaluateWedgeJob, compensated: np.ndarray, tilts: TiltRange, progress: Progress) -> dict[str, Any]:
    if not (job.self_test or job.self_test_filled):
        return {}
    cut, filled = prepare_self_test(compensated, tilts), job.self_test_filled
    if job.self_test:
        progress.stage("writing the self-test")
        mrc.write_volume(job.self_test, cut, voxel_size_of(0.0, job.compensated, job.input))
    if job.job:
        progress.stage("filling the self-test")
        filled = "_filled".join(os.path.splitext(job.self_test))
        repeat(job.job, job.self_test, filled)
    if not filled:
        return {}
    reference = exchanged(compensated)
    again = read_filled(filled, reference.shape)
    return {"self_test": self_test(again, reference, tilts), "self_test_cut": self_test(cut, reference, tilts)}


def read_filled(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The self-test as a method filled it.

    Raises
    ------
    JobError
        When the file cannot be used or has another size than the test.
    """
    mrc.check_finite_and_varying(path)
    found = mrc.open_volume(path).shape
    if found != shape:
        sizes = mrc.size_text(found), mrc.size_text(shape)
        raise JobError(
            f"{path} has {sizes[0]} voxels (x, y, z) and the self-test has {sizes[1]}: x and z change places in it."
        )
    return mrc.read_volume(path)


def _measured(shape: tuple[int, ...], tilts: TiltRange) -> np.ndarray:
    """1 where a coefficient of the half layout was measured, else 0, (z, y, x // 2 + 1) float32."""
    measured = tilts.measured(shape[0], shape[2])[:, None, :].astype(np.float32)
    return np.broadcast_to(measured, (shape[0], shape[1], measured.shape[2]))

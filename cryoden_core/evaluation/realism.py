"""What ``cryoden evaluate realism`` does: how far simulated tomograms are from real ones.

A simulation is compared with the real set figure by figure, and beside it stand three rows that give the figures their
meaning: one half of the real set against the other (no simulation can be expected to be nearer), and, where the density
maps are given, the map with white noise and the map with noise of the measured spectrum, which need no learning.
Figures, after each volume is standardised: distances of the log power spectrum by shell and in the plane of the missing
wedge, power in the missing wedge relative to the real, level of the noise, moments, distance of the distributions
(Wasserstein), difference of the autocorrelation at 1 to 8 voxels, and whether classifiers can tell the sets apart
(:mod:`.two_sample`).

Several draws of one map show whether the simulator makes different noise at all.  The paper gives no number for
realism; the limits are those of this program, for a first verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from .. import metrics, mrc
from ..fourier import missing_wedge_mask
from ..jobs import EvaluateRealismJob, JobError
from ..progress import Progress
from .blocks import Blocks, Measurements, Shape, cut_blocks
from .common import finish, line, read_alike, storable
from .spectrum_matching import spectrum_matched, white_noise_added
from .two_sample import enough, linear_test, network_test

#: Cycles per voxel between which spectra, and the wedge's power, are compared.
_BAND, _WEDGE_BAND = (0.02, 0.45), (0.05, 0.35)
_VALUES = 200_000
_DRAWS = (
    ("correlation", "draws of one map, correlation"),
    ("residual_correlation", "  without their mean"),
    ("residual_expected", "  to be expected"),
    ("residual_departure", "  farthest pair from it"),
    ("independence", "  noise with the map"),
)

_ROWS = (
    ("radial_distance", "power by shell, |log ratio|"),
    ("polar_distance", "power by direction in x z, |log ratio|"),
    ("wedge_ratio", "power in the missing wedge over the real"),
    ("noise_ratio", "deviation of the emptiest blocks over the real"),
    ("wasserstein", "distribution, Wasserstein distance (sd)"),
    ("skewness_difference", "skewness, difference"),
    ("kurtosis_difference", "excess kurtosis, difference"),
    ("autocorrelation_difference", "autocorrelation, largest difference"),
)


def evaluate(job: EvaluateRealismJob, progress: Progress | None = None) -> dict[str, Any]:
    """Compare the sets, print a table and write the figures as JSON where the job says.

    Returns
    -------
    dict
        ``rows``: for ``simulated``, ``real_halves`` and, with clean maps, ``white_noise`` and ``spectrum_matched``, the
        figures of :func:`compare` and ``linear`` and ``network`` as {"accuracy", "low", "high", "tested"} (None where
        there are too few blocks); ``draws``, see :func:`diversity`; ``signal``, see :func:`effective_signal`;
        ``within_limits``, a verdict for each figure of the simulation.

    Raises
    ------
    JobError
        When a file cannot be used or a volume is too small for the blocks.
    """
    progress = progress or Progress(quiet=True)
    if job.output:
        mrc.check_writable(job.output)
    for path in (*job.real, *job.simulated, *job.clean, *job.draws, *job.real_clean):
        mrc.check_finite_and_varying(path)
    edge = _block_edge(job)
    real, simulated = ([mrc.read_volume(path) for path in paths] for paths in (job.real, job.simulated))
    clean = [read_alike([path, beside])[1] for path, beside in zip(job.simulated, job.clean, strict=False)]
    real_clean = [read_alike([path, beside])[1] for path, beside in zip(job.real, job.real_clean, strict=False)]
    result: dict[str, Any] = {"block": edge, "signal": effective_signal(job, real, real_clean, simulated, clean)}
    share = min((result["signal"].get("real") or job.signal_share**0.5) ** 2, 0.99)
    of_real = cut_blocks(real, edge, seed=job.seed)
    sets = {"real_halves": of_real.where(of_real.side == 1), "simulated": cut_blocks(simulated, edge, seed=job.seed)}
    if clean:
        tilts = (job.tilt_min, job.tilt_max)
        noisy = [white_noise_added(v, share, tilts, job.seed + i) for i, v in enumerate(clean)]
        sets["white_noise"] = cut_blocks(noisy, edge, seed=job.seed)
        noisy = [spectrum_matched(v, real, share, tilts, job.seed + i) for i, v in enumerate(clean)]
        sets["spectrum_matched"] = cut_blocks(noisy, edge, seed=job.seed)
    rows = {}
    for name, blocks in progress.track(sets.items(), "comparing with the real tomograms", len(sets)):
        reference = of_real.where(of_real.side == 0) if name == "real_halves" else of_real
        rows[name] = {**compare(blocks, reference, (job.tilt_min, job.tilt_max)), **_told_apart(blocks, reference, job)}
    result["rows"] = rows
    if job.draws:
        result["draws"] = diversity(read_alike(job.draws), clean[0] if clean else None)
    result["within_limits"] = verdicts(result)
    result = storable(result)
    if result["rows"]["simulated"]["linear"] is None:
        progress.warn("too few blocks for the classifiers: take larger or more volumes, or smaller blocks.")
    finish(result, format_table(result), job.output)
    return result


def compare(test: Blocks, real: Blocks, tilt_range: tuple[float, float]) -> dict[str, float]:
    """The figures of one set against the real one, see the module's text."""
    of_test, of_real = test.measured, real.measured
    band = _within(of_real.frequency, _BAND)
    radial = np.log(of_test.radial.mean(axis=0) / of_real.radial.mean(axis=0))
    polar = np.log(of_test.polar.mean(axis=0) / of_real.polar.mean(axis=0))
    values = [_some_values(blocks) for blocks in (test, real)]
    lags = of_test.autocorrelation.mean(axis=0) - of_real.autocorrelation.mean(axis=0)
    return {
        "radial_distance": float(np.nanmean(np.abs(radial[band]))),
        "polar_distance": float(np.nanmean(np.abs(polar[band]))),
        "wedge_ratio": wedge_energy(of_test, tilt_range) / wedge_energy(of_real, tilt_range),
        "noise_ratio": _noise_level(of_test) / _noise_level(of_real),
        "wasserstein": float(stats.wasserstein_distance(*values)),
        "skewness_difference": float(stats.skew(values[0]) - stats.skew(values[1])),
        "kurtosis_difference": float(stats.kurtosis(values[0]) - stats.kurtosis(values[1])),
        "autocorrelation_difference": float(np.abs(lags).max()),
    }


def wedge_energy(measured: Measurements, tilt_range: tuple[float, float]) -> float:
    """Power density in the missing wedge over that of the measured directions, shell by shell, averaged; 1 without."""
    outside = (measured.angle_degrees < tilt_range[0]) | (measured.angle_degrees > tilt_range[1])
    if not outside.any():
        return math.nan
    power = measured.polar.mean(axis=0)[_within(measured.frequency, _WEDGE_BAND)]
    return float(np.mean(np.nanmean(power[:, outside], axis=1) / np.nanmean(power[:, ~outside], axis=1)))


def _noise_level(measured: Measurements) -> float:
    """Standard deviation of the blocks with the least: a tenth of all, which hold hardly more than noise."""
    deviations = np.exp(measured.moments[:, 0])
    return float(np.mean(deviations[deviations <= np.quantile(deviations, 0.1)]))


def diversity(draws: Sequence[np.ndarray], clean: np.ndarray | None = None) -> dict[str, Any]:
    """How different several simulations of one map are.

    Returns
    -------
    dict
        ``correlation``: mean over pairs; 1 says that there is no randomness at all.  From three draws on
        ``residual_correlation``, after their mean is taken off, which should be ``residual_expected`` = -1 / (n - 1)
        for each pair, as the mean over pairs is whatever the draws; ``residual_departure`` is the farthest pair's.
        With the map, ``independence``: the largest correlation, in absolute value, of a residual with it.
    """
    volumes = [metrics.standardised(volume) for volume in draws]
    pairs = list(itertools.combinations(range(len(volumes)), 2))
    result: dict[str, Any] = {
        "count": len(volumes),
        "correlation": float(np.mean([metrics.correlation(volumes[i], volumes[j]) for i, j in pairs])),
    }
    mean = np.mean(volumes, axis=0)
    residuals = [volume - mean for volume in volumes]
    if len(volumes) > 2:
        found = [metrics.correlation(residuals[i], residuals[j]) for i, j in pairs]
        expected = -1 / (len(volumes) - 1)
        departure = float(np.max(np.abs(np.array(found) - expected)))
        result.update(
            residual_correlation=float(np.mean(found)), residual_expected=expected, residual_departure=departure
        )
    if clean is not None:
        result["independence"] = float(np.max(np.abs([metrics.correlation(item, clean) for item in residuals])))
    return result


def effective_signal(
    job: EvaluateRealismJob,
    real: Sequence[np.ndarray],
    real_clean: Sequence[np.ndarray],
    simulated: Sequence[np.ndarray],
    clean: Sequence[np.ndarray],
) -> dict[str, float | None]:
    """Correlation with the density map in the measured region, of ``simulated`` and, where it is known, of ``real``.

    A simulation that shows its map much better than real tomograms show theirs makes the task too easy; a network may
    have hidden the map in it.
    """
    result: dict[str, float | None] = {"simulated": None, "real": None}
    for name, volumes, maps in (("simulated", simulated, clean), ("real", real, real_clean)):
        found = [
            metrics.fourier_correlation(
                volume, truth, missing_wedge_mask(volume.shape, job.tilt_min, job.tilt_max).astype(np.float32)
            )
            for volume, truth in zip(volumes, maps, strict=False)
        ]
        result[name] = float(np.mean(found)) if found else None
    return result


def verdicts(result: dict[str, Any]) -> dict[str, bool]:
    """Whether each figure of the simulation is within its limit: distances at most twice those of real halves."""
    simulated, halves = result["rows"]["simulated"], result["rows"]["real_halves"]
    found = {
        name: abs(simulated[name]) <= 2 * abs(halves[name])
        for name in ("radial_distance", "polar_distance", "wasserstein", "skewness_difference", "kurtosis_difference")
    }
    found["noise_ratio"] = 0.95 <= simulated["noise_ratio"] <= 1.05
    found["wedge_ratio"] = 0.8 <= simulated["wedge_ratio"] <= 1.2
    found["autocorrelation_difference"] = simulated["autocorrelation_difference"] <= 0.02
    for name in ("linear", "network"):
        if simulated[name]:
            found[name] = simulated[name]["accuracy"] <= 0.65
    if "draws" in result:
        draws = result["draws"]
        if "residual_departure" in draws:
            found["residual_departure"] = draws["residual_departure"] <= 0.1
        if "independence" in draws:
            found["independence"] = draws["independence"] <= 0.05
    if result["signal"]["simulated"] and result["signal"]["real"]:
        found["signal"] = abs(result["signal"]["simulated"] / result["signal"]["real"] - 1) <= 0.1
    return found


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text."""
    rows = result["rows"]
    names = {"simulated": "simulated", "real_halves": "real halves", "white_noise": "white noise",
             "spectrum_matched": "spectrum"}  # fmt: skip
    shown = [name for name in names if name in rows]
    lines = [line("against the real tomograms", *(names[name] for name in shown), "verdict")]
    verdict = {name: "" if ok is None else "within" if ok else "beyond" for name, ok in result["within_limits"].items()}
    for key, title in _ROWS:
        lines.append(line(title, *(rows[name][key] for name in shown), verdict.get(key, "")))
    for key, title in (("linear", "told apart by a linear classifier"), ("network", "told apart by a network")):
        found = [rows[name][key] for name in shown]
        if any(found):
            cells = [item and "%.2f" % item["accuracy"] for item in found]
            lines.append(line(title, *cells, verdict.get(key, "")))
            intervals = [item and "%.2f..%.2f" % (item["low"], item["high"]) for item in found]
            lines.append(line("  95 % interval", *intervals))
    signal = result["signal"]
    if signal["simulated"] is not None:
        lines.append(line("correlation with the map, measured region", signal["simulated"], signal["real"]))
    lines += [line(title, result["draws"][key]) for key, title in _DRAWS if key in result.get("draws", {})]
    return "\n".join(lines)


def _told_apart(blocks: Blocks, real: Blocks, job: EvaluateRealismJob) -> dict[str, Any]:
    if not (enough(blocks) and enough(real)):
        return {"linear": None, "network": None}
    found = {"linear": linear_test(blocks, real, job.seed)}
    if job.network_steps:
        found["network"] = network_test(blocks, real, job.network_steps, job.seed)
    told: dict[str, Any] = {"network": None}
    for name, accuracy in found.items():
        low, high = accuracy.interval
        told[name] = {"accuracy": accuracy.value, "low": low, "high": high, "tested": accuracy.tested}
    return told


def _block_edge(job: EvaluateRealismJob) -> Shape:
    """The largest block, up to that of the job, that fits the thickness and half of y and x of every volume."""
    shapes = {path: mrc.open_volume(path).shape for path in (*job.real, *job.simulated)}
    for path, shape in shapes.items():
        if shape[0] < 16 or min(shape[1:]) < 32:
            raise JobError(f"{path} is too small to be compared by blocks; it needs 32 x 32 x 16 voxels (x, y, z).")
    room = [min(shape[axis] // (1 if axis == 0 else 2) for shape in shapes.values()) for axis in range(3)]
    z, y, x = (min(job.edge, size) // 2 * 2 for size in room)
    return z, y, x


def _some_values(blocks: Blocks) -> np.ndarray:
    values = blocks.data.ravel()
    return values[:: max(1, len(values) // _VALUES)].astype(np.float64)


def _within(frequency: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    return (frequency >= band[0]) & (frequency <= band[1])

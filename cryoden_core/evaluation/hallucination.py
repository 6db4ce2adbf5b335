"""What ``cryoden evaluate hallucination`` does: does a denoiser make particles where there are none?

The denoiser is given volumes that hold no structure: the tomogram with its Fourier phases randomised (the same
spectrum, nothing in it), the tomogram's voxels shuffled, and a tomogram of an empty region where there is one.
Particles are picked in what it makes of them, by difference of Gaussians, at the height that the weakest of the best N
picks of the denoised tomogram has: what is counted is what a person would take for a particle.  Two controls say how
many are to be expected: the number before denoising, at the height of the N-th pick of the tomogram itself, for noise
has blobs of its own; and the number in the denoised volume with its phases shuffled, which has its spectrum but no
arrangement, for any linear filter makes as many as that.  More than both is invention.

Beside it stand the agreement that denoised halves have beyond that of the halves themselves, and the particles that are
left in what was removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from .. import metrics, mrc
from ..jobs import EvaluateHallucinationJob, JobError
from ..picking import PUBLISHED, PickingSettings, Picks, difference_of_gaussians, pick
from ..progress import Progress
from .common import finish, line, read_alike, required_voxel_size, storable
from .repetition import read_method, repeat
from .spectrum_matching import phase_randomised, voxels_shuffled

#: Shuffles of the phases that a control is averaged over.
SHUFFLES = 5
#: Detections beyond both controls that chance makes as seldom as this are invented.
SIGNIFICANCE = 0.01
_CHANCES = ("more_than_before", "more_than_control")

_TITLES = {
    "tomogram": "tomogram", "phase_randomised": "phases randomised", "shuffled": "voxels shuffled", "empty": "empty",
}  # fmt: skip


def evaluate(job: EvaluateHallucinationJob, progress: Progress | None = None) -> dict[str, Any]:
    """Make the volumes without structure, have them denoised or read them denoised, and count.

    Returns
    -------
    dict
        ``controls``, the files that were written; and, once denoised volumes are there, what :func:`detections` and,
        with halves, :func:`agreement_beyond_data` give, and ``left_in_residual`` of :func:`contrast_at`.

    Raises
    ------
    JobError
        When a file cannot be used or the volumes differ in size.
    """
    progress = progress or Progress(quiet=True)
    if job.output:
        mrc.check_writable(job.output)
    if job.job:
        read_method(job.job)
    size = required_voxel_size(job.voxel_size, job.tomogram)
    given = ["tomogram", *(["empty"] if job.empty else [])]
    before = {name: read_alike([getattr(job, name)])[0] for name in given}
    before["phase_randomised"] = phase_randomised(before["tomogram"], job.seed)
    before["shuffled"] = voxels_shuffled(before["tomogram"], job.seed)
    after = {
        "tomogram": job.denoised, "phase_randomised": job.denoised_randomised, "shuffled": job.denoised_shuffled,
        "empty": job.denoised_empty,
    }  # fmt: skip
    result: dict[str, Any] = {}
    if job.controls:
        result["controls"] = _write_controls(job, before, size)
        if job.job:
            after.update(_denoise(job, result["controls"], progress))
    table = "written: " + ", ".join(result["controls"].values()) if job.controls else ""
    if after["tomogram"] and after["phase_randomised"]:
        progress.stage("picking")
        named = {name: path for name, path in after.items() if path and name in before}
        volumes = {name: read_like(path, before[name]) for name, path in named.items()}
        settings = PickingSettings(job.sigma, job.ratio, job.exclusion, 0.0, job.contrast == "dark")
        result.update(detections({name: before[name] for name in named}, volumes, size, settings, job.count, job.seed))
        kept = _inner_picks(volumes["tomogram"], size, settings).best(job.count)
        result["left_in_residual"] = _left_in_residual(before["tomogram"], volumes["tomogram"], kept, size, settings)
        if job.even:
            halves = read_alike([job.even, job.odd, job.denoised_even, job.denoised_odd])
            result["halves"] = agreement_beyond_data(*halves)
        table = format_table(result)
    result = storable(result)
    finish(result, table, job.output)
    return result


def judge(
    denoise: Callable[[np.ndarray], np.ndarray],
    tomogram: np.ndarray,
    voxel_size: float,
    settings: PickingSettings = PUBLISHED,
    count: int = 100,
    seed: int = 1,
    empty: np.ndarray | None = None,
) -> dict[str, Any]:
    """:func:`detections` for a denoiser given as a function of a volume (z, y, x)."""
    before = {
        "tomogram": tomogram, "phase_randomised": phase_randomised(tomogram, seed),
        "shuffled": voxels_shuffled(tomogram, seed),
    }  # fmt: skip
    if empty is not None:
        before["empty"] = empty
    after = {name: denoise(volume) for name, volume in before.items()}
    return detections(before, after, voxel_size, settings, count, seed)


def detections(
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    voxel_size: float,
    settings: PickingSettings = PUBLISHED,
    count: int = 100,
    seed: int = 1,
) -> dict[str, Any]:
    """Count particles in volumes without structure, before and after denoising.

    Parameters
    ----------
    before, after
        Volumes (z, y, x) by name: ``tomogram``, which sets the height, and any without structure.
    voxel_size
        Angstrom.
    settings
        How to pick.
    count
        Particles that a person would pick in the tomogram.
    seed
        Of the controls.

    Returns
    -------
    dict
        ``picks``, the number that set the height; ``volumes``: by name ``before``, ``after`` and ``control`` as counts,
        ``per_cubic_micrometre`` (after), ``more_than_before`` and ``more_than_control``, the probabilities that chance
        makes at least so many; ``invents``, whether both are below 0.01 (over the number of volumes) for any volume.
    """

    def count_above(volume: np.ndarray, height: float) -> int:
        return _inner_picks(volume, voxel_size, settings).above(height)

    heights = [_height(_inner_picks(volumes["tomogram"], voxel_size, settings), count) for volumes in (before, after)]
    rows: dict[str, Any] = {}
    for name in (name for name in after if name != "tomogram"):
        found = [count_above(v[name], height) for v, height in zip((before, after), heights, strict=True)]
        copies = (phase_randomised(after[name], seed + 1 + number) for number in range(SHUFFLES))
        shuffled = sum(count_above(copy, heights[1]) for copy in copies)
        room = np.array(after[name].shape) - 2 * _margin(after[name], voxel_size, settings)
        rows[name] = {
            "before": found[0], "after": found[1], "control": shuffled / SHUFFLES,
            "per_cubic_micrometre": float(found[1] / np.prod(room * voxel_size * 1e-4)),
            "more_than_before": _chance(found[1], found[0], 1),
            "more_than_control": _chance(found[1], shuffled, SHUFFLES),
        }  # fmt: skip
    least = min(max(row[name] for name in _CHANCES) for row in rows.values())
    return {"picks": count, "volumes": rows, "invents": least * len(rows) < SIGNIFICANCE}


def agreement_beyond_data(
    even: np.ndarray, odd: np.ndarray, denoised_even: np.ndarray, denoised_odd: np.ndarray
) -> dict[str, Any]:
    """How much more denoised halves agree than the halves do.

    A linear filter changes nothing.  What a denoiser adds is knowledge from elsewhere: its training, or invention that
    does not depend on the data.  Where the halves agree on nothing (Fourier shell correlation below 0.143) it can only
    be the latter two.

    Returns
    -------
    dict
        ``frequency``, ``fsc_before``, ``fsc_after`` by shell, and ``excess``, the mean gain over the shells below
        0.143.
    """
    frequency, raw = metrics.fsc(even, odd)
    _, denoised = metrics.fsc(denoised_even, denoised_odd)
    silent = np.isfinite(raw) & np.isfinite(denoised) & (raw < 0.143)
    excess = float(np.mean(denoised[silent] - raw[silent])) if silent.any() else None
    return {"frequency": frequency, "fsc_before": raw, "fsc_after": denoised, "excess": excess}


def contrast_at(residual: np.ndarray, positions: np.ndarray, sigma: float, seed: int = 1) -> float:
    """Mean blob contrast of a residual at positions, in standard errors of that at random places; noise gives about 0.

    Parameters
    ----------
    residual
        (z, y, x), what was removed or is not explained.
    positions
        (n, 3) z, y, x in voxels.
    sigma
        Scale of the particles, voxels.
    seed
        Of the random places.
    """
    filtered = difference_of_gaussians(residual, sigma)
    places = np.random.default_rng(seed).integers(0, residual.shape, (20_000, 3))
    background = filtered[tuple(places.T)]
    found = filtered[tuple(np.rint(positions).astype(int).T)]
    return float((found.mean() - background.mean()) / (background.std() / np.sqrt(len(found))))


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text."""
    lines = [line("detections at the height of pick %d" % result["picks"], "before", "after", "control", "after/um^3")]
    for name, row in result["volumes"].items():
        counts = ["%d" % row["before"], "%d" % row["after"], "%.1f" % row["control"]]
        lines.append(line(_TITLES[name], *counts, "%.0f" % row["per_cubic_micrometre"]))
        chances = ["" if row[key] >= SIGNIFICANCE else "p = %.1g" % row[key] for key in _CHANCES]
        if any(chances):
            lines.append(line("  more than chance", chances[0], "", chances[1]))
    lines.append("verdict: " + ("particles are invented" if result["invents"] else "no more than chance makes"))
    lines.append(line("particle contrast left in what was removed (s.e.)", result["left_in_residual"], form="%.2f"))
    if "halves" in result:
        lines.append(line("agreement of the halves beyond the data", result["halves"]["excess"], form="%+.3f"))
    return "\n".join(lines)


def read_like(path: str, volume: np.ndarray) -> np.ndarray:
    """Read a denoised volume; one that is constant is allowed, for nothing is the right answer to nothing.

    Raises
    ------
    JobError
        When the file cannot be used or its size is not that of ``volume``.
    """
    found = mrc.open_volume(path)
    if found.shape != volume.shape:
        sizes = mrc.size_text(found.shape), mrc.size_text(volume.shape)
        raise JobError(f"{path} has {sizes[0]} voxels (x, y, z) and what it was made from has {sizes[1]}.")
    if np.isnan(mrc.volume_statistics(found).mean):
        raise JobError(f"{path} holds NaN or infinite values; repair it first.")
    return mrc.read_volume(path)


def _inner_picks(volume: np.ndarray, voxel_size: float, settings: PickingSettings) -> Picks:
    """Picks away from the faces, where filters that mirror the volume make noise count double."""
    picks, margin = pick(volume, voxel_size, settings), _margin(volume, voxel_size, settings)
    inside = ((picks.positions >= margin) & (picks.positions < np.array(volume.shape) - margin)).all(axis=1)
    return Picks(picks.positions[inside], picks.scores[inside])


def _margin(volume: np.ndarray, voxel_size: float, settings: PickingSettings) -> np.ndarray:
    """Three widths of the filter, but no more than a quarter of a side; voxels along z, y, x."""
    return np.minimum(int(np.ceil(3 * settings.sigma / voxel_size)), np.array(volume.shape) // 4)


def _height(picks: Picks, count: int) -> float:
    """The score of the ``count``-th pick, or of the last."""
    return float(picks.scores[min(count, len(picks.scores)) - 1]) if len(picks.scores) else np.inf


def _chance(found: int, expected: int, exposures: int) -> float:
    """Probability that chance makes at least so many, given ``expected`` in ``exposures`` controls.

    The conditional test of two Poisson counts (Przyborowski and Wilenski 1940).
    """
    total = found + expected
    return float(stats.binomtest(found, total, 1 / (1 + exposures), "greater").pvalue) if total else 1.0


def _left_in_residual(
    tomogram: np.ndarray, denoised: np.ndarray, picks: Picks, voxel_size: float, settings: PickingSettings
) -> float | None:
    """Contrast of the residual at picks of the denoised tomogram; above 0 particles were weakened."""
    if len(picks.scores) == 0:
        return None
    contrast = contrast_at(tomogram - denoised, picks.positions, settings.sigma / voxel_size)
    return -contrast if settings.dark else contrast


def _write_controls(job: EvaluateHallucinationJob, before: dict[str, np.ndarray], voxel_size: float) -> dict[str, str]:
    paths = {name: os.path.join(job.controls, name + ".mrc") for name in ("phase_randomised", "shuffled")}
    for name, path in paths.items():
        mrc.write_volume(path, before[name], voxel_size)
    return paths


def _denoise(job: EvaluateHallucinationJob, controls: dict[str, str], progress: Progress) -> dict[str, str]:
    inputs = {"tomogram": job.tomogram, **controls, **({"empty": job.empty} if job.empty else {})}
    outputs = {name: os.path.join(job.controls, name + "_denoised.mrc") for name in inputs}
    for name, path in inputs.items():
        progress.stage("denoising: " + _TITLES[name])
        repeat(job.job, path, outputs[name])
    return outputs

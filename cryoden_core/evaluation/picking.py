"""What ``cryoden evaluate picking`` does: how well particles can be found in a tomogram.

The protocol is that of the DUAL paper (Zeng et al. 2024, table 2): the best 500 picks of the difference of Gaussians in
each tomogram, a pick within 8 nm of a particle is right.  An F1 at a given number of picks has a ceiling, which is told
beside it; the average precision does not depend on that number.  Several tomograms give means, standard deviations
over tomograms, and the 95 % interval of the mean by resampling them, which says little for fewer than five.

Classes play no part in picking; with named classes in the truth, the recall of each is told.  What is long or lies in
a membrane is no blob: of the kinds in a file of our own phantoms only the free particles are counted unless others are
asked for.  A pick of anything else is wrong.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import mrc
from ..jobs import EvaluatePickingJob, JobError
from ..picking import (
    DetectionScore,
    PickingSettings,
    Picks,
    TruePositions,
    average_precision,
    f1_ceiling,
    match,
    pick,
    precision_recall_curve,
    read_positions,
    write_picks,
)
from ..progress import Progress
from .common import finish, line, required_voxel_size, storable

FIGURES = ("precision", "recall", "f1", "f1_ceiling", "average_precision", "f1_best")
_TITLES = ("precision", "recall", "F1", "F1 ceiling", "av. precision", "best F1")
_RESAMPLES = 2000


def evaluate(job: EvaluatePickingJob, progress: Progress | None = None) -> dict[str, Any]:
    """Pick in every tomogram, compare with the truth, print a table, write picks and figures where the job says.

    Returns
    -------
    dict
        ``tomograms``, a list with ``tomogram``, ``picks`` (their number), ``picks_file`` and, with a truth, ``truths``,
        ``hits``, ``precision``, ``recall``, ``f1``, ``f1_ceiling``, ``average_precision``, ``f1_best`` (over all
        numbers of picks) with ``picks_of_f1_best``, ``recall_of_class``, and ``curve`` with ``precision`` and
        ``recall`` of the first 1, 2, ... picks.  For several tomograms ``mean``, ``sd`` (over tomograms, n - 1) and
        ``interval`` (95 %, bootstrap) of each figure.

    Raises
    ------
    JobError
        When a file cannot be used, the voxel size is unknown, or true positions lie outside their tomogram.
    """
    progress = progress or Progress(quiet=True)
    truths = [read_positions(path, job.kinds) for path in job.truth]
    sizes = [required_voxel_size(job.voxel_size, path) for path in job.tomograms]
    for index, path in enumerate(job.tomograms):
        mrc.check_finite_and_varying(path)
        if truths:
            _check_inside(truths[index], path, job.truth[index])
    for path in (job.output, os.path.join(job.picks, "picks_1.star") if job.picks else ""):
        if path:
            mrc.check_writable(path)
    settings = PickingSettings(job.sigma, job.ratio, job.exclusion, job.clip, job.contrast == "dark")
    rows = []
    for index, path in progress.track(enumerate(job.tomograms), "picking", len(job.tomograms)):
        picks = pick(mrc.read_volume(path), sizes[index], settings)
        truth = truths[index] if truths else None
        kept = picks.best(job.count or (len(truth.positions) if truth else 0))
        row: dict[str, Any] = {"tomogram": path, "picks": len(kept.scores), "picks_file": None}
        if job.picks:
            row["picks_file"] = os.path.join(job.picks, f"picks_{index + 1}.star")
            write_picks(kept, row["picks_file"], os.path.splitext(os.path.basename(path))[0])
        if truth:
            row.update(score(picks, truth, job.count or len(truth.positions), job.tolerance / sizes[index]))
        rows.append(row)
    result: dict[str, Any] = {"tomograms": rows}
    if truths and len(rows) > 1:
        result.update(summary(rows))
    result = storable(result)
    finish(result, format_table(result), job.output)
    return result


def score(picks: Picks, truth: TruePositions, count: int, tolerance: float) -> dict[str, Any]:
    """Compare a list of picks with the truth.

    Parameters
    ----------
    picks
        All that were found, the highest first.
    truth
        Where the particles are.
    count
        Picks that are demanded; the rest only extends the curve.
    tolerance
        Voxels.
    """
    matched = match(picks.positions, truth.positions, tolerance)
    total = len(truth.positions)
    found = matched[:count][matched[:count] >= 0]
    at_count = DetectionScore(min(count, len(matched)), total, len(found))
    precision, recall = precision_recall_curve(matched, total)
    numbers = np.arange(1, len(matched) + 1)
    f1 = 2 * np.cumsum(matched >= 0) / (numbers + total)
    best = int(np.argmax(f1)) if len(f1) else -1
    of_class = {name: np.flatnonzero(np.array(truth.classes) == name) for name in sorted(set(truth.classes)) if name}
    return {
        "truths": total,
        "hits": len(found),
        "precision": at_count.precision,
        "recall": at_count.recall,
        "f1": at_count.f1,
        "f1_ceiling": f1_ceiling(at_count.picks, total),
        "average_precision": average_precision(matched, total),
        "f1_best": float(f1[best]) if len(f1) else 0.0,
        "picks_of_f1_best": best + 1,
        "recall_of_class": {name: float(np.isin(members, found).mean()) for name, members in of_class.items()},
        "curve": {"precision": precision, "recall": recall},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and the 95 % bootstrap interval of the mean over tomograms, for each figure."""
    values = np.array([[row[name] for name in FIGURES] for row in rows])
    drawn = np.random.default_rng(0).integers(0, len(rows), (_RESAMPLES, len(rows)))
    means = values[drawn].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return {
        "mean": dict(zip(FIGURES, values.mean(axis=0), strict=True)),
        "sd": dict(zip(FIGURES, values.std(axis=0, ddof=1), strict=True)),
        "interval": {name: [low[i], high[i]] for i, name in enumerate(FIGURES)},
    }


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text."""
    rows = result["tomograms"]
    if "f1" not in rows[0]:
        return "\n".join(line(row["tomogram"], row["picks"], form="%d picks") for row in rows)
    lines = [line("", *_TITLES, "picks", "true")]
    for row in rows:
        cells = ["%.3f" % row[name] for name in FIGURES]
        lines.append(line(row["tomogram"], *cells, str(row["picks"]), str(row["truths"])))
    if "mean" in result:
        lines.append(line("mean", *(result["mean"][name] for name in FIGURES), form="%.3f"))
        lines.append(line("standard deviation over tomograms", *(result["sd"][n] for n in FIGURES), form="%.3f"))
        intervals = ["%.3f..%.3f" % tuple(result["interval"][name]) for name in FIGURES]
        lines.append(line("95 % of the mean (bootstrap)", *intervals))
    elif rows[0]["recall_of_class"]:
        lines += [line("  recall of " + name, "", value, form="%.3f")
                  for name, value in rows[0]["recall_of_class"].items()]  # fmt: skip
    return "\n".join(lines)


def _check_inside(truth: TruePositions, tomogram: str, path: str) -> None:
    shape = mrc.open_volume(tomogram).shape
    outside = ((truth.positions < -0.5) | (truth.positions > np.array(shape) - 0.5)).any(axis=1)
    if outside.all():
        raise JobError(
            f"no position of {path} lies inside {tomogram}; coordinates must be in voxels of this tomogram, not in "
            "angstrom or unbinned pixels."
        )

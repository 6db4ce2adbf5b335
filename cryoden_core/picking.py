"""Find particles as blobs of one size, and score what was found against where the particles are.

The picker is the difference of Gaussians of the DUAL paper (Zeng et al. 2024, table 2; the filter is that of Voss et
al. 2009): a band-pass at the particle's scale, local maxima in order of their height, a smallest distance between two
picks, the best N.  It knows no classes, so it measures how well particles stand out and nothing else.  A ball of radius
r stands out most at sigma = r / sqrt(3): 8 nm is the scale of a ribosome.

Picks are matched with true positions one to one; a curve over the number of picks gives the average precision, which
does not depend on where the list is cut.  Coordinates are (z, y, x) in voxels, 0-based; lengths in angstrom.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .jobs import JobError
from .star import read_table, star_word, write_table

#: Maxima below this share of the highest are the rounding of single precision, not blobs.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class PickingSettings:
    """How to pick, with the values of the DUAL paper.

    Attributes
    ----------
    sigma
        Width of the inner Gaussian, angstrom.
    ratio
        Width of the outer Gaussian over that of the inner.
    exclusion
        Smallest distance between two picks, angstrom.
    clip
        Densities further than this many standard deviations from the mean are brought there first, which tames gold
        beads; 0 leaves all as they are.
    dark
        Particles are darker than their surroundings.
    """

    sigma: float = 80.0
    ratio: float = 1.1
    exclusion: float = 240.0
    clip: float = 0.0
    dark: bool = False


#: The settings of the DUAL paper.
PUBLISHED = PickingSettings()


@dataclass(frozen=True, eq=False)
class Picks:
    """Picked positions (n, 3) as z, y, x in voxels, and their scores (n,), the highest first."""

    positions: np.ndarray
    scores: np.ndarray

    def best(self, count: int) -> Picks:
        """The ``count`` highest picks (all, when there are fewer)."""
        return Picks(self.positions[:count], self.scores[:count])

    def above(self, score: float) -> int:
        """How many picks reach a score."""
        return int(np.count_nonzero(self.scores >= score))


@dataclass(frozen=True, eq=False)
class TruePositions:
    """Where the particles are: positions (n, 3) as z, y, x in voxels, and the names of their classes (n,)."""

    positions: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DetectionScore:
    """Precision, recall and their harmonic mean; 0 when nothing was picked or nothing is there."""

    picks: int
    truths: int
    hits: int

    @property
    def precision(self) -> float:
        """Share of the picks that are particles."""
        return self.hits / self.picks if self.picks else 0.0

    @property
    def recall(self) -> float:
        """Share of the particles that were picked."""
        return self.hits / self.truths if self.truths else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / (self.picks + self.truths) if self.picks + self.truths else 0.0


def difference_of_gaussians(volume: np.ndarray, sigma: float, ratio: float = 1.1) -> np.ndarray:
    """``G(sigma) * volume - G(ratio * sigma) * volume``; positive where something bright of that scale is.

    Parameters
    ----------
    volume
        (z, y, x).
    sigma
        Standard deviation of the inner Gaussian, voxels.
    ratio
        Outer over inner standard deviation, above 1.

    Returns
    -------
    np.ndarray
        (z, y, x) float32; the volume is mirrored at its faces.
    """
    if sigma <= 0 or ratio <= 1:
        raise ValueError("sigma must be above 0 and the ratio above 1")
    # Without the mean the two large numbers that are subtracted keep their digits.
    values = np.asarray(volume, dtype=np.float32)
    values = values - np.float32(values.mean(dtype=np.float64))
    inner = ndimage.gaussian_filter(values, sigma)
    return inner - ndimage.gaussian_filter(values, ratio * sigma)


def pick(volume: np.ndarray, voxel_size: float, settings: PickingSettings = PUBLISHED) -> Picks:
    """Every local maximum of the difference of Gaussians that keeps its distance from higher ones.

    Parameters
    ----------
    volume
        (z, y, x), finite.
    voxel_size
        Angstrom; converts the settings' lengths.
    settings
        Scale, distance and contrast.

    Returns
    -------
    Picks
        The highest first; cut it with ``best`` or ``above``.
    """
    return peaks(response(volume, voxel_size, settings), settings.exclusion / voxel_size)


def response(volume: np.ndarray, voxel_size: float, settings: PickingSettings = PUBLISHED) -> np.ndarray:
    """How much each place looks like the middle of a particle: (z, y, x) float32; parameters as for :func:`pick`."""
    values = np.asarray(volume, dtype=np.float32)
    if settings.clip > 0:
        mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        values = np.clip(values, mean - settings.clip * sd, mean + settings.clip * sd)
    filtered = difference_of_gaussians(values, settings.sigma / voxel_size, settings.ratio)
    return -filtered if settings.dark else filtered


def peaks(response: np.ndarray, distance: float, allowed: np.ndarray | None = None) -> Picks:
    """The local maxima of a response (z, y, x) that are no nearer than ``distance`` voxels to a higher one.

    ``allowed`` (z, y, x) is true where a peak may lie; a peak elsewhere is left out before the others are compared.
    """
    positions, scores = _maxima(response)
    if allowed is not None:
        inside = allowed[tuple(positions.astype(int).T)]
        positions, scores = positions[inside], scores[inside]
    kept = _apart(positions, distance)
    return Picks(positions[kept], scores[kept])


def _maxima(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive maxima over the 18 neighbours, the highest first: positions (n, 3) and values (n,)."""
    highest = ndimage.maximum_filter(values, footprint=ndimage.generate_binary_structure(3, 2))
    positions = np.argwhere((values == highest) & (values > _ROUNDING * values.max()))
    scores = values[tuple(positions.T)]
    order = np.argsort(-scores, kind="stable")
    return positions[order].astype(float), scores[order]


def _apart(positions: np.ndarray, distance: float) -> np.ndarray:
    """Indices of the positions that lie no nearer than ``distance`` to an earlier one that was kept."""
    if distance <= 0 or len(positions) == 0:
        return np.arange(len(positions))
    tree = cKDTree(positions)
    free = np.ones(len(positions), bool)
    kept = []
    for index in range(len(positions)):
        if free[index]:
            kept.append(index)
            near = np.array(tree.query_ball_point(positions[index], distance))
            free[near[np.linalg.norm(positions[near] - positions[index], axis=1) < distance]] = False
    return np.array(kept, dtype=int)


def match(picks: np.ndarray, truths: np.ndarray, tolerance: float) -> np.ndarray:
    """Which true position each pick is, one to one.

    Picks choose in their order: each takes the nearest true position within the tolerance that no earlier pick has.
    So the first n picks are matched in the same way however many follow.

    Parameters
    ----------
    picks, truths
        (n, 3) and (m, 3), in the same unit as the tolerance.
    tolerance
        Largest distance of a hit.

    Returns
    -------
    np.ndarray
        (n,) index of the true position, -1 for a false pick.
    """
    result = np.full(len(picks), -1)
    if len(truths) == 0 or len(picks) == 0:
        return result
    free = np.ones(len(truths), bool)
    tree = cKDTree(truths)
    for index, near in enumerate(tree.query_ball_point(picks, tolerance)):
        near = [item for item in near if free[item]]
        if near:
            chosen = near[int(np.argmin(np.linalg.norm(truths[near] - picks[index], axis=1)))]
            result[index], free[chosen] = chosen, False
    return result


def precision_recall_curve(matched: np.ndarray, truths: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (n,) of the first 1, 2, ... n picks.

    Parameters
    ----------
    matched
        What :func:`match` returned.
    truths
        Number of true positions.
    """
    hits = np.cumsum(matched >= 0)
    return hits / np.arange(1, len(matched) + 1), hits / max(truths, 1)


def average_precision(matched: np.ndarray, truths: int) -> float:
    """Area under precision over recall: the precision at each hit, averaged over all particles (missed ones give 0)."""
    precision, _ = precision_recall_curve(matched, truths)
    return float(precision[matched >= 0].sum() / truths) if truths else 0.0


def f1_ceiling(picks: int, truths: int) -> float:
    """The highest F1 that so many picks can have: as many as can be are right."""
    return DetectionScore(picks, truths, min(picks, truths)).f1


def read_positions(path: str | Path, kinds: Sequence[str] = ()) -> TruePositions:
    """Positions from a STAR file of particles, in voxels of the tomogram.

    Read are ``rlnCoordinateX``, ``Y`` and ``Z``; the class is ``cryodenClassName``, else ``rlnClassNumber``, else
    nothing.

    Parameters
    ----------
    path
        The file.
    kinds
        Rows of other kinds (``cryodenKind``) are left out; without kinds here or in the file none is.

    Raises
    ------
    JobError
        When the file is missing or has no coordinates.
    """
    if not os.path.isfile(path):
        raise JobError(f"the file of positions {path} does not exist.")
    try:
        table = read_table(path, "particles")
        columns = set(table.getColumnNames())
        rows = list(table)
        positions = np.array([[row.rlnCoordinateZ, row.rlnCoordinateY, row.rlnCoordinateX] for row in rows], float)
    except Exception as error:
        # The reader of STAR files fails in ways of its own; whatever it was, the file cannot be used.
        raise JobError(f"cannot read positions from {path}: it is no STAR file with rlnCoordinateX, Y, Z.") from error
    if kinds and "cryodenKind" in columns:
        wanted = [row.cryodenKind.replace("_", " ") in kinds for row in rows]
        rows, positions = [row for row, is_wanted in zip(rows, wanted, strict=True) if is_wanted], positions[wanted]
    if len(rows) == 0 or not np.isfinite(positions).all():
        of_kind = f" of kind {' or '.join(kinds)}" if kinds else ""
        raise JobError(f"{path} holds no positions{of_kind}, or some that are not finite numbers.")
    label = next((name for name in ("cryodenClassName", "rlnClassNumber") if name in columns), "")
    return TruePositions(positions, tuple(str(getattr(row, label)) if label else "" for row in rows))


def write_picks(picks: Picks, path: str | Path, tomogram_name: str) -> None:
    """Write picks as a STAR file, whole or not at all: tomogram, coordinates in voxels, score."""
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnAutopickFigureOfMerit"]
    name = star_word(tomogram_name)
    rows = [
        (name, *(float(value) for value in position[::-1]), float(score))
        for position, score in zip(picks.positions, picks.scores, strict=True)
    ]
    write_table(path, "particles", columns, rows)

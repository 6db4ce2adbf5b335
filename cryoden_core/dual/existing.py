"""Grand models made elsewhere: plain MRC files, SHREC folders and outputs of PolNet.

* A plain file ``NAME.mrc`` may have ``NAME_labels.mrc`` beside it.
* A SHREC folder (Gubins et al. (2021), SHREC tracks 2020 and 2021) holds ``grandmodel.mrc``, ``class_mask.mrc``,
  ``occupancy_mask.mrc`` (instances) and ``particle_locations.txt``: name, x, y, z in voxels, three angles (ZXZ).
* A PolNet folder (Martinez-Sanchez et al. (2024)) holds ``tomos/tomo_den_N.mrc``, ``tomo_lbls_N.mrc`` and, for all of
  them, ``tomos_motif_list.csv``: tab-separated, positions in angstrom, orientations as quaternions, scalar first.

Only the densities must be there.  The grey scale is kept, but for the sign; the angles are taken as scipy's intrinsic
ZXZ, and neither these nor the quaternions have been compared with densities.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..jobs import JobError
from ..mrc import check_finite_and_varying, open_volume, read_header, read_volume
from ..phantom.packing import GrandModel
from ..phantom.particles import Particle
from ..tiling import Shape, shape_of
from .domains import resample, resampled_shape

#: Names that SHREC gives to what is no particle.
_SHREC_SHAPES = {"vesicle": "vesicle", "fiducial": "bead"}
#: Half the edge of the cube around a position in which its label is looked for, voxels.
_NEAR = 2


@dataclass(frozen=True)
class ExistingModel:
    """Files of one grand model; ``labels``, ``instances`` and ``locations`` may be None."""

    density: Path
    labels: Path | None = None
    instances: Path | None = None
    locations: Path | None = None


def find_models(sources: Sequence[str]) -> list[ExistingModel]:
    """The grand models of files and folders.

    Raises
    ------
    JobError
        When a source does not exist or holds no grand model, or a density cannot be read.
    """
    models = [model for source in sources for model in _models_of(Path(source))]
    for model in models:
        volume = open_volume(str(model.density))
        for other in (model.labels, model.instances):
            if other and open_volume(str(other)).shape != volume.shape:
                raise JobError(f"{other} and {model.density} differ in size; they must lie on one grid.")
        if read_header(str(model.density)).voxel_size <= 0:
            raise JobError(f"the grand model {model.density} has no voxel size in its header; set it first.")
        check_finite_and_varying(volume, str(model.density))
    return models


def _models_of(source: Path) -> list[ExistingModel]:
    if source.is_file():
        return [ExistingModel(source, _present(source.with_name(f"{source.stem}_labels.mrc")))]
    shrec = source / "grandmodel.mrc"
    if shrec.exists():
        names = ("class_mask.mrc", "occupancy_mask.mrc", "particle_locations.txt")
        return [ExistingModel(shrec, *(_present(source / name) for name in names))]
    table = _present(source / "tomos_motif_list.csv")
    densities = sorted((source / "tomos").glob("tomo_den_*.mrc")) or sorted(source.glob("tomo_den_*.mrc"))
    if densities:
        labels = [path.with_name(path.name.replace("tomo_den", "tomo_lbls")) for path in densities]
        pairs = zip(densities, labels, strict=True)
        return [ExistingModel(density, _present(label), None, table) for density, label in pairs]
    raise JobError(
        f"{source} is neither an MRC file nor a folder with a grand model (grandmodel.mrc of SHREC, tomo_den_N.mrc of "
        "PolNet)."
    )


def _present(path: Path) -> Path | None:
    return path if path.exists() else None


def read_model(model: ExistingModel, voxel_size: float, sign: str = "bright") -> GrandModel:
    """A grand model at a voxel size (angstrom), with bright protein whatever the ``sign`` of the file.

    Raises
    ------
    JobError
        When a file cannot be read or a table of locations is not of the form that its program writes.
    """
    own = read_header(str(model.density)).voxel_size
    density = read_volume(str(model.density))
    labels = _read_numbers(model.labels, density.shape)
    instances = _read_numbers(model.instances, density.shape)
    particles, names = _read_locations(model, own, labels, instances)
    shape = resampled_shape(shape_of(density), own / voxel_size)
    if shape != density.shape:
        scale = np.array(shape)[::-1] / np.array(density.shape)[::-1]
        density = resample(density, shape)
        labels, instances = (resample_numbers(numbers, shape) for numbers in (labels, instances))
        particles = [dataclasses.replace(particle, position=particle.position * scale) for particle in particles]
    for label in np.unique(labels[labels > 0]).tolist():
        names.setdefault(int(label), f"class_{label}")
    bright = density if sign == "bright" else -density
    return GrandModel(bright, labels.astype(np.int16), instances.astype(np.int32), particles, names, voxel_size)


def _read_numbers(path: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    if path is None:
        return np.zeros(shape, np.int32)
    return np.rint(read_volume(str(path))).astype(np.int32)


def resample_numbers(numbers: np.ndarray, shape: Shape) -> np.ndarray:
    """Labels on another grid of the same extent, each voxel taking its nearest one's; the first voxel stays."""
    index = [
        np.minimum(np.rint(np.arange(new) * old / new).astype(int), old - 1)
        for old, new in zip(numbers.shape, shape, strict=True)
    ]
    return numbers[np.ix_(*index)]


def _read_locations(
    model: ExistingModel, voxel_size: float, labels: np.ndarray, instances: np.ndarray
) -> tuple[list[Particle], dict[int, str]]:
    """Particles in the voxels of the file, and the names of the classes by label."""
    if model.locations is None:
        return [], {}
    try:
        if model.locations.suffix == ".txt":
            rows = _shrec_rows(model.locations)
        else:
            rows = _polnet_rows(model.locations, model.density.name, voxel_size)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise JobError(f"the table of locations {model.locations} is not as its program writes it: {error}.") from error
    numbers = _labels_of_names([(row.name, row.position) for row in rows], labels)
    particles = [
        Particle(row.kind, row.name, numbers[row.name], row.position, row.rotation,
                 instance=_majority(instances, row.position)) for row in rows
    ]  # fmt: skip
    return particles, {number: name for name, number in numbers.items()}


def _shrec_rows(path: Path) -> list[Particle]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            name, *numbers = line.split()
            x, y, z, *angles = (float(number) for number in numbers)
            turn = Rotation.from_euler("ZXZ", angles, degrees=True).as_matrix() if len(angles) == 3 else np.eye(3)
            kind = _SHREC_SHAPES.get(name.lower(), "particle")
            rows.append(Particle(kind, name, 0, np.array([x, y, z]), turn))
    return rows


def _polnet_rows(path: Path, density: str, voxel_size: float) -> list[Particle]:
    with open(path, newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, dialect=csv.excel_tab))
    rows = []
    for row in table:
        if Path(row["Density"]).name == density:
            position = np.array([float(row[axis]) for axis in "XYZ"]) / voxel_size
            scalar, *vector = (float(row[f"Q{index}"]) for index in range(1, 5))
            norm = np.hypot(scalar, np.linalg.norm(vector))
            turn = Rotation.from_quat([*vector, scalar]).as_matrix() if norm > 0 else np.eye(3)
            kind = "vesicle" if row["Type"].lower().startswith("m") and not row["Code"] else "particle"
            rows.append(Particle(kind, row["Code"] or row["Type"], int(float(row["Label"])), position, turn))
    return rows


def _labels_of_names(found: list[tuple[str, np.ndarray]], labels: np.ndarray) -> dict[str, int]:
    """The label that most of a name's positions lie on; names without any get numbers that are free."""
    votes: dict[str, Counter[int]] = {}
    for name, position in found:
        vote = _majority(labels, position)
        votes.setdefault(name, Counter()).update([vote] if vote else [])
    numbers: dict[str, int] = {}
    for name in sorted(votes, key=lambda n: -sum(votes[n].values())):
        open_votes = [number for number, _ in votes[name].most_common() if number not in numbers.values()]
        free = max([int(labels.max()), *numbers.values()]) + 1
        numbers[name] = open_votes[0] if open_votes else free
    return numbers


def _majority(numbers: np.ndarray, position: np.ndarray) -> int:
    """The number other than 0 that most voxels around a position (x, y, z) have; 0 when there is none."""
    centre = np.rint(position[::-1]).astype(int)
    box = tuple(slice(max(c - _NEAR, 0), max(c + _NEAR + 1, 0)) for c in centre)
    near = numbers[box]
    return Counter(near[near > 0].tolist()).most_common(1)[0][0] if (near > 0).any() else 0

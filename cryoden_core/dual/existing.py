"""Grand models made elsewhere: plain MRC files, SHREC folders and outputs of PolNet.

* A plain file ``NAME.mrc`` may have ``NAME_labels.mrc`` beside it.
* A SHREC folder (Gubins et al. (2021), SHREC tracks 2020 and 2021) holds ``grandmodel.mrc``, ``class_mask.mrc``,
  ``occupancy_mask.mrc`` (an object's number is that of its line in the table) and ``particle_locations.txt``: name,
  x, y, z in voxels, three angles.  The template is turned by Rz(a) Rx(b) Rz(c), scipy's intrinsic ZXZ; vesicles and
  gold have NaN for angles.  In the data set with mirrored particles the table does not say which are.
* PolNet (Martinez-Sanchez et al. (2024)) writes, since version 1.1, ``TomoNNN/tomo_NNN_den.mrc``, ``_lbl.mrc`` and
  ``_motif_list.csv``; before, ``tomos/tomo_den_N.mrc``, ``tomo_lbls_N.mrc`` and one ``tomos_motif_list.csv``.  The
  tables are separated by tabs, with positions in angstrom and the quaternion that turns the template, scalar first.
  Of membranes they list points of the surface with their normals, which are no objects and are left out.

Both are as the programs' sources have it; neither was compared with a data set.  Only the densities must be there.
The grey scale is kept, but for the sign.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..jobs import JobError
from ..mrc import check_finite_and_varying, open_volume, read_header, read_volume
from ..phantom.packing import GrandModel
from ..phantom.particles import Particle
from ..tiling import shape_of
from .domains import resample, resample_numbers, resampled_shape

_SHREC_DENSITY = "grandmodel.mrc"
#: Names that SHREC gives to what is no particle.
_SHREC_SHAPES = {"vesicle": "vesicle", "fiducial": "bead", "fiducials": "bead"}
#: The writer of SHREC's models gives this voxel size to every file, angstrom.
_SHREC_UNSET = 1.0
#: What PolNet's types are here, in the words of its first and of its later versions.
_POLNET_KINDS = {
    "helix": "filament", "filament": "filament", "actin": "filament", "microtubule": "filament",
    "mb-sawlc": "membrane protein", "mbprotein": "membrane protein",
}  # fmt: skip
#: Half the edge of the cube around a position in which its label is looked for, voxels.
_NEAR = 2


@dataclass(frozen=True)
class ExistingModel:
    """Files of one grand model, all but the density optional, and its voxel size in angstrom."""

    density: Path
    labels: Path | None = None
    instances: Path | None = None
    locations: Path | None = None
    voxel_size: float = 0.0


def find_models(sources: Sequence[str], voxel_size: float = 0.0) -> list[ExistingModel]:
    """The grand models of files and folders; ``voxel_size`` (angstrom) is theirs, 0 takes that of each header.

    Raises
    ------
    JobError
        When a source does not exist or holds no grand model, or a density cannot be read or has no voxel size.
    """
    models = [model for source in sources for model in _models_of(Path(source))]
    return [_checked(model, voxel_size) for model in models]


def _checked(model: ExistingModel, voxel_size: float) -> ExistingModel:
    """The model with its voxel size."""
    volume = open_volume(str(model.density))
    for other in (model.labels, model.instances):
        if other and open_volume(str(other)).shape != volume.shape:
            raise JobError(f"{other} and {model.density} differ in size; they must lie on one grid.")
    size = voxel_size or read_header(str(model.density)).voxel_size
    if size <= 0:
        raise JobError(
            f"the grand model {model.density} has no voxel size in its header; give it with existing_voxel_size."
        )
    if model.density.name == _SHREC_DENSITY and not voxel_size and size == _SHREC_UNSET:
        raise JobError(
            f"the header of {model.density} says voxels of 1 A, which SHREC's program writes whatever they are; give "
            "existing_voxel_size (10 for the full data set of 2021)."
        )
    check_finite_and_varying(volume, str(model.density))
    return dataclasses.replace(model, voxel_size=size)


def _models_of(source: Path) -> list[ExistingModel]:
    if source.is_file():
        return [ExistingModel(source, _present(source.with_name(f"{source.stem}_labels.mrc")))]
    models = _shrec_models(source) or _polnet_models(source)
    if not models:
        raise JobError(
            f"{source} is neither an MRC file nor a folder with a grand model (grandmodel.mrc of SHREC, "
            "tomo_NNN_den.mrc or tomo_den_N.mrc of PolNet)."
        )
    return models


def _shrec_models(folder: Path) -> list[ExistingModel]:
    return [
        ExistingModel(
            path, _present(path.with_name("class_mask.mrc")), _present(path.with_name("occupancy_mask.mrc")),
            _present(path.with_name("particle_locations.txt")),
        ) for path in _found(folder, _SHREC_DENSITY, f"model_*/{_SHREC_DENSITY}")
    ]  # fmt: skip


def _polnet_models(folder: Path) -> list[ExistingModel]:
    models = []
    for path in _found(folder, "tomo_*_den.mrc", "Tomo*/tomo_*_den.mrc"):
        stem = path.name.removesuffix("_den.mrc")
        labels, table = (_present(path.with_name(stem + end)) for end in ("_lbl.mrc", "_motif_list.csv"))
        models.append(ExistingModel(path, labels, None, table))
    if models:
        return models
    table = _present(folder / "tomos_motif_list.csv") or _present(folder.parent / "tomos_motif_list.csv")
    for path in _found(folder, "tomo_den_*.mrc", "tomos/tomo_den_*.mrc"):
        labels = _present(path.with_name(path.name.replace("tomo_den", "tomo_lbls")))
        models.append(ExistingModel(path, labels, None, table))
    return models


def _found(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first pattern that has any, in order."""
    return next((paths for pattern in patterns if (paths := sorted(folder.glob(pattern)))), [])


def _present(path: Path) -> Path | None:
    return path if path.exists() else None


def read_model(model: ExistingModel, voxel_size: float, sign: str = "bright") -> GrandModel:
    """A grand model at a voxel size (angstrom), with bright protein whatever the ``sign`` of the file.

    Raises
    ------
    JobError
        When a file cannot be read or a table of locations is not of the form that its program writes.
    """
    own = model.voxel_size
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


def _read_locations(
    model: ExistingModel, voxel_size: float, labels: np.ndarray, instances: np.ndarray
) -> tuple[list[Particle], dict[int, str]]:
    """Particles in the voxels of the file, and the names of the classes by label."""
    if model.locations is None:
        return [], {}
    try:
        if model.locations.suffix == ".txt":
            return _shrec_particles(model.locations, labels, instances)
        return _polnet_particles(model.locations, model.density.name, voxel_size)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise JobError(f"the table of locations {model.locations} is not as its program writes it: {error}.") from error


def _shrec_particles(path: Path, labels: np.ndarray, instances: np.ndarray) -> tuple[list[Particle], dict[int, str]]:
    boxes = ndimage.find_objects(instances)
    rows, found = [], []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        name, *numbers = line.split()
        x, y, z, *angles = (float(text) for text in numbers)
        known = len(angles) == 3 and bool(np.isfinite(angles).all())
        turn = Rotation.from_euler("ZXZ", angles, degrees=True).as_matrix() if known else np.eye(3)
        kind, position = _SHREC_SHAPES.get(name.lower(), "particle"), np.array([x, y, z])
        # What is hollow has nothing, or something else, at its position, but its number is that of its line.
        numbered = number if number <= len(boxes) and boxes[number - 1] else 0
        instance = (kind != "particle" and numbered) or _majority(instances, position) or numbered
        box = boxes[instance - 1] if instance else ()
        label = _most(labels[box][instances[box] == instance]) if instance else _majority(labels, position)
        found.append((name, label))
        rows.append(Particle(kind, name, 0, position, turn, instance=instance))
    numbers_of = _labels_of_names(found, int(labels.max()))
    return [dataclasses.replace(row, label=numbers_of[row.name]) for row in rows], {
        number: name for name, number in numbers_of.items()
    }


def _polnet_particles(path: Path, density: str, voxel_size: float) -> tuple[list[Particle], dict[int, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, dialect=csv.excel_tab))
    particles: list[Particle] = []
    names: dict[int, str] = {}
    chains: dict[tuple[int, str], int] = {}
    for row in table:
        # A table of the first versions is for all tomograms, a later one for its own.
        if "Density" in row and Path(row["Density"]).name != density:
            continue
        given = {name.lower(): value for name, value in row.items()}
        label, kind = int(float(given["label"])), given["type"].lower()
        if kind == "membrane":
            names.setdefault(label, _free("membrane_" + given["code"], label, names))
            continue
        name = names.setdefault(label, _free(given["code"] or given["type"], label, names))
        scalar, *vector = (float(given[f"q{index}"]) for index in range(1, 5))
        norm = np.hypot(scalar, np.linalg.norm(vector))
        turn = Rotation.from_quat([*vector, scalar]).as_matrix() if norm > 0 else np.eye(3)
        position = np.array([float(given[axis]) for axis in "xyz"]) / voxel_size
        chain = chains.setdefault((label, given["polymer"]), len(chains) + 1)
        particles.append(Particle(_POLNET_KINDS.get(kind, "particle"), name, label, position, turn, chain=chain))
    return particles, names


def _free(name: str, label: int, names: dict[int, str]) -> str:
    """The name, with its label added where another class has it."""
    return f"{name}_{label}" if name in names.values() else name


def _labels_of_names(found: list[tuple[str, int]], largest: int) -> dict[str, int]:
    """The label that most objects of a name lie on; names without any get numbers that are free."""
    votes: dict[str, Counter[int]] = {}
    for name, vote in found:
        votes.setdefault(name, Counter()).update([vote] if vote else [])
    numbers: dict[str, int] = {}
    for name in sorted(votes, key=lambda n: -sum(votes[n].values())):
        open_votes = [number for number, _ in votes[name].most_common() if number not in numbers.values()]
        free = max([largest, *numbers.values()]) + 1
        numbers[name] = open_votes[0] if open_votes else free
    return numbers


def _majority(numbers: np.ndarray, position: np.ndarray) -> int:
    """The number other than 0 that most voxels around a position (x, y, z) have; 0 when there is none."""
    centre = np.rint(position[::-1]).astype(int)
    return _most(numbers[tuple(slice(max(c - _NEAR, 0), max(c + _NEAR + 1, 0)) for c in centre)])


def _most(numbers: np.ndarray) -> int:
    """The most frequent number other than 0; 0 when there is none."""
    counted = Counter(numbers[numbers > 0].tolist())
    return int(counted.most_common(1)[0][0]) if counted else 0

"""Density maps and atomic models of single macromolecules, brought to one voxel size and one density.

Maps from different sources differ in voxel size and in grey scale.  Each is divided by its mass-weighted mean density
(the integral of the squared density over that of the density), which for a blurred object of uniform density is a
little less than the density inside it and needs no threshold chosen by hand; it is the same for all templates then.
Atomic models are rendered on an absolute scale (:mod:`atoms`), where nucleic acid is denser than protein.

Maps are neither filtered to a common resolution nor corrected for their contrast transfer function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..jobs import JobError
from ..mrc import read_header, read_volume
from ..star import star_word
from .atoms import ATOMIC_MODEL_SUFFIXES, is_atomic_model, read_atoms, render_atoms

MAP_SUFFIXES = (".mrc", ".map")
#: Resolution of rendered atomic models where none is given, voxels: the finest that the grid can carry.
RESOLUTION_IN_VOXELS = 2.0
#: Volume of a kilodalton of protein, angstrom^3 (0.73 cm3/g).
ANGSTROM3_PER_KILODALTON = 1210.0
#: Voxels with at least this share of a template's highest density count as the particle and get its label.
LABEL_LEVEL = 0.25
#: Densities below this share of the interior density are taken as solvent.
SOLVENT_LEVEL = 0.02


@dataclass(frozen=True, eq=False)
class Template:
    """One macromolecule to be placed.

    Attributes
    ----------
    name
        Name of the class of particles.
    density
        Cube of odd edge, (n, n, n) as (z, y, x), float32; solvent 0, mass-weighted mean 1, the centre of mass at the
        central voxel.
    voxel_size
        Angstrom.
    """

    name: str
    density: np.ndarray
    voxel_size: float

    @property
    def mass(self) -> float:
        """Integral of the density, angstrom cubed."""
        return float(self.density.sum(dtype=np.float64)) * self.voxel_size**3

    @property
    def kilodalton(self) -> float:
        """Mass of as much protein as the density holds; right within about a third, nucleic acid counts for more."""
        return self.mass / ANGSTROM3_PER_KILODALTON

    @property
    def voxels(self) -> int:
        """Voxels that the labels volume gives to a particle."""
        return int((self.density > LABEL_LEVEL * self.density.max()).sum())


def interior_density(density: np.ndarray) -> float:
    """Mass-weighted mean density of an object, whatever the grey scale: ``sum(d ** 2) / sum(d)``.

    Parameters
    ----------
    density
        Any shape, solvent 0; negative values are ignored.

    Raises
    ------
    JobError
        When nothing is positive.
    """
    values = density[density > 0].astype(np.float64)
    if not values.size:
        raise JobError("a density map holds no positive density; give maps with bright protein on a zero background.")
    return float((values**2).sum() / values.sum())


def make_template(name: str, density: np.ndarray, voxel_size: float, new_voxel_size: float) -> Template:
    """Resample, normalise and centre one density map.

    Parameters
    ----------
    name
        Name of the class.
    density
        (z, y, x), bright protein; the solvent level is taken from the map's faces.
    voxel_size, new_voxel_size
        Of the map and of the template, angstrom.

    Raises
    ------
    JobError
        When the map holds no density, or less than one voxel of it.
    """
    faces = np.concatenate([np.moveaxis(density, axis, 0)[[0, -1]].ravel() for axis in range(3)])
    signal = np.maximum(density.astype(np.float32) - np.float32(np.median(faces)), 0)
    level = interior_density(signal)
    signal[signal < SOLVENT_LEVEL * level] = 0
    resampled = _resample_about_mass(signal, voxel_size / new_voxel_size)
    resampled /= np.float32(interior_density(resampled))
    resampled[resampled < SOLVENT_LEVEL] = 0
    if (resampled > 0.5).sum() < 2:
        raise JobError(f"the density map {name} vanishes at {new_voxel_size:g} angstrom; choose a smaller voxel size.")
    return Template(name, resampled, float(new_voxel_size))


def _resample_about_mass(density: np.ndarray, scale: float) -> np.ndarray:
    """Cube of odd edge around the centre of mass, sampled ``scale`` times as finely; integral times scale cubed."""
    centre = np.array(ndimage.center_of_mass(density))
    occupied = np.argwhere(density > 0)
    radius = float(np.sqrt(((occupied - centre) ** 2).sum(axis=1).max())) * scale
    half = int(np.ceil(radius)) + 2
    if scale < 1:  # what the coarser grid cannot carry would alias; half a new voxel is the usual width
        density = ndimage.gaussian_filter(density, 0.5 * np.sqrt(1 / scale**2 - 1), mode="constant")
    offset = centre - half / scale
    size = (2 * half + 1,) * 3
    sampled = ndimage.affine_transform(density, np.eye(3) / scale, offset, size, order=3, mode="constant")
    return np.maximum(sampled, 0).astype(np.float32)


def template_of_map(path: str | Path, voxel_size: float) -> Template:
    """A template from a density map (MRC, bright protein) of any voxel size and grey scale.

    Raises
    ------
    JobError
        When the map cannot be read, or has no voxel size or no density.
    """
    header = read_header(str(path))
    if header.voxel_size <= 0:
        raise JobError(f"the density map {path} has no voxel size in its header; set it with another program.")
    try:
        return make_template(star_word(Path(path).stem), read_volume(str(path)), header.voxel_size, voxel_size)
    except JobError as error:
        raise JobError(f"the density map {path} cannot be used: {error}") from error


def template_of_atoms(path: str | Path, voxel_size: float, resolution: float = 0.0) -> Template:
    """A template rendered from a PDB or mmCIF file; a resolution (angstrom) of 0 takes two voxels.

    Raises
    ------
    JobError
        When the model cannot be read, or is too small for the voxel size.
    """
    density = render_atoms(read_atoms(path), voxel_size, resolution or RESOLUTION_IN_VOXELS * voxel_size)
    density[density < SOLVENT_LEVEL] = 0
    name = star_word(Path(path).name.split(".")[0])
    if not density.any():
        raise JobError(f"the atomic model {path} vanishes at {voxel_size:g} angstrom; choose a smaller voxel size.")
    centred = _resample_about_mass(density, 1.0)
    centred[centred < SOLVENT_LEVEL] = 0
    return Template(name, centred, float(voxel_size))


def read_templates(
    sources: str | Path | Sequence[str | Path], voxel_size: float, resolution: float = 0.0
) -> list[Template]:
    """Templates from density maps and atomic models.

    Parameters
    ----------
    sources
        A folder, or any number of folders and files: density maps (``.mrc``, ``.map``; any voxel size and grey scale,
        bright protein) and atomic models (PDB, mmCIF).  What a folder holds is taken in the order of the names.
    voxel_size
        Of the templates, angstrom.
    resolution
        Of atomic models, angstrom; 0 takes two voxels.

    Raises
    ------
    JobError
        When a source does not exist or is of no known kind, a folder holds neither maps nor models, two templates
        have the same name, or one has no voxel size or no density.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    paths = [path for source in listed for path in _template_files(Path(source))]
    templates = [
        template_of_atoms(path, voxel_size, resolution) if is_atomic_model(path) else template_of_map(path, voxel_size)
        for path in paths
    ]
    names = [template.name for template in templates]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise JobError(f"two templates are called {repeated}; rename one of the files, since names tell the classes.")
    return templates


def _template_files(source: Path) -> list[Path]:
    """The maps and models that a source names."""
    suffixes = MAP_SUFFIXES + ATOMIC_MODEL_SUFFIXES
    if source.is_file():
        if not source.name.lower().endswith(suffixes):
            raise JobError(f"{source} is neither a density map (.mrc, .map) nor an atomic model (.pdb, .cif).")
        return [source]
    found = sorted(path for path in source.glob("*") if path.name.lower().endswith(suffixes))
    if not found:
        what = "holds" if source.is_dir() else "does not exist or holds"
        raise JobError(f"{source} {what} no density maps (.mrc, .map) nor atomic models (.pdb, .cif); give another.")
    return found

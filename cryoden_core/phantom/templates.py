"""Density maps of single macromolecules, brought to one voxel size and one density.

Maps from different sources differ in voxel size and in grey scale.  Each is divided by its mass-weighted mean density
(the integral of the squared density over that of the density), which for a blurred object of uniform density is a
little less than the density inside it and needs no threshold chosen by hand; it is the same for all templates then.
Maps are neither filtered to a common resolution nor corrected for their contrast transfer function.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..jobs import JobError
from ..mrc import read_header, read_volume

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


def read_templates(folder: str | Path, voxel_size: float) -> list[Template]:
    """All MRC maps of a folder as templates, in the order of their names.

    Parameters
    ----------
    folder
        Holds ``.mrc`` or ``.map`` files of any voxel size and grey scale, bright protein.
    voxel_size
        Of the templates, angstrom.

    Raises
    ------
    JobError
        When there is no map, or one has no voxel size or no density.
    """
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in (".mrc", ".map"))
    if not paths:
        raise JobError(f"the folder {folder} holds no density maps (.mrc or .map); give another one or none.")
    templates = []
    for path in paths:
        header = read_header(str(path))
        if header.voxel_size <= 0:
            raise JobError(f"the density map {path} has no voxel size in its header; set it with another program.")
        try:
            templates.append(make_template(path.stem, read_volume(str(path)), header.voxel_size, voxel_size))
        except JobError as error:
            raise JobError(f"the density map {path} cannot be used: {error}") from error
    return templates

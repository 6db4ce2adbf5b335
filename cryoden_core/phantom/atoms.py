"""Density maps of atomic models: each atom a Gaussian, less the ice that it displaces.

The amplitude of an atom is its scattering of electrons at small angles (Peng et al. (1996), Acta Cryst. A 52, 257, as
tabulated in gemmi), from which goes the potential of the vitreous ice in the volume that it displaces (Fraser,
MacRae and Suzuki (1978), J. Appl. Cryst. 11, 693).  Hydrogens are left out, since their amplitude is nearly that of the
ice they displace (0.53 against 0.49 angstrom).  Densities are divided by the contrast of protein, so that its interior
is about 1 and that of nucleic acid about 1.4.

Each Gaussian is averaged over every voxel exactly (by error functions), which keeps the integral and avoids aliasing.
Potentials of bonds, charges and the dynamics of the molecule are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.special import erf

from ..jobs import JobError

ATOMIC_MODEL_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz")
#: Scattering of vitreous ice per volume, angstrom^-2: 3.04 angstrom a molecule at 0.93 g/cm3, a potential of 4.5 V.
ICE_DENSITY = 0.0944
#: Contrast of protein against ice, angstrom^-2: that of an average residue without hydrogens, 9.2 angstrom in 134 A3.
PROTEIN_CONTRAST = 0.0687
#: Volume that an atom displaces, angstrom^3 (Fraser et al.); other elements take that of carbon.
DISPLACED_VOLUME = {"C": 16.44, "N": 2.49, "O": 9.13, "S": 19.86, "P": 5.73}
#: Widths of a Gaussian beyond its centre that are rendered, and atoms rendered at once.
_REACH, _BATCH = 4.0, 4096


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms of a model, without hydrogens and water.

    Attributes
    ----------
    positions
        (n, 3) x, y, z in angstrom.
    elements
        (n,) symbols.
    temperature_factors
        (n,) B, angstrom^2.
    occupancies
        (n,) 0 to 1.
    """

    positions: np.ndarray
    elements: np.ndarray
    temperature_factors: np.ndarray
    occupancies: np.ndarray


def is_atomic_model(path: str | Path) -> bool:
    """Whether a file's name is that of a PDB or mmCIF file."""
    return str(path).lower().endswith(ATOMIC_MODEL_SUFFIXES)


def read_atoms(path: str | Path) -> Atoms:
    """Read the first model of a PDB or mmCIF file, as its first biological assembly where one is given.

    Raises
    ------
    JobError
        When the file cannot be read, gemmi is not installed, or no atom is left.
    """
    try:
        import gemmi
    except ImportError as error:
        raise JobError(f"reading the atomic model {path} needs gemmi; install it with: pip install gemmi.") from error
    try:
        structure = gemmi.read_structure(str(path))
        # The other models may lack a chain that the assembly asks for.
        del structure[1:]
        structure.setup_entities()
        if structure.assemblies and len(structure):
            present = {part.subchain_id() for part in structure[0].subchains()}
            for generator in structure.assemblies[0].generators:
                # So does a file from which chains were deleted.
                generator.subchains = [name for name in generator.subchains if name in present]
            structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.AddNumber)
    except (OSError, RuntimeError, ValueError) as error:
        raise JobError(f"the atomic model {path} cannot be read: {str(error).splitlines()[0]}.") from error
    structure.remove_waters()
    structure.remove_hydrogens()
    atoms = [site.atom for site in structure[0].all()] if len(structure) else []
    if not atoms:
        raise JobError(f"the atomic model {path} holds no atom but hydrogens and water; give another file.")
    return Atoms(
        np.array([atom.pos.tolist() for atom in atoms]),
        np.array([atom.element.name for atom in atoms]),
        np.array([atom.b_iso for atom in atoms]),
        np.array([atom.occ for atom in atoms]),
    )


def render_atoms(atoms: Atoms, voxel_size: float, resolution: float) -> np.ndarray:
    """Density of atoms at a resolution, averaged over each voxel.

    Parameters
    ----------
    atoms
        The model.
    voxel_size
        Angstrom.
    resolution
        Angstrom; all atoms are blurred by a Gaussian of standard deviation ``resolution / (pi sqrt(2))``, which
        leaves 1/e of the amplitude at the frequency ``1 / resolution``.

    Returns
    -------
    numpy.ndarray
        (z, y, x) float32, ice 0 and the interior of protein about 1, with an empty margin.  The middle of the
        model's extent lies at the centre of the box.
    """
    scattering, volumes = _element_tables(np.unique(atoms.elements))
    blur = (resolution / (np.pi * np.sqrt(2))) ** 2
    # A wide blur costs less as a filter of the whole map than in every atom.
    own = min(blur, (0.7 * voxel_size) ** 2)
    variances = own + atoms.temperature_factors / (8 * np.pi**2)
    volume = np.array([volumes[element] for element in atoms.elements])
    displaced_variances = own + volume ** (2 / 3) / (2 * np.pi)
    low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
    widest = max(variances.max(), displaced_variances.max()) + blur - own
    margin = _REACH * np.sqrt(widest) + 2 * voxel_size
    shape = np.ceil((high - low + 2 * margin) / voxel_size).astype(int)
    places = (atoms.positions - (low + high) / 2) / voxel_size + (shape - 1) / 2
    weight = atoms.occupancies / (PROTEIN_CONTRAST * voxel_size**3)
    density = np.zeros(shape[::-1])
    amplitudes = weight * np.array([scattering[element] for element in atoms.elements])
    add_gaussians(density, places, amplitudes, np.sqrt(variances) / voxel_size)
    add_gaussians(density, places, -weight * ICE_DENSITY * volume, np.sqrt(displaced_variances) / voxel_size)
    density = ndimage.gaussian_filter(density, np.sqrt(blur - own) / voxel_size, mode="constant")
    return density.astype(np.float32)


def add_gaussians(volume: np.ndarray, places: np.ndarray, integrals: np.ndarray, widths: np.ndarray) -> None:
    """Add Gaussians to a volume, each averaged over the voxels.

    Parameters
    ----------
    volume
        (z, y, x) float64, added to; what lies outside is lost.
    places
        (n, 3) x, y, z in voxels, 0-based.
    integrals
        (n,) sum of all voxels of each.
    widths
        (n,) standard deviations, voxels.
    """
    reach = int(np.ceil(_REACH * widths.max() + 0.5))
    around = np.arange(-reach, reach + 1)
    padded = np.zeros(np.array(volume.shape) + 2 * reach + 2)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    inside = ((places >= -0.5) & (places < np.array(volume.shape)[::-1] - 0.5)).all(axis=1)
    for first in range(0, len(places), _BATCH):
        batch = np.arange(first, min(first + _BATCH, len(places)))[inside[first : first + _BATCH]]
        nearest = np.rint(places[batch]).astype(int)
        edges = np.append(around - 0.5, reach + 0.5) + (nearest - places[batch])[..., None]
        steps = np.diff(0.5 * erf(edges / (np.sqrt(2) * widths[batch, None, None])), axis=-1)  # (atoms, 3, voxels)
        x, y, z = steps[:, 0], steps[:, 1], steps[:, 2] * integrals[batch, None]
        values = z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]
        corner = (nearest[:, ::-1] + 1) @ strides
        offsets = (np.indices((around.size,) * 3).reshape(3, -1).T @ strides)[None]
        np.add.at(padded.reshape(-1), (corner[:, None] + offsets).ravel(), values.ravel())
    core = tuple(slice(reach + 1, reach + 1 + size) for size in volume.shape)
    volume += padded[core]


def _element_tables(elements: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Scattering at angle zero (angstrom) and displaced volume (angstrom^3) by symbol."""
    import gemmi

    scattering = {}
    for name in elements:
        element = gemmi.Element(str(name))
        # Elements without a table (and unknown atoms, X) count as carbon.
        table = element.c4322 or gemmi.Element("C").c4322
        scattering[str(name)] = float(sum(table.a))
    volumes = {str(name): DISPLACED_VOLUME.get(str(name), DISPLACED_VOLUME["C"]) for name in elements}
    return scattering, volumes

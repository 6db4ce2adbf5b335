"""Atomic models: read, and rendered against formulas."""

import gzip

import numpy as np
import pytest
from scipy import ndimage

from cryoden_core.jobs import JobError
from cryoden_core.mrc import write_volume
from cryoden_core.phantom.atoms import (
    ICE_DENSITY,
    PROTEIN_CONTRAST,
    Atoms,
    add_gaussians,
    read_atoms,
    render_atoms,
)
from cryoden_core.phantom.templates import read_templates

#: Elements of an average residue of protein and of a nucleotide, and the volume of each, angstrom^3.
RESIDUE, RESIDUE_VOLUME = {"C": 4.94, "N": 1.36, "O": 1.48, "S": 0.04}, 134.0
NUCLEOTIDE, NUCLEOTIDE_VOLUME = {"C": 9.5, "N": 3.75, "O": 7.0, "P": 1.0}, 293.0


def atom(element: str = "C", b: float = 0.0, position=(0.0, 0.0, 0.0)) -> Atoms:
    return Atoms(np.array([position]), np.array([element]), np.array([b]), np.ones(1))


def ball_of(composition: dict[str, float], volume: float, count: int = 20000) -> Atoms:
    """Atoms spread evenly over a ball at the density of the composition."""
    random = np.random.default_rng(0)
    heavy = sum(composition.values())
    radius = (count / heavy * volume * 3 / (4 * np.pi)) ** (1 / 3)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    positions = directions * radius * random.random((count, 1)) ** (1 / 3)
    elements = random.choice(list(composition), count, p=np.array(list(composition.values())) / heavy)
    return Atoms(positions, elements, np.full(count, 20.0), np.ones(count))


def pdb_line(serial: int, name: str, residue: str, position, element: str, kind: str = "ATOM  ") -> str:
    x, y, z = position
    place = f"{x:8.3f}{y:8.3f}{z:8.3f}"
    return f"{kind}{serial:5d}  {name:<3s} {residue:3s} A{serial:4d}    {place}  1.00 20.00          {element:>2s}\n"


def write_pdb(path, shift=0.0):
    """A rod of 60 carbons, with a water and a hydrogen that must not count."""
    lines = [pdb_line(i + 1, "CA", "ALA", (shift + 1.5 * i, 0.0, 0.0), "C") for i in range(60)]
    lines.append(pdb_line(61, "H", "ALA", (500.0, 0.0, 0.0), "H"))
    lines.append(pdb_line(62, "O", "HOH", (0.0, 900.0, 0.0), "O", "HETATM"))
    path.write_text("".join(lines) + "END\n")
    return path


def test_a_voxel_holds_the_mean_of_the_gaussian_over_it():
    volume = np.zeros((13, 15, 17))
    place, width, integral = np.array([8.3, 6.8, 5.6]), 0.8, 3.0
    add_gaussians(volume, place[None], np.array([integral]), np.array([width]))
    fine = (np.arange(10) + 0.5) / 10 - 0.5  # ten points along each edge of the voxel (5, 7, 8)
    z, y, x = np.meshgrid(5 + fine, 7 + fine, 8 + fine, indexing="ij")
    squared = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
    expected = integral * np.exp(-squared / (2 * width**2)).mean() / (2 * np.pi * width**2) ** 1.5
    assert volume[5, 7, 8] == pytest.approx(expected, rel=2e-3)
    assert volume.sum() == pytest.approx(integral, rel=1e-4)


@pytest.mark.parametrize("voxel_size", [1.0, 4.0])
def test_an_atom_is_a_gaussian_of_its_scattering_less_the_ice(voxel_size):
    resolution, b = 12.0, 40.0
    density = render_atoms(atom("P", b), voxel_size, resolution).astype(float)
    assert density.sum() * voxel_size**3 == pytest.approx((5.4876 - ICE_DENSITY * 5.73) / PROTEIN_CONTRAST, rel=2e-3)
    axis = (np.arange(density.shape[0]) - (density.shape[0] - 1) / 2) * voxel_size
    spread = (density.sum(axis=(1, 2)) * axis**2).sum() / density.sum()
    blur = (resolution / (np.pi * np.sqrt(2))) ** 2
    # Both Gaussians share the blur; the atom adds its B factor, the voxel its own width.
    assert spread == pytest.approx(blur + b / (8 * np.pi**2) + voxel_size**2 / 12, abs=0.12)


def test_the_mass_does_not_depend_on_the_voxel_size_or_the_resolution():
    atoms = ball_of(RESIDUE, RESIDUE_VOLUME, 2000)
    masses = [render_atoms(atoms, v, r).sum() * v**3 for v, r in ((4.0, 8.0), (10.0, 20.0), (10.0, 40.0))]
    np.testing.assert_allclose(masses, masses[0], rtol=2e-3)


def test_the_interior_of_protein_is_one_and_that_of_nucleic_acid_denser():
    protein, nucleic = (
        render_atoms(ball_of(*matter), 8.0, 16.0)
        for matter in ((RESIDUE, RESIDUE_VOLUME), (NUCLEOTIDE, NUCLEOTIDE_VOLUME))
    )
    inside = [
        volume[tuple(slice(n // 2 - 1, n // 2 + 2) for n in volume.shape)].mean() for volume in (protein, nucleic)
    ]
    assert inside[0] == pytest.approx(1.0, abs=0.08)
    assert inside[1] == pytest.approx(1.4, abs=0.12)


def test_hydrogens_and_water_are_left_out(tmp_path):
    atoms = read_atoms(write_pdb(tmp_path / "rod.pdb"))
    assert len(atoms.positions) == 60 and set(atoms.elements) == {"C"}
    np.testing.assert_allclose(atoms.positions[10], [15, 0, 0])


#: As the Protein Data Bank writes it: quoted names, a text over several lines, alternative positions, water, a second
#: model, and two assemblies, the first with an image turned about z.
MMCIF = """\
data_MADE
#
_entry.id   MADE
_struct.title
;A model that
loop_ of 'quotes' and # signs; _atom_site.id 3
;
#
loop_
_pdbx_struct_assembly.id
_pdbx_struct_assembly.details
_pdbx_struct_assembly.method_details
_pdbx_struct_assembly.oligomeric_details
_pdbx_struct_assembly.oligomeric_count
1 author_defined_assembly ? dimeric 2
2 software_defined_assembly PISA monomeric 1
#
loop_
_pdbx_struct_assembly_gen.assembly_id
_pdbx_struct_assembly_gen.oper_expression
_pdbx_struct_assembly_gen.asym_id_list
1 1,2 A,B
2 1   A
#
loop_
_pdbx_struct_oper_list.id
_pdbx_struct_oper_list.type
_pdbx_struct_oper_list.matrix[1][1]
_pdbx_struct_oper_list.matrix[1][2]
_pdbx_struct_oper_list.matrix[1][3]
_pdbx_struct_oper_list.vector[1]
_pdbx_struct_oper_list.matrix[2][1]
_pdbx_struct_oper_list.matrix[2][2]
_pdbx_struct_oper_list.matrix[2][3]
_pdbx_struct_oper_list.vector[2]
_pdbx_struct_oper_list.matrix[3][1]
_pdbx_struct_oper_list.matrix[3][2]
_pdbx_struct_oper_list.matrix[3][3]
_pdbx_struct_oper_list.vector[3]
1 'identity operation' 1 0 0 0 0 1 0 0 0 0 1 0
2 'point symmetry operation' -1 0 0 100 0 -1 0 0 0 0 1 0
#
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_asym_id
_atom_site.auth_seq_id
_atom_site.pdbx_PDB_model_num
ATOM   1 P "P"   . A   A 1 1 10.0 0.0 0.0 1.0  30.0 A 1 1
ATOM   2 O "O5'" . A   A 1 1 11.0 0.0 0.0 1.0  ?    A 1 1
ATOM   3 C "C5'" A A   A 1 1 12.0 0.0 0.0 0.6  20.0 A 1 1
ATOM   4 C "C5'" B A   A 1 1 12.0 1.0 0.0 0.4  20.0 A 1 1
ATOM   5 H "H5'" . A   A 1 1 13.0 0.0 0.0 1.0  20.0 A 1 1
HETATM 6 FE FE   . HEM B 2 . 20.0 5.0 0.0 1.0  20.0 B 101 1
HETATM 7 O  O    . HOH C 3 . 50.0 5.0 0.0 1.0  20.0 C 201 1
ATOM   8 P "P"   . A   A 1 1 90.0 9.0 9.0 1.0  30.0 A 1 2
#
"""


@pytest.mark.parametrize("compressed", [False, True])
def test_an_mmcif_file_gives_the_first_assembly_of_its_first_model(tmp_path, compressed):
    path = tmp_path / ("made.cif.gz" if compressed else "made.cif")
    path.write_bytes(gzip.compress(MMCIF.encode()) if compressed else MMCIF.encode())
    atoms = read_atoms(path)
    # Phosphorus, oxygen, two positions of one carbon and iron, and their images.
    assert sorted(atoms.elements) == sorted(["P", "O", "C", "C", "Fe"] * 2)
    carbon = atoms.elements == "C"
    assert atoms.occupancies[carbon].sum() == pytest.approx(2.0)
    np.testing.assert_allclose(sorted(atoms.positions[atoms.elements == "P"].tolist()), [[10, 0, 0], [90, 0, 0]])
    np.testing.assert_allclose(sorted(atoms.positions[atoms.elements == "Fe"].tolist()), [[20, 5, 0], [80, -5, 0]])
    assert atoms.temperature_factors[atoms.elements == "P"] == pytest.approx([30, 30])


def test_chains_that_were_deleted_do_not_keep_the_rest_from_being_assembled(tmp_path):
    (tmp_path / "edited.cif").write_text("".join(line for line in MMCIF.splitlines(True) if " HEM B " not in line))
    assert sorted(read_atoms(tmp_path / "edited.cif").elements) == sorted(["P", "O", "C", "C"] * 2)


def test_a_pdb_file_gives_its_biological_unit_and_one_model(tmp_path):
    remark = [
        "BIOMOLECULE: 1", "AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC", "APPLY THE FOLLOWING TO CHAINS: A",
        "  BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
        "  BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
        "  BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
        "  BIOMT1   2 -1.000000  0.000000  0.000000      100.00000",
        "  BIOMT2   2  0.000000 -1.000000  0.000000        0.00000",
        "  BIOMT3   2  0.000000  0.000000  1.000000        0.00000",
    ]  # fmt: skip
    atom_line = pdb_line(1, "CA", "ALA", (10.0, 2.0, 3.0), "C")
    models = [f"MODEL     {number:4d}\n{atom_line}ENDMDL\n" for number in (1, 2)]
    (tmp_path / "dimer.pdb").write_text("".join(f"REMARK 350 {line}\n" for line in remark) + "".join(models) + "END\n")
    positions = sorted(read_atoms(tmp_path / "dimer.pdb").positions.tolist())
    np.testing.assert_allclose(positions, [[10, 2, 3], [90, -2, 3]])


def test_maps_and_models_are_read_from_a_list_of_files_and_folders(tmp_path):
    (tmp_path / "maps").mkdir()
    blob = ndimage.gaussian_filter(np.pad(np.ones((8, 8, 8), np.float32), 8), 1)
    write_volume(str(tmp_path / "maps" / "blob.mrc"), blob, 10.0)
    model = write_pdb(tmp_path / "rod.pdb", shift=300.0)
    found = read_templates([str(model), tmp_path / "maps"], 5.0, resolution=10.0)
    assert [template.name for template in found] == ["rod", "blob"]
    rod = found[0].density
    assert rod.shape[0] % 2 and rod.shape[0] == rod.shape[2]
    np.testing.assert_allclose(ndimage.center_of_mass(rod), (np.array(rod.shape) - 1) / 2, atol=0.1)
    assert np.ptp(np.argwhere(rod > 0.3 * rod.max())[:, 2]) * 5.0 == pytest.approx(90, abs=15)  # along x


@pytest.mark.parametrize("content", ["", "this is no model\n", pdb_line(1, "O", "HOH", (0, 0, 0), "O", "HETATM")])
def test_a_file_that_is_no_atomic_model_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "odd.pdb").write_text(content)
    with pytest.raises(JobError, match=r"odd\.pdb"):
        read_templates([tmp_path / "odd.pdb"], 10.0)


def test_unknown_files_missing_files_and_equal_names_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no")
    with pytest.raises(JobError, match=r"notes\.txt is neither"):
        read_templates([tmp_path / "notes.txt"], 10.0)
    with pytest.raises(JobError, match=r"absent\.pdb does not exist"):
        read_templates([tmp_path / "absent.pdb"], 10.0)
    (tmp_path / "a").mkdir()
    both = [write_pdb(tmp_path / "rod.pdb"), write_pdb(tmp_path / "a" / "rod.pdb")]
    with pytest.raises(JobError, match="two templates are called rod"):
        read_templates(both, 5.0)

"""Templates of any grey scale and voxel size, and the field that is packed with them."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from cryoden_core.jobs import JobError
from cryoden_core.mrc import write_volume
from cryoden_core.phantom.membranes import vesicle
from cryoden_core.phantom.packing import pack
from cryoden_core.phantom.particles import (
    SHAPES,
    random_rotation,
    read_star,
    relion_angles,
    rotation_of_relion_angles,
    write_star,
)
from cryoden_core.phantom.placing import turn_template
from cryoden_core.phantom.shapes import builtin_templates
from cryoden_core.phantom.templates import make_template, read_templates

SHAPE = (48, 96, 96)


@pytest.fixture(scope="module")
def templates():
    return builtin_templates(10.0)


@pytest.fixture(scope="module")
def model(templates):
    return pack(SHAPE, templates, particles=40, vesicles=1, beads=2, seed=3)


def lopsided(voxel_size: float, edge: float = 300.0) -> np.ndarray:
    """Three Gaussian blobs, fixed in angstrom, sampled at a voxel size."""
    n = int(edge / voxel_size) // 2 * 2 + 1
    axis = (np.arange(n) - n // 2) * voxel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    blobs = [(-50, 0, 0, 25), (50, 20, 0, 25), (0, -30, 60, 30)]
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * s * s)) for a, b, c, s in blobs)


def radius_of_gyration(template) -> float:
    grid = np.indices(template.density.shape) - (np.array(template.density.shape)[:, None, None, None] - 1) / 2
    squared = (grid**2).sum(axis=0)
    return template.voxel_size * np.sqrt((squared * template.density).sum() / template.density.sum())


@pytest.mark.parametrize("voxel_size", [5.0, 8.0, 13.5])
def test_template_of_another_voxel_size_keeps_its_physical_size_and_mass(voxel_size):
    same = make_template("a", lopsided(10.0), 10.0, 10.0)
    other = make_template("b", lopsided(voxel_size), voxel_size, 10.0)
    assert radius_of_gyration(other) == pytest.approx(radius_of_gyration(same), rel=0.03)
    assert other.mass == pytest.approx(same.mass, rel=0.06)


def test_grey_scale_and_background_of_a_template_do_not_matter():
    density = lopsided(10.0).astype(np.float32)
    plain, odd = (make_template("a", d, 10.0, 10.0).density for d in (density, 37 * density + 5))
    np.testing.assert_allclose(plain, odd, atol=2e-4)


def test_templates_have_equal_density_and_their_mass_at_the_centre(templates):
    for template in templates:
        density = template.density
        assert (density**2).sum() / density.sum() == pytest.approx(1, abs=0.02)
        centre = np.array(ndimage.center_of_mass(density))
        np.testing.assert_allclose(centre, (np.array(density.shape) - 1) / 2, atol=0.1)


def test_real_maps_are_all_read_and_keep_the_order_of_their_mass(test_data):
    found = {template.name: template for template in read_templates(test_data / "templates_10A", 10.0)}
    assert len(found) == 13
    # Ribosome, chaperonin, proteasome, rubisco and a small one: 2.9, 0.96, 1.3 (part), 0.55 and 0.07 megadalton.
    masses = [found[name].mass for name in ("5mrc", "4v94", "4cr2", "1bxn", "1s3x")]
    assert masses == sorted(masses, reverse=True)


def test_folder_without_maps_or_with_a_map_of_unknown_voxel_size_is_refused(tmp_path):
    with pytest.raises(JobError, match="no density maps"):
        read_templates(tmp_path, 10.0)
    write_volume(tmp_path / "a.mrc", lopsided(10.0).astype(np.float32), 0.0)
    with pytest.raises(JobError, match="no voxel size"):
        read_templates(tmp_path, 10.0)


def test_empty_map_is_refused_by_its_name(tmp_path):
    write_volume(tmp_path / "void.mrc", np.zeros((16, 16, 16), np.float32), 10.0)
    with pytest.raises(JobError, match=r"void\.mrc"):
        read_templates(tmp_path, 10.0)


def test_particles_do_not_overlap(model):
    # Each instance still has all of its voxels: none was overwritten by another.
    assert not model.missing
    for index, item in enumerate(model.particles):
        labels = model.labels[model.instances == index + 1]
        assert labels.size > 0 and (labels == item.label).all()
    structure = np.ones((3, 3, 3), bool)
    for index in range(len(model.particles)):
        grown = ndimage.binary_dilation(model.instances == index + 1, structure)
        assert set(np.unique(model.instances[grown])) <= {0, index + 1}


def test_mass_of_the_field_is_that_of_its_particles(templates):
    model = pack(SHAPE, templates, particles=20, vesicles=0, seed=2)
    by_name = {template.name: template.density.sum() for template in templates}
    wanted = sum(by_name[item.name] for item in model.particles)
    assert model.density.sum() == pytest.approx(wanted, rel=0.03)


def test_same_seed_gives_the_same_field_and_another_does_not(templates):
    first, again, other = (pack(SHAPE, templates, 12, 1, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.density, again.density)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.density, other.density)


def test_every_class_is_used_equally_often(templates):
    model = pack(SHAPE, templates, 23, 0, seed=1)
    counts = [sum(item.label == label for item in model.particles) for label in range(1, len(templates) + 1)]
    assert sum(counts) == 23 and max(counts) - min(counts) <= 1


def test_recorded_pose_puts_the_template_where_the_density_is(templates, model):
    named = {template.name: template for template in templates}
    large = [item for item in model.particles if item.name in ("ribosome_like", "forked", "barrel")]
    assert large
    for item in large:
        density = named[item.name].density
        expected = np.zeros(model.density.shape, np.float32)
        whole = np.floor(item.position).astype(int)[::-1]
        turned = turn_template(ndimage.spline_filter(density, 3), item.rotation, item.position[::-1] - whole)
        low = whole - density.shape[0] // 2
        box = tuple(slice(max(a, 0), a + density.shape[0]) for a in low)
        cut = tuple(slice(max(-a, 0), max(-a, 0) + n) for a, n in zip(low, expected[box].shape, strict=True))
        expected[box] = turned[cut]
        own = model.instances == model.particles.index(item) + 1
        np.testing.assert_allclose(model.density[own], expected[own], atol=0.02)


def test_template_turns_as_its_rotation_says():
    density = np.zeros((21, 21, 21), np.float32)
    density[10, 10, 15] = 1  # on +x
    about_z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to y
    turned = turn_template(ndimage.spline_filter(density, 3), about_z, np.zeros(3))
    assert np.unravel_index(turned.argmax(), turned.shape) == (10, 15, 10)


def test_relion_angles_give_their_rotation_back():
    random = np.random.default_rng(0)
    for rotation in [np.eye(3), np.diag([1.0, -1.0, -1.0]), *(random_rotation(random) for _ in range(20))]:
        np.testing.assert_allclose(rotation_of_relion_angles(relion_angles(rotation)), rotation, atol=1e-9)


def test_relion_tilt_and_rot_point_the_projection_axis():
    # The third row of RELION's matrix is the direction of view in the reference: (sin tilt cos rot, ..., cos tilt).
    matrix = rotation_of_relion_angles([30.0, 50.0, 20.0])
    rot, tilt = np.radians([30.0, 50.0])
    expected = [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)]
    np.testing.assert_allclose(matrix[2], expected, atol=1e-12)


def test_star_file_gives_the_particles_back(model, tmp_path):
    write_star(model.particles, tmp_path / "particles.star", "field_1")
    found = read_star(tmp_path / "particles.star")
    wanted = [item for item in model.particles if item.kind == "particle"]
    assert [(item.name, item.label) for item in found] == [(item.name, item.label) for item in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.position, other.position, atol=1e-3)
        np.testing.assert_allclose(one.rotation, other.rotation, atol=1e-5)
    assert "field_1" in (tmp_path / "particles.star").read_text()


def test_blanks_in_names_do_not_break_a_star_file(model, tmp_path):
    named = [dataclasses.replace(item, name=f"my {item.name}") for item in model.particles]
    write_star(named, tmp_path / "particles.star", "tilt series 1")
    kept = [item for item in named if item.kind not in SHAPES]
    read = read_star(tmp_path / "particles.star")
    assert [item.name for item in read] == [item.name.replace(" ", "_") for item in kept]
    np.testing.assert_allclose([item.position for item in read], [item.position for item in kept], atol=1e-3)


def test_missing_star_file_is_a_clear_error(tmp_path):
    with pytest.raises(JobError, match=r"absent\.star"):
        read_star(tmp_path / "absent.star")


def test_vesicle_has_two_leaflets_forty_angstrom_apart():
    density, _ = vesicle(np.full(3, 200.0), np.eye(3), 2.5)
    line = density[density.shape[0] // 2, density.shape[1] // 2, density.shape[2] // 2 :]
    peaks = np.flatnonzero((line[1:-1] > line[:-2]) & (line[1:-1] > line[2:])) + 1
    np.testing.assert_allclose(peaks * 2.5, [180, 220], atol=2.5)
    assert line[80] < 0.2 * line.max()  # the tails, at 200 angstrom


def test_gold_does_not_count_as_specimen(model):
    gold = [item.label for item in model.particles if item.kind == "bead"]
    assert gold and (model.labels == gold[0]).any()
    assert not model.specimen_mask()[model.labels == gold[0]].any()


def test_objects_without_room_are_counted_as_missing(templates):
    model = pack((16, 32, 32), templates, particles=60, vesicles=0, seed=1)
    assert model.missing > 0 and len(model.particles) + model.missing == 60


def test_templates_of_different_voxel_sizes_are_not_mixed(templates):
    with pytest.raises(JobError, match="voxel size"):
        pack(SHAPE, [templates[0], *builtin_templates(12.0)], 5)

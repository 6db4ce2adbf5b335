"""Grand models that others made, as SHREC's and PolNet's programs write them, and their way into a clean domain."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from cryoden_core import api
from cryoden_core.dual.existing import find_models, read_model
from cryoden_core.jobs import JobError
from cryoden_core.mrc import read_volume, write_volume
from cryoden_core.phantom.particles import read_star


def blobs(shape=(20, 24, 28)):
    """Two balls, of class 3 and 5, and their centres as x, y, z."""
    z, y, x = np.indices(shape)
    centres = {3: (9.0, 8.0, 7.0), 5: (19.0, 15.0, 12.0)}
    labels = np.zeros(shape, np.int16)
    for label, (a, b, c) in centres.items():
        labels[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 <= 16] = label
    return (labels > 0).astype(np.float32), labels, centres


@pytest.fixture
def shrec(tmp_path):
    density, labels, _ = blobs()
    folder = tmp_path / "model_0"
    write_volume(str(folder / "grandmodel.mrc"), density, 10.0)
    write_volume(str(folder / "class_mask.mrc"), labels, 10.0)
    write_volume(str(folder / "occupancy_mask.mrc"), (labels == 3) + 2 * (labels == 5), 10.0)
    (folder / "particle_locations.txt").write_text(
        "4V94 9 8 7 10 20 30\n5MRC 19 15 12 0 0 0\nvesicle 2 2 2 NaN NaN NaN\n"
    )
    return folder


def test_a_shrec_folder_is_read_with_its_classes_and_places(shrec):
    (found,) = find_models([str(shrec)])
    model = read_model(found, 10.0)
    density, labels, centres = blobs()
    np.testing.assert_array_equal(model.density, density)
    np.testing.assert_array_equal(model.labels, labels)
    assert model.class_names[3] == "4V94" and model.class_names[5] == "5MRC"
    by_name = {item.name: item for item in model.particles}
    assert by_name["4V94"].instance == 1 and by_name["5MRC"].instance == 2 and by_name["vesicle"].kind == "vesicle"
    np.testing.assert_allclose(by_name["5MRC"].position, centres[5])
    np.testing.assert_allclose(by_name["5MRC"].rotation, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("voxel_size", [5.0, 14.0])
def test_a_grand_model_of_another_voxel_size_is_resampled_with_its_labels_and_places(shrec, voxel_size):
    (found,) = find_models([str(shrec)])
    model = read_model(found, voxel_size)
    assert model.density.shape == tuple(round(n * 10 / voxel_size) for n in (20, 24, 28))
    assert model.density.mean() == pytest.approx(blobs()[0].mean(), rel=1e-3)
    for item in model.particles:
        if item.kind == "particle":
            centre = np.argwhere(model.labels == item.label).mean(axis=0)[::-1]
            np.testing.assert_allclose(centre, item.position, atol=0.6)
            x, y, z = np.rint(item.position).astype(int)
            assert model.density[z, y, x] > 0.7


def test_polnet_outputs_are_read_for_each_tomogram(tmp_path):
    density, labels, _ = blobs()
    for index in range(2):
        write_volume(str(tmp_path / "tomos" / f"tomo_den_{index}.mrc"), density, 10.0)
        write_volume(str(tmp_path / "tomos" / f"tomo_lbls_{index}.mrc"), labels, 10.0)
    head = "Density Micrographs PolyData Tomo3D Type Label Code Polymer X Y Z Q1 Q2 Q3 Q4".replace(" ", "\t")
    rows = [
        ["/a/tomo_den_0.mrc", "", "", "", "SAWLC", "3", "pdb_4v94", "0", "90", "80", "70", "0", "0", "0", "1"],
        ["/a/tomo_den_1.mrc", "", "", "", "SAWLC", "5", "pdb_5mrc", "0", "190", "150", "120", "1", "0", "0", "0"],
    ]
    (tmp_path / "tomos_motif_list.csv").write_text("\n".join([head, *("\t".join(row) for row in rows)]) + "\n")
    first, second = (read_model(found, 10.0) for found in find_models([str(tmp_path)]))
    assert [item.name for item in first.particles] == ["pdb_4v94"] and first.particles[0].label == 3
    np.testing.assert_allclose(first.particles[0].position, [9, 8, 7])
    np.testing.assert_allclose(first.particles[0].rotation, np.diag([-1.0, -1.0, 1.0]), atol=1e-12)
    assert second.class_names == {5: "pdb_5mrc", 3: "class_3"}


def turned(template, rotation_of_coordinates):
    """A map (z, y, x) resampled as ``out[p] = in[M p]``, with M for vectors (x, y, z) about the middle voxel."""
    reversed_axes = rotation_of_coordinates[::-1, ::-1]
    centre = (np.array(template.shape) - 1) / 2
    return ndimage.affine_transform(template, reversed_axes, centre - reversed_axes @ centre, order=1)


def landmarks(size=31):
    """A map with three blobs of different weight, and their places x, y, z from the middle, voxels."""
    places = {1.0: (9.0, 0.0, 0.0), 2.0: (0.0, 6.0, 2.0), 3.0: (-2.0, -3.0, 8.0)}
    template = np.zeros((size,) * 3)
    for weight, (x, y, z) in places.items():
        template[int(z) + size // 2, int(y) + size // 2, int(x) + size // 2] = weight
    return ndimage.gaussian_filter(template, 1.2), places


def about(axis, degrees):
    """The matrix that turns vectors (x, y, z) about an axis."""
    a, b = {"x": (1, 2), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cosine, -sine, sine, cosine
    return matrix


def assert_lands_where_read(volume, places, particle, template):
    """Each blob of the template is found where the rotation that was read takes it."""
    middle = (np.array(volume.shape[::-1]) - 1) / 2
    for weight, place in places.items():
        x, y, z = np.rint(particle.rotation @ place + middle).astype(int)
        assert volume[z, y, x] > 0.5 * weight / 3 * template.max()


def test_shrec_angles_turn_the_template_as_its_program_does(tmp_path):
    template, places = landmarks()
    first, second, third = 35.0, 70.0, -110.0
    # The program resamples at coordinates turned by minus the angles, about fixed axes: z, then x, then z.
    volume = turned(template, about("z", -third) @ about("x", -second) @ about("z", -first))
    write_volume(str(tmp_path / "grandmodel.mrc"), volume.astype(np.float32), 10.0)
    (tmp_path / "particle_locations.txt").write_text(f"1BXN 15 15 15 {first} {second} {third}\n")
    (particle,) = read_model(find_models([str(tmp_path)])[0], 10.0).particles
    assert_lands_where_read(volume, places, particle, template)
    inverse = dataclasses.replace(particle, rotation=particle.rotation.T)
    with pytest.raises(AssertionError):
        assert_lands_where_read(volume, places, inverse, template)


def test_hollow_objects_of_shrec_get_class_and_instance_from_their_line(tmp_path):
    z, y, x = np.indices((24, 40, 40))
    distance = np.sqrt((x - 12.0) ** 2 + (y - 20.0) ** 2 + (z - 12.0) ** 2)
    vesicle, inside = np.abs(distance - 9) < 1.2, distance < 3
    barrel = np.abs(np.hypot(x - 31.0, y - 20.0) - 5) < 1.2
    write_volume(str(tmp_path / "grandmodel.mrc"), (vesicle | inside | barrel).astype(np.float32), 10.0)
    write_volume(str(tmp_path / "class_mask.mrc"), (14 * vesicle + 4 * inside + 1 * barrel).astype(np.int16), 10.0)
    write_volume(str(tmp_path / "occupancy_mask.mrc"), (vesicle + 2 * inside + 3 * barrel).astype(np.int16), 10.0)
    table = "vesicle 12 20 12 NaN NaN NaN\n1BXN 12 20 12 1 2 3\n4V94 31 20 12 4 5 6\n"
    (tmp_path / "particle_locations.txt").write_text(table)
    found = read_model(find_models([str(tmp_path)])[0], 10.0).particles
    assert [(item.name, item.label, item.instance) for item in found] == [
        ("vesicle", 14, 1), ("1BXN", 4, 2), ("4V94", 1, 3),
    ]  # fmt: skip
    np.testing.assert_array_equal(found[0].rotation, np.eye(3))


def test_the_voxel_size_that_shrec_s_program_writes_is_not_believed(shrec):
    write_volume(str(shrec / "grandmodel.mrc"), blobs()[0], 1.0)
    with pytest.raises(JobError, match="give existing_voxel_size"):
        find_models([str(shrec)])
    (model,) = find_models([str(shrec.parent)], 10.0)
    assert read_model(model, 10.0).density.shape == blobs()[0].shape


def test_later_polnet_folders_are_read_without_the_points_of_their_membranes(tmp_path):
    template, places = landmarks()
    quaternion = np.array([0.6, -0.2, 0.5, 0.4])
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    # The matrix of a quaternion as in textbooks; the program resamples at its transpose: the template turns with it.
    matrix = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    volume = turned(template, matrix.T)
    head = "type label code polymer x y z q1 q2 q3 q4"
    rows = [
        "membrane 1 sphere 0 10 20 30 0 0 1 0", "membrane 1 sphere 1 20 20 30 0 1 0 0",
        "membrane 2 sphere 0 10 10 10 1 0 0 0", "filament 3 actin 0 20 20 20 1 0 0 0",
        "filament 3 actin 1 30 30 30 1 0 0 0", f"cprotein 4 pdb_1bxn 0 150 150 150 {w} {x} {y} {z}",
        "mbprotein 5 pdb_5wek 0 40 40 40 1 0 0 0",
    ]  # fmt: skip
    folder = tmp_path / "Tomo001"
    write_volume(str(folder / "tomo_001_den.mrc"), volume.astype(np.float32), 10.0)
    labels = np.zeros(volume.shape, np.int16)
    labels[0, 0, :6] = np.arange(6)
    write_volume(str(folder / "tomo_001_lbl.mrc"), labels, 10.0)
    table = "\n".join(line.replace(" ", "\t") for line in (head, *rows)) + "\n"
    (folder / "tomo_001_motif_list.csv").write_text(table)
    for source in (tmp_path, folder):
        model = read_model(find_models([str(source)])[0], 10.0)
        assert [(item.kind, item.name, item.label) for item in model.particles] == [
            ("filament", "actin", 3), ("filament", "actin", 3), ("particle", "pdb_1bxn", 4),
            ("membrane protein", "pdb_5wek", 5),
        ]  # fmt: skip
        assert model.class_names[1] == "membrane_sphere" and model.class_names[2] == "membrane_sphere_2"
        assert len({item.chain for item in model.particles}) == 4
        assert_lands_where_read(volume, places, model.particles[2], template)


def test_existing_models_come_into_the_same_layout(shrec, tmp_path):
    density, labels, _ = blobs()
    write_volume(str(tmp_path / "plain.mrc"), -density, 10.0)
    write_volume(str(tmp_path / "plain_labels.mrc"), labels, 10.0)
    plain = [str(tmp_path / "plain.mrc")]
    result = api.dual_clean_domain(str(tmp_path / "out"), existing=plain, existing_sign="dark")
    (volume,) = result["volumes"]
    np.testing.assert_array_equal(read_volume(volume["density"]), density)
    np.testing.assert_array_equal(read_volume(volume["labels"]), labels)
    assert volume["class_of_label"] == {"3": "class_3", "5": "class_5"}
    both = api.dual_clean_domain(str(tmp_path / "both"), existing=[*plain, str(shrec)])
    assert len(both["volumes"]) == 2 and read_star(both["volumes"][1]["particles"])


def test_what_is_no_grand_model_is_refused(shrec, tmp_path):
    with pytest.raises(JobError, match="neither an MRC file nor a folder"):
        find_models([str(tmp_path / "nowhere")])
    write_volume(str(tmp_path / "unsized.mrc"), blobs()[0], 0.0)
    with pytest.raises(JobError, match="no voxel size"):
        find_models([str(tmp_path / "unsized.mrc")])
    (shrec / "particle_locations.txt").write_text("4V94 nine 8 7\n")
    with pytest.raises(JobError, match=r"particle_locations\.txt is not as"):
        read_model(find_models([str(shrec)])[0], 10.0)
    write_volume(str(shrec / "class_mask.mrc"), np.zeros((8, 8, 8)), 10.0)
    with pytest.raises(JobError, match="differ in size"):
        find_models([str(shrec)])

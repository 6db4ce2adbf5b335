"""Training sets and the small segmentation network that tests whether they are of use."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from cryoden_core import api
from cryoden_core.dual.segmentation import (
    SegmentationSettings,
    read_training_set,
    region_centres,
    score_segmentation,
    segment,
    soft_dice_loss,
    train_segmentation,
    voxel_score,
)
from cryoden_core.jobs import JobError, TrainingSetJob
from cryoden_core.mrc import open_volume, read_volume, write_volume
from cryoden_core.nets.unet3d import UNet3d
from cryoden_core.phantom.packing import pack
from cryoden_core.phantom.particles import read_star, write_star
from cryoden_core.phantom.shapes import builtin_templates
from cryoden_core.phantom.storage import write_grand_model
from cryoden_core.progress import Progress

CPU = torch.device("cpu")
SHAPE = (32, 64, 64)


def write_field(folder, seed: int, noise: float = 0.5):
    """A grand model of cages and ribosome-like blobs, and its density with white noise as tomogram."""
    templates = [t for t in builtin_templates(10.0) if t.name in ("cage", "ribosome_like")]
    model = pack(SHAPE, templates, particles=8, vesicles=0, seed=seed)
    write_grand_model(model, folder, "bright", {})
    noisy = model.density + noise * np.random.default_rng(seed).standard_normal(SHAPE)
    write_volume(str(folder / "noisy.mrc"), noisy.astype(np.float32), 10.0)
    return model


def make(field, output, **choices):
    given = {"tomogram": str(field / "noisy.mrc"), "labels": str(field / "labels.mrc"),
             "particles": str(field / "particles.star"), "output": str(output), **choices}  # fmt: skip
    return api.run(TrainingSetJob.from_parameters(given), quiet=True)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields") / "field"
    return folder, write_field(folder, 1)


def test_a_training_set_holds_tomogram_mask_places_and_metadata(field, tmp_path):
    folder, model = field
    result = make(folder, tmp_path / "set")
    np.testing.assert_array_equal(
        read_volume(str(tmp_path / "set" / "tomogram.mrc")), read_volume(str(folder / "noisy.mrc"))
    )
    mask = open_volume(str(tmp_path / "set" / "class_mask.mrc"))
    assert mask.dtype == np.int16
    np.testing.assert_array_equal(mask, model.labels)
    metadata = json.loads((tmp_path / "set" / "metadata.json").read_text())
    assert metadata["class_of_label"]["1"] == "cage" and metadata["locations_on_their_class"] == 1.0
    assert result["count_of_class"] == metadata["count_of_class"] and sum(metadata["count_of_class"].values()) == 8
    objects = ElementTree.parse(tmp_path / "set" / "locations.xml").getroot()
    places = [[float(o.get(axis)) for axis in "xyz"] for o in objects]
    np.testing.assert_allclose(places, [item.position for item in model.particles], atol=0.01)


def test_chosen_classes_get_new_numbers_in_their_order_and_the_rest_is_background(field, tmp_path):
    folder, model = field
    make(folder, tmp_path / "set", classes=["ribosome_like"])
    mask = np.asarray(open_volume(str(tmp_path / "set" / "class_mask.mrc")))
    np.testing.assert_array_equal(mask == 1, model.labels == 2)
    assert mask.max() == 1
    assert {item.label for item in read_star(tmp_path / "set" / "locations.star")} == {1}
    make(folder, tmp_path / "turned", classes=["2", "cage"])
    turned = np.asarray(open_volume(str(tmp_path / "turned" / "class_mask.mrc")))
    np.testing.assert_array_equal(turned == 2, model.labels == 1)


def test_crops_are_cut_from_the_tomogram_and_the_mask_at_the_same_place(field, tmp_path):
    folder, model = field
    make(folder, tmp_path / "set", crop=24)
    crops = sorted((tmp_path / "set" / "crops").glob("*_mask.mrc"))
    assert len(crops) == 8
    whole, noisy = model.labels, read_volume(str(folder / "noisy.mrc"))
    for path, item in zip(crops, model.particles, strict=True):
        corner = np.clip(np.rint(item.position[::-1]).astype(int) - 12, 0, np.array(SHAPE) - 24)
        box = tuple(slice(c, c + 24) for c in corner)
        np.testing.assert_array_equal(np.asarray(open_volume(str(path))), whole[box])
        crop = read_volume(str(path).replace("_mask", "_tomogram"))
        np.testing.assert_array_equal(crop, noisy[box])


def test_what_does_not_belong_together_is_refused_before_anything_is_written(field, tmp_path):
    folder, model = field
    write_volume(str(tmp_path / "small.mrc"), model.labels[:-2], 10.0, mode="int16")
    write_volume(str(tmp_path / "fine.mrc"), model.labels, 8.0, mode="int16")
    write_volume(str(tmp_path / "odd.mrc"), model.labels + 0.5, 10.0)
    write_volume(str(tmp_path / "empty.mrc"), 0 * model.labels, 10.0, mode="int16")
    far = [read_star(folder / "particles.star")[0]]
    far[0].position[:] = 500
    write_star(far, tmp_path / "far.star", "far")
    cases = [
        ({"labels": str(tmp_path / f"{name}.mrc")}, message)
        for name, message in (
            ("small", "64 x 64 x 30"),
            ("fine", "8.000"),
            ("odd", "whole numbers"),
            ("empty", "all background"),
        )
    ]
    cases += [
        ({"classes": ["dragon"]}, "no class 'dragon'"),
        ({"classes": ["cage", "1"]}, "chosen twice"),
        ({"particles": str(tmp_path / "far.star")}, "lie outside"),
        ({"crop": 40}, "does not fit"),
    ]
    for choice, message in cases:
        with pytest.raises(JobError, match=message):
            make(folder, tmp_path / "set", **choice)
    assert not list((tmp_path / "set").glob("*.mrc"))


def test_locations_need_neither_angles_nor_names(field, tmp_path):
    folder, model = field
    rows = [f"field {x:.2f} {y:.2f} {z:.2f} {item.label}" for item in model.particles for x, y, z in [item.position]]
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnClassNumber"]
    head = ["data_particles", "", "loop_", *(f"_{name} #{i + 1}" for i, name in enumerate(columns))]
    (tmp_path / "other.star").write_text("\n".join([*head, *rows, ""]))
    result = make(folder, tmp_path / "set", particles=str(tmp_path / "other.star"))
    assert result["class_of_label"]["1"] == "cage" and result["locations_on_their_class"] == 1.0


def test_locations_of_another_field_are_warned_about(field, tmp_path):
    folder, _ = field
    write_field(tmp_path / "other", 2)
    result = make(folder, tmp_path / "set", particles=str(tmp_path / "other" / "particles.star"))
    assert any("of the locations lie on their class" in warning for warning in result["warnings"])


def test_whole_numbers_in_a_file_are_what_was_written_or_refused(tmp_path):
    with pytest.raises(JobError, match="no whole numbers"):
        write_volume(str(tmp_path / "a.mrc"), np.full((4, 4, 4), 0.5), 10.0, mode="int16")
    with pytest.raises(JobError, match="do not fit int16"):
        write_volume(str(tmp_path / "a.mrc"), np.full((4, 4, 4), 40000), 10.0, mode="int16")
    assert not (tmp_path / "a.mrc").exists()
    write_volume(str(tmp_path / "a.mrc"), np.full((4, 4, 4), 40000), 10.0, mode="uint16")
    assert (np.asarray(open_volume(str(tmp_path / "a.mrc"))) == 40000).all()


def test_the_dice_coefficient_is_that_of_its_formula():
    test, truth = np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int)
    test[0, 0], truth[0, 0, :3] = 1, 1
    assert voxel_score(test, truth, 1).f1 == pytest.approx(2 * 3 / 7)
    labels = torch.from_numpy(truth)[None]
    sure = 100 * torch.nn.functional.one_hot(torch.from_numpy(test)[None], 2).movedim(-1, 1).float()
    assert soft_dice_loss(sure, labels).item() == pytest.approx(1 - 2 * 3 / 7, abs=1e-5)
    assert soft_dice_loss(sure, 0 * labels).item() == 0


def test_regions_are_found_at_their_centres_and_specks_are_not():
    labels = np.zeros((20, 20, 20), int)
    labels[2:6, 2:6, 2:6] = labels[12:15, 11:14, 10:14] = 1
    labels[18, 18, 18] = 1
    np.testing.assert_allclose(region_centres(labels, 1, 20), [[3.5, 3.5, 3.5], [13, 12, 11.5]])
    assert region_centres(labels, 2, 1).shape == (0, 3)


def test_tiles_give_the_same_classes_as_the_whole(monkeypatch):
    torch.manual_seed(0)
    network = UNet3d(1, 3, 4, 1, zero_last=False)
    volume = np.random.default_rng(0).standard_normal((40, 44, 60)).astype(np.float32)
    monkeypatch.setattr("cryoden_core.dual.segmentation.mixed_precision", lambda device: torch.inference_mode())
    whole = segment(network, volume, CPU)
    monkeypatch.setattr("cryoden_core.dual.segmentation.choose_tile", lambda *_: (32, 32, 32))
    tiled = segment(network, volume, CPU)
    assert len(np.unique(whole)) > 1 and (tiled == whole).mean() > 0.9999


def test_a_small_network_learns_to_find_and_to_name_particles(field, tmp_path):
    write_field(tmp_path / "test", 2)
    for folder, name in ((field[0], "train"), (tmp_path / "test", "held_out")):
        make(folder, tmp_path / name)
    train, held_out = (read_training_set(tmp_path / name) for name in ("train", "held_out"))
    settings = SegmentationSettings(steps=60, features=8, crop=24, batch=2, rate=5e-3)
    network = train_segmentation([train], settings, CPU, 1, Progress(quiet=True))
    labels = segment(network, held_out.data, CPU)
    score = score_segmentation(labels, held_out)
    assert score["mean_dice"] > 0.6, score
    assert score["mean_f1"] > 0.6, score
    perfect = score_segmentation(np.asarray(held_out.mask), held_out)
    assert perfect["mean_dice"] == 1.0 and perfect["mean_f1"] > 0.9


def test_training_without_a_set_or_with_unlike_sets_is_refused(field, tmp_path):
    with pytest.raises(JobError, match="holds no training set"):
        read_training_set(tmp_path)
    make(field[0], tmp_path / "both")
    make(field[0], tmp_path / "one", classes=["cage"])
    sets = [read_training_set(tmp_path / name) for name in ("both", "one")]
    settings = SegmentationSettings(steps=1, features=4, crop=16, batch=1)
    with pytest.raises(JobError, match="different classes"):
        train_segmentation(sets, settings, CPU, 1, Progress(quiet=True))
    with pytest.raises(JobError, match="no training set"):
        train_segmentation([], settings, CPU, 1, Progress(quiet=True))

"""The job that judges training sets by the network trained on them: figures, files, classes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cryoden_core import api
from cryoden_core.dual.segmentation import (
    LEFT_OUT,
    LabelledTomogram,
    figures_of,
    score_segmentation,
    soft_dice_loss,
    voxel_score,
)
from cryoden_core.evaluation.segmentation_classes import OTHER, choose_groups
from cryoden_core.jobs import EvaluateSegmentationJob, JobError, RunFolder
from cryoden_core.mrc import open_volume, read_volume, write_volume
from tests.core.test_segmentation import make, write_field

QUICK = {"steps": 50, "features": 8, "patch": 24, "batch": 2, "device": "cpu", "seed": 1}


def evaluate(fields: dict[str, Path], **parameters):
    """Train on the set and test on the other field, unless the parameters say otherwise."""
    given = {
        "tomograms": [str(fields["test"] / "noisy.mrc")], "labels": [str(fields["test"] / "labels.mrc")],
        "training_sets": [str(fields["set"])], **QUICK, **parameters,
    }  # fmt: skip
    return api.run(EvaluateSegmentationJob.from_parameters(given))


@pytest.fixture(scope="module")
def fields(tmp_path_factory) -> dict[str, Path]:
    """A field with its training set, and another field to test on."""
    folder = tmp_path_factory.mktemp("fields")
    for number, name in enumerate(("train", "test")):
        write_field(folder / name, number + 1, noise=0.3)
    make(folder / "train", folder / "set")
    return {"train": folder / "train", "test": folder / "test", "set": folder / "set"}


@pytest.fixture(scope="module")
def run(fields, tmp_path_factory):
    """A run that writes everything: its result and its folder."""
    folder = tmp_path_factory.mktemp("run")
    result = evaluate(
        fields, particles=[str(fields["test"] / "particles.star")], output=str(folder / "figures.json"),
        segmentations=str(folder / "segmented"),
    )  # fmt: skip
    return result, folder


def labelled(counts: dict[str, int], source_labels: dict[int, int] | None = None) -> LabelledTomogram:
    """A row of voxels with so many of each class, and one of background."""
    mask = np.repeat(np.arange(len(counts) + 1), [1, *counts.values()])[None, None]
    names = dict(enumerate(counts, 1))
    return LabelledTomogram(mask.astype(np.float32), mask, 0.0, 1.0, names, [], 10.0, source_labels or {})


def test_the_network_finds_the_classes_of_the_set_in_another_field(run):
    result, _ = run
    found = result["tomograms"][0]
    assert found["foreground_dice"] > 0.5 and found["mean_dice"] > 0.35, found
    assert result["groups"] == {"cage": ["cage"], "ribosome_like": ["ribosome_like"]}
    assert result["together"]["mean_dice"] == found["mean_dice"]


def test_figures_are_those_of_the_segmentation_that_is_written(run, fields):
    result, folder = run
    written = np.asarray(open_volume(result["tomograms"][0]["segmentation"]))
    labels = read_volume(str(fields["test"] / "labels.mrc"))
    for label, name in ((1, "cage"), (2, "ribosome_like")):
        figures = result["tomograms"][0]["classes"][name]
        assert figures["dice"] == voxel_score(written, labels, label).f1
        assert 0 <= figures["f1"] <= 1 and set(figures) == {"dice", "f1", "precision", "recall"}
    assert json.loads((folder / "figures.json").read_text()) == result
    assert json.loads(Path(RunFolder.beside(str(folder / "figures.json")).result).read_text()) == result


def test_a_finished_run_is_resumed_without_training_again(run, fields, capsys):
    result, folder = run
    output = str(folder / "figures.json")
    inverted = str(folder / "inverted.mrc")
    write_volume(inverted, -read_volume(str(fields["test"] / "noisy.mrc")), 10.0)
    labels = [str(fields["test"] / "labels.mrc")] * 2
    again = evaluate(
        fields, tomograms=[str(fields["test"] / "noisy.mrc"), inverted], labels=labels, output=output, resume=True
    )
    err = capsys.readouterr()
    assert f"resuming at step {QUICK['steps']}" in err.err and "all tomograms together" in err.out
    first, second = again["tomograms"]
    assert first["mean_dice"] == result["tomograms"][0]["mean_dice"] > second["mean_dice"]
    low, high = sorted((first["foreground_dice"], second["foreground_dice"]))
    assert low <= again["together"]["foreground_dice"] <= high
    assert any("density looks dark in " + inverted in warning for warning in again["warnings"])
    assert not any("noisy.mrc" in warning for warning in again["warnings"])


def test_a_checkpoint_of_other_training_sets_or_groups_is_refused(run, fields, tmp_path):
    _, folder = run
    make(fields["test"], tmp_path / "other")
    job = {"run_folder": str(folder / "figures_cryoden"), "resume": True}
    with pytest.raises(JobError, match="other input or parameters"):
        evaluate(fields, training_sets=[str(tmp_path / "other")], **job)
    with pytest.raises(JobError, match="other input or parameters"):
        evaluate(fields, groups=["all=cage,ribosome_like"], **job)


def test_every_class_stands_by_itself_and_small_ones_are_joined():
    sets = [labelled({"a": 50, "b": 6, "c": 7, "d": 0}), labelled({"a": 50, "c": 3, "b": 1, "d": 0})]
    groups = choose_groups(sets, [], 15)
    assert groups.members == {"a": ["a"], OTHER: ["b", "c"]} and groups.left_out == []
    assert choose_groups(sets, [], 10).members == {"a": ["a"], "c": ["c"]}
    assert choose_groups(sets, [], 10).left_out == ["b"]
    np.testing.assert_array_equal(np.unique(groups.apply(sets[1]).mask), [0, 1, 2])
    with pytest.raises(JobError, match="no class has 1000"):
        choose_groups(sets, [], 1000)


def test_groups_are_one_class_and_the_rest_is_neither_background_nor_judged():
    volume = labelled({"a": 3, "b": 2, "c": 4})
    groups = choose_groups([volume], ["second=c", "first=b"], 1000)
    grouped = groups.apply(volume)
    np.testing.assert_array_equal(grouped.mask[0, 0], [0, -1, -1, -1, 2, 2, 1, 1, 1, 1])
    assert grouped.class_names == {1: "second", 2: "first"} and groups.left_out == ["a"]
    everywhere = score_segmentation(np.where(volume.mask > 0, 2, 0), grouped)
    assert everywhere["classes"]["first"]["dice"] == pytest.approx(2 * 2 / (6 + 2))
    assert everywhere["foreground_dice"] == 1.0


def test_classes_are_matched_by_name_and_nameless_ones_by_their_number_in_the_source():
    named = choose_groups([labelled({"b": 5, "a": 5}, {1: 7, 2: 3})], [], 1)
    assert [named.label("a", 1), named.label("b", 1), named.label("class_7", 7), named.label("class_3", 3)] == [
        2,
        1,
        1,
        2,
    ]
    assert named.label("class_1", 1) == named.label("dragon", 7) == LEFT_OUT
    nameless = choose_groups([labelled({"class_7": 5}, {1: 7})], [], 1)
    assert nameless.label("membrane", 7) == 1 and nameless.label("membrane", 1) == LEFT_OUT


def test_groups_that_cannot_be_are_refused():
    volume = labelled({"a": 3, "b": 2, "empty": 0})
    for asked, message in (
        (["a"], "not understood"),
        (["=a"], "not understood"),
        (["x=dragon"], "no class 'dragon'"),
        (["x=a", "y=a,b"], "in two groups"),
        (["x=a,a"], "in two groups"),
        (["x=a", "x=b"], "two groups with the name"),
        (["x=a", "y=empty"], "no voxel of the training sets"),
    ):
        with pytest.raises(JobError, match=message):
            choose_groups([volume], asked, 1)


def test_voxels_that_are_left_out_teach_nothing():
    scores = torch.randn(1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (1, 2, 4, 4), generator=torch.Generator().manual_seed(1))
    labels[0, 0] = LEFT_OUT
    other = scores.clone()
    other[:, :, 0] += torch.randn(1, 3, 4, 4)
    assert soft_dice_loss(scores, labels) == soft_dice_loss(other, labels)
    kept = soft_dice_loss(scores[:, :, 1:], labels[:, 1:])
    assert soft_dice_loss(scores, labels).item() == pytest.approx(kept.item(), abs=1e-6)
    assert functional.cross_entropy(scores, labels, ignore_index=LEFT_OUT) == functional.cross_entropy(
        other, labels, ignore_index=LEFT_OUT
    )


def test_a_class_that_is_not_there_has_no_figure_alone_but_counts_where_it_is_found_elsewhere():
    there, absent = labelled({"a": 4}), labelled({"a": 0})
    perfect = score_segmentation(there.mask, there)
    wrong = score_segmentation(np.ones_like(absent.mask), absent)
    assert "dice" not in wrong["classes"]["a"] and wrong["mean_dice"] is None
    together = figures_of([perfect["counts"], wrong["counts"]])
    assert together["classes"]["a"]["dice"] == pytest.approx(2 * 4 / (5 + 4))


def test_bad_input_is_refused_before_anything_is_written(fields, tmp_path):
    other = tmp_path / "unknown"
    other.mkdir()
    write_volume(
        str(other / "labels.mrc"), 9 * (read_volume(str(fields["test"] / "labels.mrc")) > 0), 10.0, mode="int16"
    )
    for name, size in (("noisy", 13.0), ("labels", 13.0)):
        write_volume(str(tmp_path / f"coarse_{name}.mrc"), read_volume(str(fields["test"] / f"{name}.mrc")), size)
    coarse = {"tomograms": [str(tmp_path / "coarse_noisy.mrc")], "labels": [str(tmp_path / "coarse_labels.mrc")]}
    noisy = str(fields["test"] / "noisy.mrc")
    unscaled = tmp_path / "unscaled"
    unscaled.mkdir()
    for name in ("noisy", "labels"):
        write_volume(str(unscaled / f"{name}.mrc"), read_volume(str(fields["test"] / f"{name}.mrc")), 0.0)
    particles = str(fields["test"] / "particles.star")
    make(unscaled, unscaled / "set", particles=particles)
    without_size = {
        "tomograms": [str(unscaled / "noisy.mrc")], "labels": [str(unscaled / "labels.mrc")],
        "particles": [particles], "training_sets": [str(unscaled / "set")],
    }  # fmt: skip
    output = str(tmp_path / "figures.json")
    for choice, message in (
        ({"training_sets": [str(tmp_path)]}, "holds no training set"),
        ({"labels": [noisy]}, "whole numbers|also"),
        ({"labels": [str(other / "labels.mrc")]}, "class_9"),
        ({"labels": []}, "'labels' is missing"),
        ({"labels": [noisy, noisy]}, "one labels volume for each tomogram"),
        ({"particles": [noisy, noisy]}, "one file of particles for each tomogram"),
        (coarse, "bring them to one voxel size"),
        (without_size, "set it in the header"),
        ({"groups": ["x=dragon"]}, "no class 'dragon'"),
        ({"device": "tpu"}, "'device' must be"),
        ({"output": "", "resume": True}, "nothing to resume"),
        ({"output": noisy}, "also an input"),
        ({"patch": 4}, "at least 8"),
    ):
        with pytest.raises(JobError, match=message):
            evaluate(fields, **{"output": output, **choice})
    assert not Path(output).exists() and not list(tmp_path.glob("*_cryoden/job.json"))

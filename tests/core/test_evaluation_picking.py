"""The job that scores picking: its figures on planted balls, its table, its files, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from cryoden_core import mrc, picking
from cryoden_core.evaluation.picking import evaluate, score, summary
from cryoden_core.jobs import EvaluatePickingJob, JobError, job_from_dict
from cryoden_core.phantom.particles import Particle, write_star
from cryoden_core.picking import Picks, TruePositions
from tests.core.test_picking import CENTRES, balls


@pytest.fixture
def specimen(tmp_path: Path) -> tuple[str, str]:
    """A tomogram of dark balls at 13.68 angstrom and the file of their positions."""
    noise = np.random.default_rng(3).normal(size=balls().shape).astype(np.float32)
    mrc.write_volume(str(tmp_path / "noisy.mrc"), 0.5 * noise - balls(), 13.68)
    mrc.write_volume(str(tmp_path / "clean.mrc"), -balls(), 13.68)
    picking.write_picks(Picks(CENTRES, np.ones(len(CENTRES))), tmp_path / "truth.star", "balls")
    return str(tmp_path), str(tmp_path / "truth.star")


def test_without_noise_f1_is_one_at_the_true_number_and_the_ceiling_beyond(specimen: tuple[str, str]) -> None:
    folder, truth = specimen
    result = evaluate(EvaluatePickingJob(tomograms=[folder + "/clean.mrc"], truth=[truth], count=0))
    row = result["tomograms"][0]
    assert row["f1"] == row["f1_ceiling"] == row["average_precision"] == 1.0
    assert row["picks"] == row["truths"] == row["hits"] == 6
    result = evaluate(EvaluatePickingJob(tomograms=[folder + "/noisy.mrc"], truth=[truth], count=8))
    row = result["tomograms"][0]
    assert row["f1"] == row["f1_ceiling"] == pytest.approx(12 / (row["picks"] + 6))
    assert 6 < row["picks"] <= 8
    assert row["recall"] == 1.0 and row["f1_best"] == 1.0 and row["picks_of_f1_best"] == 6


def test_picks_and_figures_are_written_and_several_tomograms_have_a_mean(
    specimen: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, truth = specimen
    job = EvaluatePickingJob(
        tomograms=[folder + "/clean.mrc", folder + "/noisy.mrc"], truth=[truth, truth], count=6,
        picks=str(tmp_path / "picks"), output=str(tmp_path / "figures.json"),
    )  # fmt: skip
    result = evaluate(job)
    assert json.loads(Path(job.output).read_text()) == result
    first = picking.read_positions(tmp_path / "picks" / "picks_1.star").positions
    assert (picking.match(first, CENTRES, 1.0) >= 0).all() and len(first) == 6
    assert (tmp_path / "picks" / "picks_2.star").exists()
    assert result["mean"]["f1"] == pytest.approx(np.mean([row["f1"] for row in result["tomograms"]]))
    low, high = result["interval"]["f1"]
    assert low <= result["mean"]["f1"] <= high
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[3].startswith("mean")


def test_without_a_truth_the_best_picks_are_written(specimen: tuple[str, str], tmp_path: Path) -> None:
    job = EvaluatePickingJob(tomograms=[specimen[0] + "/clean.mrc"], picks=str(tmp_path / "p"), count=4)
    result = evaluate(job)
    assert result["tomograms"][0]["picks"] == 4 and "f1" not in result["tomograms"][0]
    assert len(picking.read_positions(tmp_path / "p" / "picks_1.star").positions) == 4


def test_the_recall_of_each_class_is_told() -> None:
    truth = TruePositions(CENTRES, ("large", "large", "large", "small", "small", "small"))
    picks = Picks(CENTRES[[0, 1, 3]], np.array([3.0, 2.0, 1.0]))
    found = score(picks, truth, 3, 1.0)
    assert found["recall_of_class"] == pytest.approx({"large": 2 / 3, "small": 1 / 3})
    assert found["precision"] == 1.0 and found["f1"] == pytest.approx(6 / 9)


def test_units_of_filaments_and_proteins_in_membranes_count_only_when_asked_for(
    specimen: tuple[str, str], tmp_path: Path
) -> None:
    kinds = ["particle", "particle", "filament", "membrane protein", "particle", "filament"]
    placed = [
        Particle(kind, kind.split()[0], 1, centre[::-1], np.eye(3)) for kind, centre in zip(kinds, CENTRES, strict=True)
    ]  # fmt: skip
    write_star(placed, tmp_path / "kinds.star", "balls")
    given = {"tomograms": [specimen[0] + "/clean.mrc"], "truth": [str(tmp_path / "kinds.star")], "count": 6}
    (row,) = evaluate(EvaluatePickingJob(**given))["tomograms"]
    assert (row["truths"], row["hits"], row["precision"]) == (3, 3, 0.5)
    (row,) = evaluate(EvaluatePickingJob(**given, kinds=["particle", "membrane protein"]))["tomograms"]
    assert (row["truths"], row["hits"]) == (4, 4) and set(row["recall_of_class"]) == {"particle", "membrane"}
    write_star([item for item in placed if item.kind == "filament"], tmp_path / "kinds.star", "balls")
    with pytest.raises(JobError, match="no positions of kind particle"):
        evaluate(EvaluatePickingJob(**given))


def test_no_pick_at_all_scores_zero_and_not_an_error() -> None:
    found = score(Picks(np.zeros((0, 3)), np.zeros(0)), TruePositions(CENTRES, ("",) * 6), 10, 1.0)
    assert found["f1"] == found["precision"] == found["average_precision"] == found["f1_best"] == 0.0
    assert found["picks_of_f1_best"] == 0


def test_tomograms_that_agree_have_an_interval_of_no_width() -> None:
    found = score(Picks(CENTRES, np.arange(6.0)[::-1]), TruePositions(CENTRES, ("",) * 6), 6, 1.0)
    assert summary([found, found])["interval"]["f1"] == [1.0, 1.0]


def test_bad_input_gets_one_sentence_before_anything_is_written(specimen: tuple[str, str], tmp_path: Path) -> None:
    folder, truth = specimen
    far = tmp_path / "angstrom.star"
    picking.write_picks(Picks(1368 * CENTRES, np.ones(6)), far, "balls")
    mrc.write_volume(str(tmp_path / "unsized.mrc"), -balls())
    cases = [
        ({"tomograms": [folder + "/clean.mrc"], "truth": [str(far)]}, "not in angstrom"),
        ({"tomograms": [str(tmp_path / "unsized.mrc")], "truth": [truth]}, "unsized.mrc has no voxel size"),
        ({"tomograms": [folder + "/nowhere.mrc"], "truth": [truth]}, "nowhere.mrc"),
        ({"tomograms": [folder + "/clean.mrc"], "truth": [folder + "/no.star"]}, "no.star does not exist"),
    ]
    for parameters, words in cases:
        with pytest.raises(JobError, match=words) as error:
            evaluate(EvaluatePickingJob(picks=str(tmp_path / "out"), **parameters))
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "'tomograms' is missing"),
        ({"tomograms": ["a.mrc"]}, "give 'truth' to compare with, or 'picks'"),
        ({"tomograms": ["a.mrc", "b.mrc"], "truth": ["a.star"]}, "2 tomograms, 1 files"),
        ({"tomograms": ["a.mrc"], "picks": "p", "count": 0}, "a count of 0"),
        ({"tomograms": ["a.mrc"], "truth": ["a.star"], "output": "./a.star"}, "also an input"),
        ({"tomograms": ["a.mrc"], "truth": ["a.star"], "ratio": 1.0}, "'ratio' must be at least 1.01"),
        ({"tomograms": ["a.mrc"], "truth": ["a.star"], "kinds": ["vesicle"]}, "no kind of objects 'vesicle'"),
        ({"tomograms": ["a.mrc"], "truth": ["a.star"], "contrast": "grey"}, "'contrast' must be one of dark, bright"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(given: dict, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        job_from_dict({"schema": 1, "system": "evaluate picking", "parameters": given})

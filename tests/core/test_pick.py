"""The job ``pick``: which picks are kept, where they lie, in which form they are written, and what is refused."""

import json

import numpy as np
import pytest

from cryoden_core.api import run
from cryoden_core.jobs import JobError, PickJob, read_job
from cryoden_core.mrc import read_volume, write_volume
from cryoden_core.picking import match, read_positions
from tests.core.test_picking import CENTRES, SHAPE, balls

VOXEL_SIZE = 13.68


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory) -> str:
    """Six dark balls of 28 nm under noise."""
    path = str(tmp_path_factory.mktemp("pick") / "balls.mrc")
    noise = np.random.default_rng(0).normal(scale=0.5, size=SHAPE)
    write_volume(path, (noise - balls()).astype(np.float32), VOXEL_SIZE)
    return path


def picked(tomogram: str, tmp_path, **parameters) -> tuple[np.ndarray, dict]:
    output = str(tmp_path / "picks.star")
    result = run(PickJob.from_parameters({"input": tomogram, "output": output, **parameters}), quiet=True)
    return read_positions(output).positions, result


def test_all_balls_and_nothing_else_stand_out_by_three_standard_deviations(tomogram, tmp_path):
    positions, result = picked(tomogram, tmp_path)
    assert result["picks"] == len(positions) == len(CENTRES)
    assert sorted(match(positions, CENTRES, 1.5)) == list(range(len(CENTRES)))
    assert read_job(str(tmp_path / "picks_cryoden" / "job.json")).diameter == 280
    assert json.loads((tmp_path / "picks_cryoden" / "result.json").read_text()) == result


def test_scores_are_written_the_highest_first_whatever_the_grey_scale(tomogram, tmp_path):
    def scores(name: str) -> list[float]:
        lines = (tmp_path / name).read_text().splitlines()
        return [float(line.split()[-1]) for line in lines if line.strip().startswith("balls ")]

    picked(tomogram, tmp_path, threshold=0.0)
    found = scores("picks.star")
    assert found == sorted(found, reverse=True) and min(found) < 3 < found[len(CENTRES) - 1]
    other = str(tmp_path / "balls.mrc")
    write_volume(other, 1000 + 50 * read_volume(tomogram), VOXEL_SIZE)
    run(PickJob(input=other, output=str(tmp_path / "other.star"), threshold=0.0), quiet=True)
    np.testing.assert_allclose(scores("other.star")[: len(CENTRES)], found[: len(CENTRES)], rtol=1e-3)


def test_the_best_are_kept_where_a_number_is_given(tomogram, tmp_path):
    all_of_them, _ = picked(tomogram, tmp_path)
    best, _ = picked(tomogram, tmp_path, count=2)
    np.testing.assert_array_equal(best, all_of_them[:2])


def test_no_pick_lies_outside_the_mask_or_near_a_face(tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.float32)
    mask[:, :80] = 1
    write_volume(str(tmp_path / "mask.mrc"), mask, VOXEL_SIZE)
    positions, _ = picked(tomogram, tmp_path, mask=str(tmp_path / "mask.mrc"))
    assert sorted(match(positions, CENTRES[CENTRES[:, 1] < 80], 1.5)) == [0, 1, 2, 3]
    positions, _ = picked(tomogram, tmp_path, border=20.5 * VOXEL_SIZE)
    assert len(positions) > 0 and (positions >= 21).all() and (positions <= np.array(SHAPE) - 22).all()


def test_without_picks_there_is_a_warning_and_an_empty_table(tomogram, tmp_path):
    output = tmp_path / "none.star"
    result = run(PickJob(input=tomogram, output=str(output), threshold=100.0), quiet=True)
    assert result["picks"] == 0 and "take a smaller threshold" in result["warnings"][0]
    assert output.exists()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"diameter": 20.0}, "too small for voxels of 13.68 A"),
        ({"border": 5000.0}, "leave no place for a pick"),
        ({"mask": "other.mrc"}, "has 8 x 8 x 8 voxels"),
        ({"contrast": "grey"}, "must be one of dark, bright"),
    ],
)
def test_what_cannot_work_gets_a_sentence_and_no_file(tomogram, tmp_path, parameters, sentence):
    write_volume(str(tmp_path / "other.mrc"), np.ones((8, 8, 8), np.float32), VOXEL_SIZE)
    if "mask" in parameters:
        parameters = {"mask": str(tmp_path / "other.mrc")}
    with pytest.raises(JobError, match=sentence):
        picked(tomogram, tmp_path, **parameters)
    assert not (tmp_path / "picks.star").exists()

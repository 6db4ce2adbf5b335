"""The missing wedge: what is kept, what is found, the self-test, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core import mrc
from cryoden_core.dual.missing_wedge import TiltRange, missing_part
from cryoden_core.evaluation.wedge import evaluate, exchanged, missing_share, prepare_self_test, self_test
from cryoden_core.jobs import EvaluateWedgeJob, JobError, job_from_dict

SHAPE = (32, 40, 48)
TILTS = TiltRange(-60.0, 50.0)


def volume(seed: int) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.2, mode="wrap").astype(np.float32)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    truth = volume(0)
    measured = truth - missing_part(truth, TILTS)
    volumes = {
        "truth": truth, "input": measured, "perfect": truth, "invented": measured + missing_part(volume(1), TILTS),
        "half": measured + missing_part(truth + volume(1), TILTS), "smoothed": gaussian_filter(truth, 1.5),
    }  # fmt: skip
    for name, values in volumes.items():
        mrc.write_volume(str(tmp_path / (name + ".mrc")), values, 10.0)
    return {name: str(tmp_path / (name + ".mrc")) for name in volumes}


def judge(files: dict[str, str], name: str, **parameters) -> dict:
    job = {"input": files["input"], "truth": files["truth"], "tilt_min": -60.0, "tilt_max": 50.0, **parameters}
    return evaluate(EvaluateWedgeJob(compensated=files[name], **job))


def test_what_was_found_correlates_with_the_truth_and_what_was_invented_does_not(files: dict[str, str]) -> None:
    found = {name: judge(files, name)["after"]["correlation_missing"] for name in ("perfect", "half", "invented")}
    assert found["perfect"] == pytest.approx(1.0, abs=1e-4)
    assert found["half"] == pytest.approx(np.sqrt(0.5), abs=0.06)
    assert abs(found["invented"]) < 0.06


def test_the_measured_region_is_unchanged_only_if_nothing_there_was_touched(files: dict[str, str]) -> None:
    assert judge(files, "invented")["measured_change"] < 1e-5
    assert judge(files, "smoothed")["measured_change"] > 0.1


def test_before_filling_there_is_no_power_and_no_agreement(files: dict[str, str]) -> None:
    result = judge(files, "perfect")
    assert result["before"]["missing_share"] < 1e-6 < 0.1 < result["truth_missing_share"]
    assert result["after"]["missing_share"] == pytest.approx(result["truth_missing_share"])
    assert result["before"]["correlation_missing"] == 0
    assert result["before"]["correlation_measured"] == pytest.approx(1.0, abs=1e-4)


def test_exchanging_x_and_z_twice_gives_the_volume_back_and_keeps_the_hand() -> None:
    values = volume(3)
    assert exchanged(values).shape == (48, 40, 32)
    np.testing.assert_array_equal(exchanged(exchanged(values)), values)
    np.testing.assert_array_equal(exchanged(values)[5, 7, 9], values[9, -8, 5])


def test_the_self_test_cuts_the_other_wedge_and_rewards_only_what_is_found_again() -> None:
    compensated = volume(0)
    cut, reference = prepare_self_test(compensated, TILTS), exchanged(compensated)
    assert missing_share(cut, TILTS) < 1e-6 < 0.1 < missing_share(reference, TILTS)
    perfect, nothing = self_test(reference, reference, TILTS), self_test(cut, reference, TILTS)
    assert perfect["correlation_removed"] == pytest.approx(1.0) and perfect["ssim"] == pytest.approx(1.0)
    assert nothing["correlation_removed"] == 0
    assert nothing["psnr"] < 30 < perfect["psnr"]
    invented = self_test(cut + missing_part(volume(9).transpose(2, 1, 0), TILTS), reference, TILTS)
    assert abs(invented["correlation_removed"]) < 0.06
    assert invented["psnr"] < nothing["psnr"]


def test_the_self_test_is_written_filled_and_judged(files: dict[str, str], tmp_path: Path, capsys) -> None:
    test = str(tmp_path / "test.mrc")
    assert "self_test" not in judge(files, "perfect", self_test=test)
    np.testing.assert_allclose(mrc.read_volume(test), prepare_self_test(volume(0), TILTS), atol=1e-6)
    filled = str(tmp_path / "filled.mrc")
    mrc.write_volume(filled, exchanged(volume(0)), 10.0)
    output = str(tmp_path / "figures.json")
    result = judge(files, "perfect", self_test_filled=filled, output=output)
    assert json.loads(Path(output).read_text()) == result
    assert result["self_test"]["correlation_removed"] == pytest.approx(1.0)
    assert result["self_test"]["psnr"] is None
    table = capsys.readouterr().out
    assert "change of the measured region" in table and "correlation in what was cut out" in table


def test_a_filled_self_test_that_was_not_turned_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(JobError, match="x and z change places"):
        judge(files, "perfect", self_test_filled=files["truth"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"compensated": "a.mrc"}, "'input' is missing"),
        ({"compensated": "a.mrc", "input": "b.mrc", "tilt_min": 10, "tilt_max": -10}, "10 to -10 degrees is empty"),
        ({"compensated": "a.mrc", "input": "b.mrc", "self_test": "b.mrc"}, "also an input"),
        ({"compensated": "a.mrc", "input": "b.mrc", "job": "j.json"}, "with a job file give 'self_test'"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(given: dict, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        job_from_dict({"schema": 1, "system": "evaluate wedge", "parameters": given})

"""Particles made of nothing: what a denoiser may do to noise and what counts as invention; the job around it."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core import mrc
from cryoden_core.evaluation.hallucination import (
    agreement_beyond_data,
    contrast_at,
    detections,
    evaluate,
    judge,
)
from cryoden_core.evaluation.repetition import repeat
from cryoden_core.jobs import (
    DualWedgeJob,
    EvaluateHallucinationJob,
    EvaluateJob,
    JobError,
    NmsgJob,
    RunFolder,
    job_from_dict,
    write_job,
)
from cryoden_core.picking import PickingSettings

SHAPE = (32, 80, 80)
SETTINGS = PickingSettings(sigma=25.0, exclusion=75.0)


def balls(seed: int, count: int = 24, sigma: float = 2.5) -> np.ndarray:
    """Soft bright balls, (z, y, x)."""
    random = np.random.default_rng(seed)
    points = np.zeros(SHAPE, np.float32)
    for position in zip(*(random.integers(5, size - 5, count) for size in SHAPE), strict=True):
        points[position] = 1
    volume = gaussian_filter(points, sigma)
    return volume / volume.max()


def noise(seed: int, sd: float = 0.7) -> np.ndarray:
    return (sd * np.random.default_rng(seed).normal(size=SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def tomogram() -> np.ndarray:
    return balls(0) + noise(1)


def smoothed(volume: np.ndarray) -> np.ndarray:
    return gaussian_filter(volume, 2.0)


def test_doing_nothing_and_linear_filters_invent_nothing(tomogram: np.ndarray) -> None:
    for denoise in (np.copy, smoothed):
        found = judge(denoise, tomogram, 10.0, SETTINGS, count=20)
        assert not found["invents"]
        assert set(found["volumes"]) == {"phase_randomised", "shuffled"}
    same = judge(np.copy, tomogram, 10.0, SETTINGS, count=20)["volumes"]["phase_randomised"]
    assert same["before"] == same["after"]


def test_particles_in_what_was_made_of_noise_are_found_out(tomogram: np.ndarray) -> None:
    """Sixteen balls on a grid, higher than the specimen's, in what should be empty."""
    points = np.zeros(SHAPE, np.float32)
    points[16, 14:70:17, 14:70:17] = 1
    grid = gaussian_filter(points, 2.5)
    before = {"tomogram": tomogram, "phase_randomised": noise(8), "empty": noise(7)}
    after = {"tomogram": balls(0), "phase_randomised": 1.5 * grid / grid.max(), "empty": 0.01 * noise(7)}
    found = detections(before, after, 10.0, SETTINGS, count=8)
    row = found["volumes"]["phase_randomised"]
    assert found["invents"] and (row["before"], row["after"]) == (0, 16) and row["control"] < 1
    assert row["per_cubic_micrometre"] == pytest.approx(16 / (16 * 64 * 64 * 1e-9))
    assert found["volumes"]["empty"]["after"] == 0
    after["phase_randomised"] = after["empty"]
    assert not detections(before, after, 10.0, SETTINGS, count=8)["invents"]


def test_a_denoiser_that_returns_emptiness_for_noise_invents_nothing(tomogram: np.ndarray) -> None:
    truth = balls(0)

    def perfect(volume: np.ndarray) -> np.ndarray:
        return truth if np.corrcoef(volume.ravel(), truth.ravel())[0, 1] > 0.1 else np.zeros_like(volume)

    found = judge(perfect, tomogram, 10.0, SETTINGS, count=8)
    assert not found["invents"] and found["volumes"]["phase_randomised"]["after"] == 0


def test_halves_agree_no_more_after_a_linear_filter_and_more_after_invention() -> None:
    even, odd = noise(2), noise(3)
    linear = agreement_beyond_data(even, odd, smoothed(even), smoothed(odd))
    assert abs(linear["excess"]) < 0.01
    invented = agreement_beyond_data(even, odd, even + 3 * noise(4), odd + 3 * noise(4))
    assert invented["excess"] > 0.8


def test_particles_that_were_removed_are_seen_in_the_residual() -> None:
    places = np.argwhere(balls(5) > 0.99)
    assert abs(contrast_at(noise(6), places, 2.5)) < 3.5
    assert contrast_at(noise(6) + 0.5 * balls(5), places, 2.5) > 5
    assert contrast_at(noise(6) - 0.5 * balls(5), places, 2.5) < -5


def test_controls_are_written_denoised_elsewhere_and_judged(
    tomogram: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, folder = str(tmp_path / "tomogram.mrc"), tmp_path / "controls"
    mrc.write_volume(path, -tomogram, 10.0)
    result = evaluate(EvaluateHallucinationJob(tomogram=path, controls=str(folder)))
    assert sorted(item.name for item in folder.iterdir()) == ["phase_randomised.mrc", "shuffled.mrc"]
    assert result["controls"]["shuffled"] in capsys.readouterr().out
    for name, source in (("denoised", path), ("random", result["controls"]["phase_randomised"])):
        mrc.write_volume(str(tmp_path / (name + ".mrc")), smoothed(mrc.read_volume(source)), 10.0)
    job = EvaluateHallucinationJob(
        tomogram=path, denoised=str(tmp_path / "denoised.mrc"), denoised_randomised=str(tmp_path / "random.mrc"),
        count=8, sigma=25.0, exclusion=75.0, output=str(tmp_path / "figures.json"),
    )  # fmt: skip
    result = evaluate(job)
    assert json.loads(Path(job.output).read_text()) == result
    assert list(result["volumes"]) == ["phase_randomised"] and not result["invents"]
    assert "verdict: no more than chance makes" in capsys.readouterr().out


def test_a_repeated_job_gets_the_new_files_and_the_model_of_its_run_and_nothing_of_the_old_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr("cryoden_core.api.run", lambda job, quiet: ran.append(job))
    first = NmsgJob(
        input="a.mrc", output=str(tmp_path / "out.mrc"), even="e.mrc", odd="o.mrc", mask="m.mrc", preset="fast", seed=7,
        output_even="oe.mrc", resume=True,
    )  # fmt: skip
    write_job(first, str(tmp_path / "job.json"))
    repeat(str(tmp_path / "job.json"), "new.mrc", "result.mrc")
    folder = RunFolder.beside(first.output)
    Path(folder.path).mkdir()
    Path(folder.model).touch()
    repeat(str(tmp_path / "job.json"), "new.mrc", "result.mrc")
    again = NmsgJob(input="new.mrc", output="result.mrc", preset="fast", seed=7)
    assert ran[0] == again
    again.model = folder.model
    assert ran[1] == again


def test_a_repeated_filling_of_the_wedge_takes_the_model_from_where_the_first_saved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr("cryoden_core.api.run", lambda job, quiet: ran.append(job))
    saved = tmp_path / "kept.safetensors"
    saved.touch()
    first = DualWedgeJob(input="a.mrc", output=str(tmp_path / "out.mrc"), save_model=str(saved), train_with=["b.mrc"])
    write_job(first, str(tmp_path / "job.json"))
    repeat(str(tmp_path / "job.json"), "new.mrc", "result.mrc")
    assert ran == [DualWedgeJob(input="new.mrc", output="result.mrc", model=str(saved))]


def test_a_job_file_denoises_the_tomogram_and_the_controls(
    tomogram: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smooth(path: str, input: str, output: str) -> None:
        mrc.write_volume(output, smoothed(mrc.read_volume(input)), 10.0)

    monkeypatch.setattr("cryoden_core.evaluation.hallucination.repeat", smooth)
    path, controls = str(tmp_path / "tomogram.mrc"), tmp_path / "controls"
    mrc.write_volume(path, -tomogram, 10.0)
    method = str(tmp_path / "job.json")
    write_job(NmsgJob(input="a.mrc", output="b.mrc"), method)
    job = EvaluateHallucinationJob(tomogram=path, job=method, controls=str(controls), count=8, sigma=25.0)
    result = evaluate(job)
    assert set(result["volumes"]) == {"phase_randomised", "shuffled"} and not result["invents"]
    again = mrc.read_volume(str(controls / "tomogram_denoised.mrc"))
    np.testing.assert_allclose(again, smoothed(-tomogram), atol=1e-6)


def test_bad_input_gets_one_sentence(tomogram: np.ndarray, tmp_path: Path) -> None:
    path, small = str(tmp_path / "tomogram.mrc"), str(tmp_path / "small.mrc")
    mrc.write_volume(path, tomogram, 10.0)
    mrc.write_volume(small, tomogram[1:], 10.0)
    write_job(EvaluateJob(test=path, reference=path), str(tmp_path / "other.json"))
    cases = [
        ({"denoised": path, "denoised_randomised": small}, "small.mrc has 80 x 80 x 31 voxels"),
        ({"controls": str(tmp_path / "c"), "job": str(tmp_path / "other.json")}, "does not make one volume"),
    ]
    for parameters, words in cases:
        with pytest.raises(JobError, match=words) as error:
            evaluate(EvaluateHallucinationJob(tomogram=path, **parameters))
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "'tomogram' is missing"),
        ({"tomogram": "a.mrc"}, "give 'controls' to write"),
        ({"tomogram": "a.mrc", "job": "j.json"}, "give 'controls', a folder"),
        ({"tomogram": "a.mrc", "job": "j.json", "controls": "c", "denoised": "b.mrc"}, "not both"),
        ({"tomogram": "a.mrc", "controls": "c", "even": "b.mrc"}, "none of the four"),
        ({"tomogram": "a.mrc", "controls": "c", "output": "a.mrc"}, "also an input"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(given: dict, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        job_from_dict({"schema": 1, "system": "evaluate hallucination", "parameters": given})

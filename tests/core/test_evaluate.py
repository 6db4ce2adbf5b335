"""The evaluate job: figures against a known truth and between halves, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core import metrics, mrc
from cryoden_core.evaluate import evaluate
from cryoden_core.jobs import EvaluateJob, JobError, job_from_dict
from cryoden_core.progress import Progress

SHAPE = (24, 40, 44)


@pytest.fixture
def files(tmp_path: Path) -> dict:
    random = np.random.default_rng(0)
    truth = gaussian_filter(random.normal(size=SHAPE), 1.5, mode="wrap").astype(np.float32)
    truth /= truth.std()
    halves = [truth + random.normal(size=SHAPE).astype(np.float32) for _ in range(2)]
    mask = np.zeros(SHAPE, np.float32)
    mask[4:-4, 8:-8, 8:-8] = 1
    volumes = {
        "reference": truth, "even": 5 * halves[0], "odd": 5 * halves[1],
        "test": 5 * (halves[0] + halves[1]) / 2 + 100, "mask": gaussian_filter(mask, 1.5),
    }  # fmt: skip
    for name, volume in volumes.items():
        mrc.write_volume(str(tmp_path / (name + ".mrc")), volume, 10.0)
    return {name: str(tmp_path / (name + ".mrc")) for name in volumes}


def test_figures_are_those_of_the_metrics_whatever_the_scale(files: dict) -> None:
    result = evaluate(EvaluateJob(test=files["test"], reference=files["reference"]))
    test, truth = mrc.read_volume(files["test"]), mrc.read_volume(files["reference"])
    # Half the halves' noise variance: correlation sqrt(1 / 1.5).
    assert result["correlation"] == pytest.approx(np.sqrt(1 / 1.5), abs=0.01)
    assert result["psnr_affine"] == pytest.approx(metrics.psnr_affine(test, truth), abs=1e-3)
    assert result["psnr_minmax"] == pytest.approx(metrics.psnr_minmax(test, truth))
    fitted = result["gain"] * test + result["offset"]
    assert result["ssim"] == pytest.approx(metrics.ssim3d(fitted, truth), abs=1e-4)
    frequency, curve = metrics.fsc(test, truth)
    expected = 10.0 / metrics.frequency_at(frequency, curve, 0.5)
    assert result["reference_resolution_0.5"] == pytest.approx(expected)
    assert result["resolution_unit"] == "angstrom"
    assert "halves_resolution_0.5" not in result


def test_halves_give_a_resolution_and_the_json_file_equals_what_is_returned(files: dict, tmp_path: Path) -> None:
    output = str(tmp_path / "new" / "figures.json")
    names = ("test", "reference", "even", "odd", "mask")
    result = evaluate(EvaluateJob(output=output, **{name: files[name] for name in names}))
    assert json.loads(Path(output).read_text()) == result
    assert 20.0 <= result["halves_resolution_0.143"] < result["halves_resolution_0.5"]
    assert len(result["halves_fsc"]["fsc"]) == len(result["halves_fsc"]["frequency"]) == 22


def test_the_truth_itself_is_perfect_and_infinite_figures_become_null(files: dict, tmp_path: Path) -> None:
    output = str(tmp_path / "figures.json")
    result = evaluate(EvaluateJob(test=files["reference"], reference=files["reference"], output=output))
    assert result["correlation"] == pytest.approx(1.0)
    assert result["psnr_minmax"] is None
    assert result["reference_resolution_0.143"] == pytest.approx(20.0)
    assert "Infinity" not in Path(output).read_text()


def test_the_table_shows_every_figure(files: dict, capsys: pytest.CaptureFixture) -> None:
    evaluate(EvaluateJob(**{name: files[name] for name in ("test", "reference", "even", "odd")}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert any(line.startswith("FSC of the halves = 0.143 at (angstrom)") for line in lines)


def test_without_a_voxel_size_resolution_is_in_voxels_and_says_so(files: dict, tmp_path: Path) -> None:
    for name in ("test", "reference"):
        mrc.write_volume(str(tmp_path / ("no_%s.mrc" % name)), mrc.read_volume(files[name]))
    job = EvaluateJob(test=str(tmp_path / "no_test.mrc"), reference=str(tmp_path / "no_reference.mrc"))
    progress = Progress(quiet=True)
    result = evaluate(job, progress)
    assert result["resolution_unit"] == "voxels" and 2 <= result["reference_resolution_0.5"] < 44
    assert len(progress.warnings) == 1
    job.voxel_size = 7.0
    assert evaluate(job)["reference_resolution_0.5"] == pytest.approx(7 * result["reference_resolution_0.5"])


def test_volumes_of_different_size_are_refused_with_both_sizes(files: dict, tmp_path: Path) -> None:
    small = str(tmp_path / "small.mrc")
    mrc.write_volume(small, mrc.read_volume(files["reference"])[1:])
    with pytest.raises(JobError, match=r"44 x 40 x 23 voxels .* 44 x 40 x 24"):
        evaluate(EvaluateJob(test=files["test"], reference=small))


def test_an_empty_mask_is_refused(files: dict, tmp_path: Path) -> None:
    empty = str(tmp_path / "empty.mrc")
    mrc.write_volume(empty, np.zeros(SHAPE, np.float32))
    with pytest.raises(JobError, match="constant"):
        evaluate(EvaluateJob(test=files["test"], reference=files["reference"], mask=empty))


def test_a_thin_volume_has_figures(files: dict, tmp_path: Path) -> None:
    names = {}
    for name in ("test", "reference"):
        names[name] = str(tmp_path / ("thin_%s.mrc" % name))
        mrc.write_volume(names[name], mrc.read_volume(files[name])[:3, :12, :12], 10.0)
    result = evaluate(EvaluateJob(**names))
    assert result["vif"] is None and 0 < result["ssim"] < 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"test": "a.mrc"}, "'reference' is missing"),
        ({"test": "a.mrc", "reference": "b.mrc", "even": "c.mrc"}, "both halves or none"),
        ({"test": "a.mrc", "reference": "b.mrc", "output": "./b.mrc"}, "also an input"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(given: dict, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        job_from_dict({"schema": 1, "system": "evaluate volume", "parameters": given})

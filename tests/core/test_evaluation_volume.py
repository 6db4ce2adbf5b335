"""The evaluate job: figures against a known truth and between halves, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from cryoden_core import metrics, mrc
from cryoden_core.evaluation.volume import evaluate
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


def test_lost_low_frequencies_do_not_hide_where_the_agreement_with_the_truth_ends(files: dict) -> None:
    names = ("test", "reference", "even", "odd")
    whole = evaluate(EvaluateJob(**{name: files[name] for name in names}))
    for seed, name in enumerate(("test", "even", "odd"), start=7):
        # As with contrast transfer near focus: something else in place of the lowest frequencies.
        volume = mrc.read_volume(files[name])
        other = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5, mode="wrap")
        change = gaussian_filter(volume.std() / other.std() * other - volume, 3, mode="wrap")
        mrc.write_volume(files[name], volume + change, 10.0)
    found = evaluate(EvaluateJob(**{name: files[name] for name in names}))
    assert found["reference_fsc"]["fsc"][0] < 0.3
    for threshold in ("0.5", "0.143"):
        assert found["reference_resolution_" + threshold] == pytest.approx(whole["reference_resolution_" + threshold])
    # The halves' own agreement is judged by its first crossing.
    assert found["halves_resolution_0.5"] is None and found["halves_resolution_rule"] == "first crossing"


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
    assert len(lines) == 16 and lines[-1].startswith("* from the curve's highest value on")
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


def test_figures_of_standardised_volumes_are_those_of_the_dual_paper(files: dict) -> None:
    result = evaluate(EvaluateJob(test=files["test"], reference=files["reference"]))
    test, truth = (metrics.standardised(mrc.read_volume(files[name])) for name in ("test", "reference"))
    assert result["standardised_mse"] == pytest.approx(np.mean((test - truth) ** 2), rel=1e-4)
    assert result["standardised_peak"] == pytest.approx(truth.max() - truth.min(), rel=1e-4)
    assert result["standardised_psnr"] == pytest.approx(metrics.psnr(test, truth), abs=1e-3)
    expected = structural_similarity(test, truth, win_size=7, data_range=2)
    assert result["standardised_ssim_2"] == pytest.approx(expected, abs=1e-6)
    assert result["standardised_ssim_1"] < result["standardised_ssim_2"] < result["standardised_ssim_peak"]


def test_the_gain_over_the_input_does_not_depend_on_the_scale_of_either(files: dict, capsys) -> None:
    """The full tomogram has half the noise variance of its even half."""
    job = EvaluateJob(test=files["test"], reference=files["reference"], input=files["even"])
    result = evaluate(job)
    after, before = 2 - 2 * np.sqrt(1 / 1.5), 2 - 2 * np.sqrt(1 / 2)
    assert result["mse_ratio"] == pytest.approx(after / before, abs=0.02)
    assert result["psnr_gain"] == pytest.approx(-10 * np.log10(result["mse_ratio"]))
    assert result["before"]["correlation"] == pytest.approx(np.sqrt(1 / 2), abs=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["input", "volume"] and len(lines[0]) == len(lines[1])
    assert lines[-2].startswith("Mean square error over the input's")


def test_a_flat_background_wins_the_published_similarity_but_not_the_figures_near_the_specimen(tmp_path: Path) -> None:
    """A threshold that deletes half of the particles and all noise beats the noisy volume that shows them all."""
    random = np.random.default_rng(0)
    truth = np.zeros((32, 64, 64), np.float32)
    for y in (16, 48):
        truth[12:20, y - 4 : y + 4, 12:20] = truth[12:20, y - 4 : y + 4, 44:52] = 1
    noisy = truth + 0.3 * random.normal(size=truth.shape).astype(np.float32)
    flat = truth.copy()
    flat[:, 32:] = 0
    for name, volume in (("truth", truth), ("noisy", noisy), ("flat", flat), ("labels", truth)):
        mrc.write_volume(str(tmp_path / (name + ".mrc")), volume, 10.0)
    figures = {}
    for name in ("noisy", "flat"):
        paths = {"test": name, "reference": "truth", "labels": "labels"}
        figures[name] = evaluate(EvaluateJob(**{key: str(tmp_path / (v + ".mrc")) for key, v in paths.items()}))
    assert figures["flat"]["standardised_ssim_2"] > figures["noisy"]["standardised_ssim_2"] + 0.5
    assert figures["flat"]["near_correlation"] < figures["noisy"]["near_correlation"] - 0.1
    assert figures["noisy"]["contrast_to_noise"] == pytest.approx(1 / 0.3, rel=0.03)
    assert figures["flat"]["contrast_to_noise"] is None


def test_gold_is_neither_specimen_nor_background(files: dict, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[8:14, 10:20, 10:20] = 3
    labels[8:14, 26:34, 26:34] = 15
    mrc.write_volume(str(tmp_path / "labels.mrc"), labels, 10.0)
    bright = mrc.read_volume(files["test"])
    bright[labels == 15] += 1000
    mrc.write_volume(str(tmp_path / "gold.mrc"), bright, 10.0)
    names = {"reference": files["reference"], "labels": str(tmp_path / "labels.mrc"), "gold_label": 15}
    plain = evaluate(EvaluateJob(test=files["test"], **names))
    gold = evaluate(EvaluateJob(test=str(tmp_path / "gold.mrc"), **names))
    for name in ("near_correlation", "contrast_to_noise"):
        assert gold[name] == pytest.approx(plain[name])
    assert gold["correlation"] < plain["correlation"] / 2


def test_labels_without_a_particle_or_a_voxel_size_are_refused(files: dict, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[8:14, 10:20, 10:20] = 15
    mrc.write_volume(str(tmp_path / "labels.mrc"), labels)
    job = EvaluateJob(test=files["test"], reference=files["reference"], labels=str(tmp_path / "labels.mrc"))
    job.gold_label = 15
    with pytest.raises(JobError, match=r"labels.mrc has no voxel of a particle"):
        evaluate(job)
    for name in ("test", "reference"):
        mrc.write_volume(str(tmp_path / (name + "0.mrc")), mrc.read_volume(files[name]))
    job.test, job.reference = str(tmp_path / "test0.mrc"), str(tmp_path / "reference0.mrc")
    with pytest.raises(JobError, match="give --voxel-size"):
        evaluate(job)

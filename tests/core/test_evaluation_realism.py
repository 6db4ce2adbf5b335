"""Realism of simulations: each figure sees what it is for, equal sets cannot be told apart, and what is refused."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core import metrics, mrc
from cryoden_core.evaluation.blocks import Blocks, cut_blocks
from cryoden_core.evaluation.realism import compare, diversity, evaluate, wedge_energy
from cryoden_core.evaluation.spectrum_matching import (
    phase_randomised,
    spectrum_matched,
    voxels_shuffled,
    white_noise_added,
)
from cryoden_core.evaluation.two_sample import Accuracy, enough, linear_test, network_test
from cryoden_core.fourier import radial_power_spectrum
from cryoden_core.jobs import EvaluateRealismJob, JobError, job_from_dict
from tests.core.noise_volumes import as_measured, coloured

SHAPE = (32, 96, 128)
EDGE = (16, 16, 16)
TILTS = (-60.0, 60.0)


def tomogram(seed: int, structure: float = 1.0) -> np.ndarray:
    """Balls in their missing wedge and coloured noise that knows no power there."""
    return as_measured(structure * density(seed)) + coloured(SHAPE, 100 + seed)


def cut(volumes: list[np.ndarray]) -> Blocks:
    return cut_blocks(volumes, EDGE, most=160)


@functools.lru_cache(maxsize=8)
def density(seed: int) -> np.ndarray:
    """Soft balls everywhere."""
    points = np.zeros(SHAPE, np.float32)
    points.ravel()[np.random.default_rng(seed).integers(0, points.size, 80)] = 250
    return gaussian_filter(points, 3.0)


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return tomogram(0)


@pytest.fixture(scope="module")
def like() -> np.ndarray:
    return tomogram(1)


def test_blocks_of_the_two_halves_share_no_voxel_and_those_apart_none_at_all() -> None:
    marked = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    blocks = cut_blocks([marked], EDGE, most=10**6)
    ids = [np.unique(blocks.data[blocks.fold == fold]) for fold in (0, 1)]
    assert np.intersect1d(*ids).size == 0
    apart = blocks.data[blocks.apart]
    assert np.unique(apart).size == apart.size == marked.size
    few = cut_blocks([marked], EDGE, most=40)
    assert len(few) == 40 and few.apart.sum() == 20


def test_the_missing_wedge_is_empty_in_the_polar_spectrum_and_full_in_white_noise(real: np.ndarray) -> None:
    white = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
    empty = wedge_energy(cut([real]).measured, TILTS)
    assert wedge_energy(cut([white]).measured, TILTS) == pytest.approx(1.0, abs=0.05)
    assert empty < 0.25
    turned = np.ascontiguousarray(np.rot90(np.pad(real, ((48, 48), (0, 0), (0, 0)), "wrap"), axes=(0, 2)))
    assert wedge_energy(cut([turned]).measured, TILTS) > 4 * empty


def test_the_signs_of_an_asymmetric_wedge_are_kept() -> None:
    """Power only at +45 degrees must count as missing for a range that ends at +30, not for one from -30."""
    z, _, x = np.indices(SHAPE, dtype=np.float32)
    wave = np.cos(2 * np.pi * 0.15 * (z + x)) + 0.01 * np.random.default_rng(0).normal(size=SHAPE)
    measured = cut([wave.astype(np.float32)]).measured
    assert wedge_energy(measured, (-60.0, 30.0)) > 30 * wedge_energy(measured, (-30.0, 60.0))


def test_another_tomogram_of_the_same_kind_is_near_and_cannot_be_told_apart(real: np.ndarray, like: np.ndarray) -> None:
    blocks = cut([like]), cut([real])
    found = compare(*blocks, TILTS)
    assert found["radial_distance"] < 0.1 and found["polar_distance"] < 0.15
    assert found["wedge_ratio"] == pytest.approx(1, abs=0.1) and found["noise_ratio"] == pytest.approx(1, abs=0.05)
    assert found["autocorrelation_difference"] < 0.05 and found["wasserstein"] < 0.05
    low, high = linear_test(*blocks).interval
    assert low <= 0.5 <= high or high < 0.62


def test_white_noise_is_far_and_told_apart_by_both_classifiers(real: np.ndarray) -> None:
    noisy = white_noise_added(density(2), 0.3)
    blocks = cut([noisy]), cut([real])
    found = compare(*blocks, TILTS)
    assert found["polar_distance"] > 0.5 and found["wedge_ratio"] > 3
    assert linear_test(*blocks).value > 0.95
    assert network_test(*blocks, steps=40).value > 0.9


def test_too_little_noise_is_seen_in_the_emptiest_blocks() -> None:
    """Structure in one corner keeps the deviation of the whole; the rest is then too quiet."""
    corner = np.zeros(SHAPE, np.float32)
    corner[:, :40, :40] = 12 * density(2)[:, :40, :40]
    found = compare(cut([corner + coloured(SHAPE, 1)]), cut([coloured(SHAPE, 2)]), TILTS)
    assert found["noise_ratio"] < 0.8


def test_a_wrong_level_of_structure_is_seen_where_the_spectrum_is_right(real: np.ndarray) -> None:
    """Phase-randomised tomograms have every spectrum right; skewness and kurtosis betray them."""
    blocks = cut([phase_randomised(tomogram(0, 8.0))]), cut([tomogram(0, 8.0)])
    found = compare(*blocks, TILTS)
    assert found["radial_distance"] < 0.15 and found["skewness_difference"] < -0.1


def test_the_spectrum_matching_simulator_has_the_real_spectrum_and_shows_its_map(real: np.ndarray) -> None:
    clean = density(3)
    simulated = spectrum_matched(clean, [real], 0.04)
    found = compare(cut([simulated]), cut([real]), TILTS)
    assert found["radial_distance"] < 0.25 and found["polar_distance"] < 0.25
    assert metrics.correlation(simulated, as_measured(clean)) == pytest.approx(0.2, abs=0.05)
    other = spectrum_matched(clean, [real], 0.04, seed=1)
    assert metrics.correlation(simulated, other) < 0.3
    smaller = spectrum_matched(clean[:, :80], [real], 0.04)
    shells = [radial_power_spectrum(volume, 12)[1] for volume in (smaller, simulated)]
    np.testing.assert_allclose(shells[0][1:], shells[1][1:], rtol=0.3)


def test_a_phase_randomised_volume_keeps_every_amplitude_and_nothing_else(real: np.ndarray) -> None:
    random = phase_randomised(real)
    amplitudes = [np.abs(np.fft.rfftn(volume)) for volume in (random, real)]
    np.testing.assert_allclose(amplitudes[0], amplitudes[1], atol=1e-4 * amplitudes[1].max())
    assert abs(metrics.correlation(random, real)) < 0.03
    shuffled = voxels_shuffled(real)
    np.testing.assert_array_equal(np.sort(shuffled.ravel()), np.sort(real.ravel()))
    assert abs(metrics.correlation(shuffled, real)) < 0.03


def test_draws_that_are_equal_correlate_and_independent_ones_as_they_must() -> None:
    clean = density(0)
    draws = [clean + np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in range(4)]
    found = diversity(draws, clean)
    assert found["residual_expected"] == pytest.approx(-1 / 3)
    assert found["residual_correlation"] == pytest.approx(-1 / 3, abs=0.01)
    assert found["independence"] < 0.02
    assert diversity([draws[0], draws[0]])["correlation"] == pytest.approx(1.0)
    leaking = [draw + sign * clean for draw, sign in zip(draws, (1, -1, 1, -1), strict=True)]
    assert diversity(leaking, clean)["independence"] > 0.05


def test_the_interval_of_an_accuracy_is_the_exact_binomial_one() -> None:
    low, high = Accuracy(15, 20).interval
    assert (low, high) == pytest.approx((0.509, 0.913), abs=1e-3)
    assert not enough(cut([np.random.default_rng(0).normal(size=(16, 32, 32)).astype(np.float32)]))


@pytest.fixture
def files(tmp_path: Path, real: np.ndarray, like: np.ndarray) -> dict[str, str]:
    volumes = {"real": real, "like": like, "clean": density(1), "clean0": density(0)}
    for name, volume in volumes.items():
        mrc.write_volume(str(tmp_path / (name + ".mrc")), volume, 10.0)
    return {name: str(tmp_path / (name + ".mrc")) for name in volumes}


def test_the_table_sets_the_simulation_beside_its_controls(files: dict, tmp_path: Path, capsys) -> None:
    job = EvaluateRealismJob(
        real=[files["real"]], simulated=[files["like"]], clean=[files["clean"]], real_clean=[files["clean0"]],
        draws=[files["like"], files["real"]], edge=16, network_steps=0, output=str(tmp_path / "figures.json"),
    )  # fmt: skip
    result = evaluate(job)
    assert json.loads(Path(job.output).read_text()) == result
    assert set(result["rows"]) == {"simulated", "real_halves", "white_noise", "spectrum_matched"}
    assert result["rows"]["simulated"]["network"] is None
    verdicts = result["within_limits"]
    assert verdicts["wedge_ratio"] and verdicts["linear"] and "signal" in verdicts
    assert result["rows"]["white_noise"]["linear"]["low"] > 0.8
    table = capsys.readouterr().out
    assert "real halves" in table and "told apart by a linear classifier" in table and "draws of one map" in table


def test_a_volume_too_small_for_blocks_is_refused(files: dict, tmp_path: Path) -> None:
    small = str(tmp_path / "small.mrc")
    mrc.write_volume(small, mrc.read_volume(files["real"])[:, :24], 10.0)
    with pytest.raises(JobError, match=r"small\.mrc is too small"):
        evaluate(EvaluateRealismJob(real=[files["real"]], simulated=[small]))
    with pytest.raises(JobError, match=r"they must be equal"):
        evaluate(EvaluateRealismJob(real=[files["real"]], simulated=[files["like"]], clean=[small]))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"real": ["a.mrc"]}, "'simulated' is missing"),
        ({"real": ["a.mrc"], "simulated": ["b.mrc", "c.mrc"], "clean": ["d.mrc"]}, "2 tomograms, 1 maps"),
        ({"real": ["a.mrc"], "simulated": ["b.mrc"], "draws": ["b.mrc"]}, "one draw cannot"),
        ({"real": ["a.mrc"], "simulated": ["b.mrc"], "tilt_min": 60}, "the tilt range from 60 to 60 degrees is empty"),
        ({"real": ["a.mrc"], "simulated": ["b.mrc"], "output": "a.mrc"}, "also an input"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(given: dict, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        job_from_dict({"schema": 1, "system": "evaluate realism", "parameters": given})

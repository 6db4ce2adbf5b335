"""Hidden data: networks that cheat in one known way each set off the detector that was made for it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core.evaluation.steganography import (
    cycle_gap,
    effective_signal,
    fragility,
    noise_in_denoised,
    structure_in_noise,
    wrong_noise,
)

SHAPE = (24, 40, 40)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    volume = gaussian_filter(noise(0), 2.5)
    return (volume / volume.std()).astype(np.float32)


def denoised(volume: np.ndarray) -> np.ndarray:
    return gaussian_filter(volume, 2.0)


def test_a_denoiser_that_reads_a_hidden_message_has_a_gap_and_an_honest_one_has_none(clean: np.ndarray) -> None:
    truth = np.roll(clean, 9, 2)
    simulated, tomogram = clean + 6 * noise(1), truth + 6 * noise(2)
    assert abs(cycle_gap(clean, denoised(simulated), truth, denoised(tomogram))) < 0.1
    assert cycle_gap(clean, clean + 0.1 * noise(3), truth, denoised(tomogram)) > 0.15


def test_a_message_in_the_last_digits_is_lost_by_what_no_eye_sees(clean: np.ndarray) -> None:
    """The simulation is coarse noise; the map is what is left of it below a thousandth."""
    coarse = np.rint(noise(1) * 20) / 20
    simulated = (coarse + 2e-3 * clean).astype(np.float32)

    def reads(volume: np.ndarray) -> np.ndarray:
        return volume - np.rint(volume * 20) / 20

    hidden = fragility(simulated, clean, reads)
    assert hidden["noise"] > 0.5 and hidden["shift"] > 0.5
    honest = fragility(clean + noise(1), clean, denoised)
    assert max(abs(loss) for loss in honest.values()) < 0.02


def test_noise_hidden_in_the_denoised_volume_makes_every_code_as_good_as_the_own(clean: np.ndarray) -> None:
    tomogram = clean + 2 * noise(1)
    alive = wrong_noise(tomogram, tomogram + 0.2 * noise(3), clean + 2 * noise(2), clean)
    assert alive["gap"] > 0.5 and alive["wrong"] < alive["without"] < alive["own"]
    dead = wrong_noise(tomogram, tomogram + 0.2 * noise(3), tomogram + 0.2 * noise(4))
    assert abs(dead["gap"]) < 0.01


def test_noise_hidden_in_the_denoised_volume_is_seen_where_nothing_is(clean: np.ndarray) -> None:
    empty = np.zeros(SHAPE, bool)
    empty[:, 24:] = True
    structure = clean * (np.arange(SHAPE[1]) < 16)[:, None]
    tomogram = structure + noise(1)
    assert abs(noise_in_denoised(tomogram, structure + 0.01 * noise(2), empty)) < 0.05
    assert noise_in_denoised(tomogram, structure + 0.01 * noise(1), empty) > 0.9


def test_structure_in_the_noise_code_is_seen_at_low_resolution(clean: np.ndarray) -> None:
    tomogram = clean + 2 * noise(1)
    own = 2 * noise(1) - gaussian_filter(2 * noise(1), 2.0)
    honest, leaking = structure_in_noise(own, tomogram, clean), structure_in_noise(own + 0.3 * clean, tomogram, clean)
    assert abs(honest["truth"]) < 0.15 and leaking["truth"] > 0.5 and leaking["noisy"] > 0.4


def test_a_simulation_that_shows_its_map_too_plainly_has_a_ratio_above_one(clean: np.ndarray) -> None:
    truth = np.roll(clean, 9, 2)
    assert effective_signal(clean + 3 * noise(1), clean, truth + 3 * noise(2), truth)["ratio"] == pytest.approx(
        1, abs=0.1
    )
    assert effective_signal(clean + noise(1), clean, truth + 3 * noise(2), truth)["ratio"] > 1.8

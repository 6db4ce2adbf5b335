"""Picking by difference of Gaussians, matching with true positions, and what is computed from the matches."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core import picking
from cryoden_core.jobs import JobError
from cryoden_core.picking import PickingSettings, Picks, match, pick

CENTRES = np.array([[20, 22, 20], [22, 60, 25], [19, 28, 62], [24, 70, 70], [20, 100, 40], [21, 102, 84]], float)
SHAPE = (44, 124, 104)


def balls(
    centres: np.ndarray = CENTRES, radius: float = 140.0, voxel_size: float = 13.68, shape: tuple = SHAPE
) -> np.ndarray:
    """Balls of density 1 with an edge of one voxel, (z, y, x); the radius is in angstrom."""
    grid = np.indices(shape, dtype=np.float32)
    volume = np.zeros(shape, np.float32)
    for centre in centres:
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        volume += np.clip(radius / voxel_size - distance + 0.5, 0, 1)
    return volume


def test_planted_balls_of_28_nm_are_all_found_within_a_voxel_and_nothing_else() -> None:
    picks = pick(balls(), 13.68)
    assert len(picks.scores) == len(CENTRES)
    matched = match(picks.positions, CENTRES, 1.0)
    assert sorted(matched) == list(range(len(CENTRES)))
    assert picking.average_precision(matched, len(CENTRES)) == 1.0


def test_lengths_are_in_angstrom_whatever_the_voxel_size() -> None:
    """The same specimen sampled twice as coarsely has its picks at half the coordinates."""
    fine = pick(balls(voxel_size=10.0), 10.0)
    coarse = pick(balls(CENTRES / 2, 140.0, 20.0, tuple(n // 2 for n in SHAPE)), 20.0)
    assert len(fine.scores) == len(coarse.scores) == len(CENTRES)
    assert (match(2 * coarse.positions, fine.positions, 2.0) >= 0).all()


def test_the_scale_with_the_strongest_answer_is_the_radius_over_root_three() -> None:
    volume = balls(CENTRES[3:4] * [1, 0.8, 0.7], 140.0, 10.0)
    answers = {}
    for sigma in (4.0, 6.0, 8.0, 11.0, 15.0):
        # With one ratio the difference is normalised for scale: it is the Laplacian times sigma squared.
        answers[sigma] = picking.difference_of_gaussians(volume, sigma, 1.05).max()
    assert max(answers, key=answers.__getitem__) == 8.0


def test_of_two_balls_nearer_than_the_exclusion_only_the_brighter_is_picked() -> None:
    brighter = CENTRES[:1] + np.array([0, 0, 16])
    volume = balls(CENTRES[:1], 70.0) + 2 * balls(brighter, 70.0)
    near = pick(volume, 13.68, PickingSettings(sigma=40, exclusion=240))
    assert len(near.scores) == 1
    assert np.linalg.norm(near.positions[0] - brighter[0]) <= 1
    assert len(pick(volume, 13.68, PickingSettings(sigma=40, exclusion=200)).scores) == 2


def test_dark_particles_are_found_only_when_dark_ones_are_asked_for() -> None:
    dark = pick(-balls(), 13.68, PickingSettings(dark=True))
    np.testing.assert_array_equal(dark.positions, pick(balls(), 13.68).positions)
    bright = pick(-balls(), 13.68)
    assert (match(bright.positions, CENTRES, 3.0) == -1).all()


def test_clipping_takes_the_lead_from_gold() -> None:
    gold = np.array([[22.0, 20.0, 88.0]])
    volume = balls() + 40 * balls(gold, 60.0)
    assert match(pick(volume, 13.68).positions[:1], gold, 2.0)[0] == 0
    clipped = pick(volume, 13.68, PickingSettings(clip=1.0))
    assert match(clipped.positions[:1], gold, 2.0)[0] == -1


def test_picks_of_noise_keep_their_distance_and_are_ordered_by_height() -> None:
    noise = np.random.default_rng(0).normal(size=(40, 60, 60)).astype(np.float32)
    picks = pick(noise, 10.0, PickingSettings(sigma=20, exclusion=120))
    distance = np.linalg.norm(picks.positions[:, None] - picks.positions[None], axis=2)
    assert distance[np.triu_indices(len(distance), 1)].min() >= 12.0
    assert (np.diff(picks.scores) <= 0).all() and len(picks.scores) > 10
    assert picks.above(float(picks.scores[4])) == 5


def test_weak_blobs_are_picked_beside_a_strong_one_but_rounding_is_not() -> None:
    volume = 1e3 * balls(CENTRES[:1]) + balls(CENTRES[1:])
    assert len(pick(volume, 13.68).scores) == len(CENTRES)
    assert len(pick(volume + 1e-4 * balls(CENTRES[1:]), 13.68).scores) == len(CENTRES)


def test_an_offset_of_the_densities_changes_nothing() -> None:
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(32, 40, 40)), 1).astype(np.float32)
    plain, lifted = pick(noise, 10.0), pick(noise + np.float32(4096), 10.0)
    assert len(match(lifted.positions, plain.positions, 0.1)) == len(plain.scores)


def test_one_particle_is_hit_only_once_and_by_the_higher_pick() -> None:
    truth = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 10.0]])
    picks = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 30.0]])
    np.testing.assert_array_equal(match(picks, truth, 2.0), [0, -1, 1, -1])
    np.testing.assert_array_equal(match(picks, truth[:0], 2.0), [-1] * 4)


def test_a_pick_between_two_particles_takes_the_free_one() -> None:
    truth = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    picks = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(match(picks, truth, 2.5), [0, 1])


def test_average_precision_is_the_mean_precision_at_the_hits_with_missed_particles_as_zero() -> None:
    matched = np.array([0, -1, 1, -1])
    assert picking.average_precision(matched, 4) == pytest.approx((1 + 2 / 3) / 4)
    precision, recall = picking.precision_recall_curve(matched, 4)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 1 / 2, 1 / 2])


def test_the_ceiling_of_five_hundred_picks_of_four_hundred_and_ten_particles_is_that_of_the_paper() -> None:
    assert picking.f1_ceiling(500, 410) == pytest.approx(0.901, abs=1e-3)
    assert picking.f1_ceiling(400, 410) == pytest.approx(2 * 400 / 810)
    assert picking.f1_ceiling(410, 410) == 1.0


def test_written_picks_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "picks.star"
    picks = Picks(np.array([[1.0, 2.0, 3.0], [4.5, 5.25, 6.0]]), np.array([0.7, 0.2]))
    picking.write_picks(picks, path, "tomogram")
    read = picking.read_positions(path)
    np.testing.assert_allclose(read.positions, picks.positions)
    assert read.classes == ("", "")
    assert "rlnAutopickFigureOfMerit" in path.read_text()
    assert [item.name for item in tmp_path.iterdir()] == ["picks.star"]


def test_positions_of_a_star_file_with_several_tables_are_those_of_the_particles(tmp_path: Path) -> None:
    path = tmp_path / "relion.star"
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
        "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnClassNumber #4\n"
        "10 20 30 2\n10.5 20.5 30.5 1\n"
    )
    read = picking.read_positions(path)
    np.testing.assert_allclose(read.positions, [[30, 20, 10], [30.5, 20.5, 10.5]])
    assert read.classes == ("2", "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("not a table\n", "is no STAR file"),
        ("data_particles\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n", "is no STAR file with rlnCoordinateX"),
        ("data_particles\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 nan\n", "not finite"),
    ],
)
def test_a_file_without_positions_is_refused_in_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.star"
    if text is not None:
        path.write_text(text)
    with pytest.raises(JobError, match=words) as error:
        picking.read_positions(path)
    assert "bad.star" in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)

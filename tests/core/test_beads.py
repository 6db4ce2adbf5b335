"""Gold beads in views: found whatever their sign, and nothing else taken for them."""

import mrcfile
import numpy as np
import pytest

from cryoden_core.tomography.beads import find_beads
from tests.core.tilt_files import ANGLES, project

#: Beads (x, y, z) from the centre and their radius, pixels.
BEADS = ((-40.0, -20.0, 10.0), (30.0, 25.0, -12.0), (5.0, -35.0, 0.0))
RADIUS = 5.0
SHAPE = (96, 128)


def places(angle):
    """Where the beads land in a view, pixels (x, y)."""
    theta = np.deg2rad(angle)
    centre = (np.array(SHAPE[::-1]) - 1) / 2
    return [(centre[0] + x * np.cos(theta) + z * np.sin(theta), centre[1] + y) for x, y, z in BEADS]


def views_with_beads(sign=1.0, height=12.0, noise=1.0, seed=1):
    """A noisy specimen with gradients and solid gold balls; the noise has this standard deviation."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    views = 0.7 * project(shape=SHAPE) + 0.05 * x + 0.03 * y
    views += noise * rng.standard_normal(views.shape)
    for view, angle in zip(views, ANGLES, strict=True):
        for u, v in places(angle):
            squares = (x - u) ** 2 + (y - v) ** 2
            view += sign * height * np.sqrt(np.clip(1 - squares / RADIUS**2, 0, None))
    return views.astype(np.float32)


def discs(radius):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack(
        [np.any([(x - u) ** 2 + (y - v) ** 2 <= radius**2 for u, v in places(angle)], axis=0) for angle in ANGLES]
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("diameter", [6.0, 10.0, 18.0])
def test_beads_are_covered_and_little_else_is_masked(sign, diameter):
    mask, fraction = find_beads(views_with_beads(sign), diameter)
    assert mask.dtype == bool and mask.shape == (21, *SHAPE)
    assert mask[discs(RADIUS)].mean() > 0.98
    assert mask[~discs(3 * RADIUS)].mean() < 1e-3
    np.testing.assert_allclose(fraction, mask.mean(axis=(1, 2)))


def test_beads_buried_in_the_noise_of_single_pixels_are_found():
    # 4.5 standard deviations of the noise in the middle of a bead, below the threshold of six.
    views = views_with_beads(height=4.5)
    mask, _ = find_beads(views, 10.0)
    assert mask[discs(RADIUS)].mean() > 0.9


def test_the_side_opposite_to_the_beads_is_left_alone():
    views = views_with_beads(sign=-1.0)
    views[:, 70:74, 100:104] += 9  # a bright spot, smaller than a bead and less dense
    mask, _ = find_beads(views, 10.0)
    elsewhere = ~discs(3 * RADIUS)[:, 70:74, 100:104]
    assert not mask[:, 70:74, 100:104][elsewhere].any()
    assert mask[discs(RADIUS)].mean() > 0.98


def test_hot_pixels_are_no_beads():
    views = np.random.default_rng(2).standard_normal((10, 64, 64)).astype(np.float32)
    views[:, 20, 30] = 40
    mask, fraction = find_beads(views, 6.0)
    assert not mask.any() and not fraction.any()


def test_specimen_and_noise_without_beads_are_not_masked():
    views = project(shape=SHAPE) + 0.5 * np.random.default_rng(3).standard_normal((21, *SHAPE))
    assert find_beads(views, 10.0)[1].max() < 1e-3


@pytest.mark.parametrize("path", ["A/TS_A.mrc", "F_odd_sizes/TS_F_even.mrc"])
def test_molecules_of_a_phantom_without_noise_are_not_beads(test_data, path):
    views = mrcfile.read(test_data / "imod_golden" / path)
    for diameter in (6.0, 12.0, 20.0):
        assert not find_beads(views, diameter)[0].any()


def test_a_mask_too_large_for_beads_is_dropped_with_a_warning():
    rng = np.random.default_rng(4)
    views = rng.standard_normal((10, 128, 128)).astype(np.float32)
    # Dense spots everywhere, few enough to leave the spread alone: grown, they cover more than beads can.
    for view in views:
        for x, y in rng.integers(4, 124, (28, 2)):
            view[y - 2 : y + 3, x - 2 : x + 3] += 60
    told = []
    mask, fraction = find_beads(views, 6.0, warn=told.append)
    assert not mask.any() and not fraction.any()
    assert len(told) == 1 and "more than beads can cover" in told[0]

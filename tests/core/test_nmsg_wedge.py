"""In the missing wedge the output is the input times gains between 0 and 1; elsewhere it stays as it is."""

import numpy as np
import pytest
from scipy import fft

from cryoden_core.fourier import missing_wedge_mask
from cryoden_core.nmsg import wedge
from cryoden_core.nmsg.wedge import keep_wedge

SHAPE = (16, 7, 24)
ODD = (16, 7, 25)


def sections(volume: np.ndarray) -> np.ndarray:
    return fft.rfft2(volume.astype(np.float64), axes=(0, 2))


@pytest.fixture
def volumes() -> tuple[np.ndarray, np.ndarray]:
    """A denoised and a noisy volume, here without anything in common, on a grey scale far from zero."""
    return tuple(1000 + np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in (1, 2))


@pytest.mark.parametrize("tilts", [(-60, 60), (-40, 65)])
def test_outside_the_wedge_nothing_changes_and_inside_the_input_is_attenuated(volumes, tilts):
    output, noisy = volumes
    before, given = sections(output), sections(noisy)
    share = keep_wedge(output, noisy, *tilts)
    after = sections(output)
    missing = np.broadcast_to(~missing_wedge_mask((16, 1, 24), *tilts), after.shape).copy()
    missing[:, :, -1] = False
    np.testing.assert_allclose(after[~missing], before[~missing], atol=2e-3)
    gain = (after / given)[missing]
    assert np.abs(gain.imag).max() < 0.02 and gain.real.min() > -0.02 and gain.real.max() < 1.02
    assert (gain.real > 0.1).any() and (gain.real < 0.01).any()
    # The nearest such gain leaves no more of a difference than either zero or one would.
    distance = np.abs(after - before)[missing]
    assert (distance <= np.minimum(np.abs(before), np.abs(before - given))[missing] + 2e-3).all()
    assert 0.1 < share < 0.6


def test_what_the_input_holds_stays():
    noisy = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    output = 0.4 * noisy
    assert keep_wedge(output, noisy, -60, 60) < 1e-9
    np.testing.assert_allclose(output, 0.4 * noisy, atol=1e-5)


def test_what_a_network_invents_in_the_wedge_goes():
    """The input holds nothing there: the output is left with nothing."""
    full = np.random.default_rng(0).normal(size=ODD).astype(np.float32)
    measured = missing_wedge_mask(ODD, -60, 60)
    noisy = fft.irfftn(fft.rfftn(full) * measured, s=ODD).astype(np.float32)
    output = full.copy()
    removed = keep_wedge(output, noisy, -60, 60)
    np.testing.assert_allclose(output, noisy, atol=2e-3)
    assert removed == pytest.approx(np.square(full - noisy).mean() / full.var(), rel=1e-2)


def test_chunks_do_not_change_the_result(volumes, monkeypatch):
    output, noisy = volumes
    again, told = output.copy(), []
    share = keep_wedge(output, noisy, -60, 60)
    monkeypatch.setattr(wedge, "CHUNK_VOXELS", 2 * SHAPE[0] * SHAPE[2])
    assert keep_wedge(again, noisy, -60, 60, told.append, lambda: told.append(1)) == pytest.approx(share, rel=1e-4)
    assert told == [4, 1, 1, 1, 1]
    np.testing.assert_allclose(again, output, atol=2e-3)

"""Random crops of DUAL's domains: symmetries, masks, emptiness, seeds."""

import numpy as np
import pytest
import torch

from cryoden_core.dual.crops import (
    CropSource,
    all_symmetries,
    batches,
    match_empty_shares,
    structure,
    wedge_preserving_symmetries,
)
from cryoden_core.dual.domains import DomainVolume, Scale
from cryoden_core.fourier import missing_wedge_mask
from tests.core.noise_volumes import specimen

SHAPE = (24, 32, 32)


def domain(data: np.ndarray, inside: np.ndarray | None = None) -> DomainVolume:
    return DomainVolume("made.mrc", data, Scale(0.0, 1.0, 1), 10.0, 10.0, data.shape, (0.0, 0.0, 0.0), inside)


def source(data: np.ndarray, inside: np.ndarray | None = None, **about) -> CropSource:
    return CropSource([domain(data, inside)], [((0, 1, 2), ())], **about)


@pytest.mark.parametrize(("low", "high", "count"), [(-60, 60, 8), (-50, 70, 4)])
def test_only_symmetries_that_keep_the_wedge_are_used_on_tomograms(low, high, count):
    mask = np.fft.fftshift(missing_wedge_mask((15, 15, 15), low, high, half=False))
    kept = wedge_preserving_symmetries(low, high)
    assert len(kept) == count
    for order, axes in all_symmetries():
        turned = np.flip(mask.transpose(order), axes)
        identity = order == (0, 1, 2)
        assert np.array_equal(turned, mask) == ((order, axes) in kept) or not identity
        assert not np.array_equal(turned, mask) or identity


def test_the_symmetries_of_a_cube_are_48_different_ones():
    cube = np.arange(27).reshape(3, 3, 3)
    assert len({np.flip(cube.transpose(order), axes).tobytes() for order, axes in all_symmetries()}) == 48


def test_crops_stay_inside_the_mask():
    data = np.zeros(SHAPE, np.float32)
    data[:, :20] = 1 + np.random.default_rng(0).normal(0, 0.1, (24, 20, 32))
    crops = source(data, data > 0).draw(40, 8, torch.Generator().manual_seed(0))
    assert float((crops == 0).float().mean()) < 0.02


def test_a_mask_thinner_than_a_crop_centres_the_crops():
    inside = np.zeros(SHAPE, bool)
    inside[12, 16, 10:20] = True
    marked = np.zeros(SHAPE, np.float32)
    marked[12, 16, :] = 1
    crops = source(marked, inside).draw(10, 8, torch.Generator().manual_seed(0))
    assert (crops[:, 0, 4, 4] == 1).all()


def test_a_volume_without_room_is_named():
    assert source(np.zeros(SHAPE, np.float32)).without_room(16) is None
    assert source(np.zeros(SHAPE, np.float32)).without_room(32) is not None
    assert source(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)).without_room(8) is not None


def test_most_empty_crops_are_passed_over():
    data = specimen(SHAPE, count=2, radius=3.0)
    data[data < 0.01] = 0
    shares = []
    for keep in (1.0, 0.1):
        crops = source(data, keep_empty=keep).draw(150, 8, torch.Generator().manual_seed(0))[:, 0]
        shares.append(np.mean([structure(crop) < 0.05 for crop in crops]))
    assert shares[0] > 0.5 and shares[1] < 0.5 * shares[0]


def test_the_noisy_domain_is_thinned_as_the_clean_one():
    clean = specimen(SHAPE, count=3, radius=3.0)
    noisy = clean + np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    sources = [source(data, keep_empty=0.0) for data in (noisy, clean)]
    generator = torch.Generator().manual_seed(0)
    share = match_empty_shares(*sources, 8, generator)
    assert 0.1 < share < 0.9
    below = np.mean(sources[0].spreads(8, generator) < sources[0].empty_below)
    assert below == pytest.approx(share, abs=0.12)


def test_extreme_values_are_compressed_only_when_asked():
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    data[12, 16, 16] = 60
    generator = torch.Generator().manual_seed(0)
    assert source(data, clip=False).draw(200, 16, generator).max() == 60
    assert source(data, clip=True).draw(200, 16, generator).max() <= 8


def test_batches_belong_to_their_seed():
    made = source(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    first, again, other = (torch.cat(list(batches(made, 2, 3, 8, seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)

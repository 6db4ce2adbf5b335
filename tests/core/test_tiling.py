"""Tiles: partition of unity, exactness with enough halo, memory."""

import numpy as np
import pytest
import torch

from cryoden_core import tiling
from cryoden_core.jobs import JobError
from cryoden_core.nets.unet3d import UNet3d
from cryoden_core.tiling import apply_tiled, choose_tile, plan_axis


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 61, 83)).astype(np.float32)


@pytest.mark.parametrize("tile", [(20, 61, 83), (16, 24, 32), (16, 40, 17), (100, 20, 20)])
def test_identity_returns_the_input(volume, tile):
    output = np.zeros_like(volume)
    apply_tiled(lambda block: block, volume, output, tile, halo=2, multiple=4, blend=5)
    np.testing.assert_allclose(output, volume, atol=1e-5)


@pytest.mark.parametrize("size", [17, 64, 65, 100, 127, 301])
@pytest.mark.parametrize("tile", [32, 40, 56])
def test_weights_of_all_tiles_add_to_one(size, tile):
    plan = plan_axis(size, tile, halo=5, blend=12, multiple=8)
    total = np.zeros(plan.starts[-1] + plan.tile)
    for index, start in enumerate(plan.starts):
        total[start : start + plan.tile] += plan.weights(index)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_halo_of_the_receptive_radius_gives_the_untiled_result(volume):
    torch.manual_seed(0)
    network = UNet3d(1, 1, features=4, depth=2, zero_last=False).eval()

    def denoise(block: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network(block[None, None])[0, 0]

    whole, tiled = np.zeros_like(volume), np.zeros_like(volume)
    apply_tiled(denoise, volume, whole, (999, 999, 999), halo=0, multiple=4)
    halo = network.receptive_radius
    apply_tiled(denoise, volume, tiled, (20, 2 * halo + 16, 2 * halo + 20), halo=halo, multiple=4, blend=8)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    short = np.zeros_like(volume)
    apply_tiled(denoise, volume, short, (20, 24, 24), halo=4, multiple=4, blend=4)
    assert np.abs(short - whole).max() > 1e-4, "the test would not see a halo that is too short"


def test_receptive_radius_bounds_what_a_voxel_can_change():
    torch.manual_seed(0)
    network = UNet3d(1, 1, features=2, depth=2, zero_last=False)
    size = 4 * (network.receptive_radius // 2 + 3)
    image = torch.zeros(1, 1, size, size, size, requires_grad=True)
    centre = size // 2
    network(image + torch.randn(image.shape))[0, 0, centre, centre, centre].backward()
    reached = image.grad[0, 0].abs().amax(dim=(1, 2)).nonzero()[:, 0]
    assert int((reached - centre).abs().max()) <= network.receptive_radius


def test_no_step_in_variance_at_seams():
    noise = np.random.default_rng(1).normal(size=(16, 128, 128)).astype(np.float32)
    output = np.zeros_like(noise)
    apply_tiled(lambda block: block - block.mean(), noise, output, (16, 48, 48), halo=4, multiple=1, blend=16)
    plan = plan_axis(128, 48, 4, 16, 1)
    seams = np.zeros(128, bool)
    for left, right in zip(plan.starts, plan.starts[1:], strict=False):
        middle = (left + plan.tile + right) // 2
        seams[middle - 2 : middle + 2] = True
    ratio = output[:, seams].var() / output[:, ~seams].var()
    assert 0.94 < ratio < 1.06


def test_tile_is_halved_when_memory_runs_out(volume):
    seen, said = [], []

    def greedy(block: torch.Tensor) -> torch.Tensor:
        seen.append(block.numel())
        if block.numel() > 20 * 32 * 83:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")
        return block

    output = np.zeros_like(volume)
    apply_tiled(greedy, volume, output, (20, 61, 83), halo=2, blend=4, warn=said.append)
    np.testing.assert_allclose(output, volume, atol=1e-5)
    assert said and "memory ran out" in said[0]


def test_hopeless_memory_is_one_clear_sentence(volume):
    def never(block: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(JobError, match="smallest tile"):
        apply_tiled(never, volume, np.zeros_like(volume), (20, 61, 83), halo=2, blend=4)


def test_other_errors_are_not_taken_for_lack_of_memory(volume):
    def broken(block: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        apply_tiled(broken, volume, np.zeros_like(volume), (20, 61, 83), halo=2)


def test_tile_too_small_for_its_halo_is_refused():
    with pytest.raises(JobError, match="too small"):
        plan_axis(100, 16, halo=8, blend=8, multiple=8)


def test_thin_volumes_keep_their_whole_depth(monkeypatch):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 2 * 10**9)
    tile = choose_tile((60, 1000, 900), 1000.0, torch.device("cpu"), 16, halo=16, multiple=8)
    assert tile[0] == 60 and tile[1] == tile[2] and 100 < tile[1] < 200


def test_no_tensor_exceeds_the_index_limit(monkeypatch):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 10**15)
    tile = choose_tile((1000, 4000, 4000), 100.0, torch.device("cpu"), 64, halo=16, multiple=8)
    assert np.prod([float(edge) for edge in tile]) * 64 <= tiling.MAX_ELEMENTS

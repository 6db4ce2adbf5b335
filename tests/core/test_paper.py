"""The published recipe, to the letter, on volumes far smaller than its tiles."""

import itertools

import numpy as np
import pytest
import torch

from cryoden_core import mrc
from cryoden_core.jobs import NmsgJob, RunFolder
from cryoden_core.nmsg import paper
from cryoden_core.nmsg.paper import PaperRecipe, PaperTask, upsample, write_synthetic
from cryoden_core.noise_spectrum import measure_spectra
from cryoden_core.progress import Progress
from cryoden_core.tomogram import Tomogram, open_tomogram
from tests.core.noise_volumes import as_measured, coloured, specimen

CPU = torch.device("cpu")
SHAPE = (20, 48, 48)
TINY = PaperRecipe(features=4, depth=2, base_kernel=3, tile=16, border=4, batch=1)


@pytest.fixture
def truth() -> np.ndarray:
    return as_measured(specimen(SHAPE, radius=4))


@pytest.fixture
def tomogram(tmp_path, truth) -> Tomogram:
    path = str(tmp_path / "t.mrc")
    mrc.write_volume(path, truth + coloured(SHAPE, seed=1), 10.0)
    return open_tomogram(path, 0.0, print)


@pytest.fixture
def synthetic(tmp_path, tomogram) -> np.ndarray:
    spectra = measure_spectra(tomogram.data, tomogram.mean, tomogram.sd)
    return write_synthetic(str(tmp_path / "s.mrc"), tomogram, spectra, seed=1)


def test_the_kernels_are_the_raw_ones_in_the_plane(tomogram, synthetic):
    task = PaperTask(tomogram, synthetic, TINY, CPU, 1)
    ramp = torch.arange(8.0).expand(8, 8, 8)[None, None]
    torch.testing.assert_close(task.sparsity(ramp), torch.full((1, 1, 6, 6, 6), 24.0))
    assert not task.sparsity(ramp.transpose(2, 4)).any(), "the published gradient does not see z"


def test_the_published_numbers_are_the_defaults():
    recipe = PaperRecipe()
    assert (recipe.features, recipe.depth, recipe.base_kernel) == (48, 5, 7)
    assert (recipe.tile, recipe.border, recipe.batch, recipe.epochs, recipe.rate) == (128, 32, 2, 40, 1e-3)
    assert (recipe.smooth_weight, recipe.guide_weight) == (0.05, 0.5)


def test_upsampling_doubles_y_and_x_and_every_second_voxel_is_the_input():
    data = torch.randn(3, 4, 5)
    wide = upsample(data)
    assert wide.shape == (3, 8, 10)
    assert torch.equal(wide[:, ::2, ::2], data) and torch.equal(wide[:, 1::2, 1::2], data)


def test_an_epoch_is_four_fifths_of_the_tiles(tomogram, synthetic):
    task = PaperTask(tomogram, synthetic, TINY, CPU, 1)
    tiles = (20 // 16) * (96 // 16) * (96 // 16)
    assert task.patches == int(0.8 * tiles)
    assert task.steps == 40 * task.patches


def test_the_stored_noise_is_the_same_each_epoch(tomogram, synthetic):
    task = PaperTask(tomogram, synthetic, TINY, CPU, 1)
    first, again = (task._volumes(task.corners[0]) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    added = [task._volumes(corner)[1] - task._volumes(corner)[0] for corner in task.corners[:3]]
    assert all(part.std() > 0.3 for part in added)


def test_the_synthetic_noise_has_the_level_measured_but_its_slices_do_not_know_of_each_other(tomogram, synthetic):
    added = np.asarray(synthetic) - np.asarray(tomogram.data)
    assert added.std() == pytest.approx(1.0, rel=0.25)
    flat = added.reshape(len(added), -1)
    neighbours = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(flat)]
    assert abs(np.mean(neighbours)) < 0.05


def test_the_same_seed_stores_the_same_noise(tmp_path, tomogram, synthetic):
    spectra = measure_spectra(tomogram.data, tomogram.mean, tomogram.sd)
    same, other = (write_synthetic(str(tmp_path / f"{seed}.mrc"), tomogram, spectra, seed) for seed in (1, 2))
    assert np.array_equal(same, synthetic) and not np.array_equal(other, synthetic)


def test_the_published_target_inflates_the_grey_scale(tomogram, synthetic, truth):
    """The target (y' + 0.5 g') / 1.5 of volumes standardised each by its own deviation has a gain above 1.2."""
    task = PaperTask(tomogram, synthetic, TINY, CPU, 1)
    (noisy_mean, noisy_sd), _, (guide_mean, guide_sd), _ = task.statistics
    assert guide_sd < 0.8 * noisy_sd
    above = below = 0.0
    for corner in task.corners:
        noisy, _, guide, _ = task._volumes(corner)
        region = tuple(slice(c, c + n) for c, n in zip(corner, task.crop, strict=True))
        target = ((noisy - noisy_mean) / noisy_sd + 0.5 * (guide - guide_mean) / guide_sd) / 1.5
        signal = (truth[region] - truth.mean()) / noisy_sd
        above += float((target * signal).sum())
        below += float((signal * signal).sum())
    assert above / below > 1.1


def train(tmp_path, tomogram, resume: bool = False, steps: int = 2):
    folder = RunFolder(str(tmp_path / "run"))
    job = NmsgJob(input=tomogram.path, output=str(tmp_path / "o.mrc"), preset="paper", steps=steps, resume=resume)
    progress = Progress(folder, quiet=True)
    return paper.train(job, [tomogram], folder, CPU, progress, TINY)


def test_a_thin_volume_is_trained_on_and_denoised(tmp_path, tomogram):
    network, about, figures = train(tmp_path, tomogram)
    assert about["recipe"] == "paper" and about["steps"] == 2 and about["architecture"]["features"] == 4
    assert figures["noise_model"] == "stack of 2-D fields"
    assert not (tmp_path / "run" / "synthetic_noisy.mrc").exists()
    again = paper.make_network(about["architecture"], CPU)
    again.load_state_dict(network.state_dict())
    output = np.zeros(SHAPE, np.float32)
    paper.denoise_volume(again, tomogram.data, output, tomogram.mean, tomogram.sd, device=CPU, tile=16)
    assert np.isfinite(output).all() and output.std() > 0


def test_strength_zero_returns_the_input(tmp_path, tomogram):
    network, _, _ = train(tmp_path, tomogram)
    output = np.zeros(SHAPE, np.float32)
    paper.denoise_volume(network, tomogram.data, output, tomogram.mean, tomogram.sd, device=CPU, tile=16, strength=0.0)
    np.testing.assert_allclose(output, tomogram.data, atol=1e-5)


def test_the_same_seed_trains_the_same_network(tmp_path, tomogram):
    first, _, _ = train(tmp_path / "a", tomogram)
    second, _, _ = train(tmp_path / "b", tomogram)
    weights = second.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.state_dict().items())

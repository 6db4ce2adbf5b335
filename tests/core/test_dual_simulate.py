"""Grey scale of simulations: gold, which the networks do not see, and particles in maps that hold few or many."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryoden_core import api, mrc
from cryoden_core.dual.domains import soft_clip
from cryoden_core.dual.networks import Architecture, Simulator
from cryoden_core.dual.transfer import TRANSFER_EDGE, convolve
from cryoden_core.excerpts import robust_statistics
from cryoden_core.fourier import frequency_radius
from cryoden_core.jobs import DualConvertJob, DualSimulateJob
from tests.core.dual_models import Function, model

SHAPE, STYLE_SD, NOISE = (40, 48, 48), 4.0, 0.9
BEAD, FRINGE = np.s_[17:22, 20:25, 20:25], np.s_[8:31, 11:34, 11:34]
#: A contrast transfer that rises with frequency, so that gold has fringes.
SIGNAL = 0.5 - 0.4 * np.exp(-((frequency_radius((TRANSFER_EDGE,) * 3) / 0.15) ** 2)).astype(np.float32)


def linear_simulator(measured: bool = True) -> Simulator:
    """A simulator that is its mixture and nothing more."""
    made = Simulator(Architecture(features=4, depth=1, transfer=measured))
    torch.nn.init.zeros_(made.network.last.weight)
    torch.nn.init.zeros_(made.network.last.bias)
    if measured:
        noise = torch.full((TRANSFER_EDGE, TRANSFER_EDGE, TRANSFER_EDGE // 2 + 1), NOISE)
        made.transfer.set(torch.from_numpy(SIGNAL), noise)
    return made


@pytest.fixture(scope="module")
def density(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map with a gold bead of 25 standard deviations; without it no value is beyond 6."""
    volume = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 2).astype(np.float32)
    volume /= volume.std()
    volume[BEAD] = 25
    volume *= 10  # not the units of the clean volumes that the models tell of
    path = tmp_path_factory.mktemp("gold") / "density.mrc"
    mrc.write_volume(str(path), volume, 10.0)
    return path


def seen(path: Path, clip: bool = False) -> np.ndarray:
    """The map under the measured filter."""
    volume = mrc.read_volume(str(path))
    mean, sd = robust_statistics(volume)
    volume = (volume - mean) / sd
    values = np.asarray(soft_clip(volume) if clip else volume, np.float32)
    return convolve(torch.from_numpy(values)[None, None], torch.from_numpy(SIGNAL))[0, 0].numpy()


def simulated(density: Path, output: Path, **parameters: object) -> dict:
    given = {"input": str(density), "model": "m", "output": str(output), "contrast": "bright", "threads": 1}
    return api.run(DualSimulateJob.from_parameters({**given, **parameters}), quiet=True)


def standardised(path: str) -> np.ndarray:
    volume = mrc.read_volume(path)
    return (volume - robust_statistics(volume)[0]) / STYLE_SD


@pytest.mark.parametrize(("way", "amplitude"), [("simulate", 1.0), ("simulate", 3.0), ("convert", 1.0)])
def test_gold_is_as_bright_and_has_the_fringes_that_the_measured_filter_says(
    density: Path, tmp_path: Path, use: Callable, way: str, amplitude: float
) -> None:
    use(model(simulator=linear_simulator()))
    if way == "simulate":
        found = standardised(simulated(density, tmp_path / "s.mrc", noise=amplitude)["output"])
    else:
        job = DualConvertJob(
            input=str(density), model="m", output=str(tmp_path / "c.mrc"), to="noisy", contrast="bright", threads=1
        )
        found = standardised(api.run(job, quiet=True)["output"])
    beyond, clipped = seen(density) - seen(density, clip=True), seen(density, clip=True)
    # The map and the noise are together brought to spread 1.
    outside = np.ones(SHAPE, bool)
    outside[FRINGE] = False
    scale = np.polyfit(clipped[outside], found[outside], 1)[0]
    rest = found[FRINGE] - scale * clipped[FRINGE]
    assert beyond[BEAD].max() > 4 and beyond.min() < -1
    slope, _ = np.polyfit(beyond[FRINGE].ravel(), rest.ravel(), 1)
    assert slope == pytest.approx(scale, abs=0.1)
    assert scale == pytest.approx(1 / (amplitude * NOISE), rel=0.15)


def test_both_halves_hold_the_whole_of_the_gold(density: Path, tmp_path: Path, use: Callable) -> None:
    use(model(simulator=linear_simulator()))
    result = simulated(density, tmp_path / "s.mrc", halves=True)
    whole, even, odd = (mrc.read_volume(path) for path in (result["output"], *result["halves"][0]))
    np.testing.assert_allclose((even + odd) / 2, whole, atol=1e-3)
    difference = (even - odd)[BEAD].mean() / STYLE_SD
    assert abs(difference) < 0.1 * (seen(density) - seen(density, clip=True))[BEAD].mean()


def test_a_map_without_gold_and_a_model_without_measured_filters_are_left_as_they_are(
    density: Path, tmp_path: Path, use: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = mrc.read_volume(str(density))
    volume[BEAD] = 0
    plain = tmp_path / "plain.mrc"
    mrc.write_volume(str(plain), volume, 10.0)
    for path, simulator in ((plain, linear_simulator()), (density, Function(lambda values: values))):
        use(model(simulator=simulator))
        found = simulated(path, tmp_path / "s.mrc")["output"]
        with monkeypatch.context() as changed:
            changed.setattr("cryoden_core.dual.simulate._add_excess", lambda *_: None)
            without = simulated(path, tmp_path / "w.mrc")["output"]
        np.testing.assert_array_equal(mrc.read_volume(found), mrc.read_volume(without))


def test_particles_are_as_bright_in_a_map_that_holds_many_of_them(tmp_path: Path, use: Callable) -> None:
    use(model(simulator=linear_simulator()))  # trained on volumes of mean 1 and spread 2
    strengths, spreads, grid = [], [], np.indices(SHAPE)
    for count in (8, 14):
        centres = np.random.default_rng(1).integers(6, 34, (count, 3, 1, 1, 1))
        volume = np.zeros(SHAPE, np.float32)
        for centre in centres:
            volume[((grid - centre) ** 2).sum(axis=0) < 20] = 9
        spreads.append(robust_statistics(volume)[1])
        mrc.write_volume(str(tmp_path / "map.mrc"), volume, 10.0)
        found = standardised(simulated(tmp_path / "map.mrc", tmp_path / "s.mrc")["output"])
        expected = convolve(torch.from_numpy(volume)[None, None], torch.from_numpy(SIGNAL))[0, 0].numpy()
        slope, offset = np.polyfit(expected.ravel(), found.ravel(), 1)
        strengths.append(slope / np.std(found - slope * expected - offset))
    assert spreads[1] > 1.2 * spreads[0]
    assert strengths[1] == pytest.approx(strengths[0], rel=0.05)

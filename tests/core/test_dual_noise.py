"""The noise of DUAL for whole volumes: what is found in a tomogram, what is lent to a simulation, what is drawn.

The networks are simple ones whose results are known.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from cryoden_core import api, mrc
from cryoden_core.dual.domains import soft_clip
from cryoden_core.dual.model import DualModel
from cryoden_core.dual.networks import Architecture
from cryoden_core.evaluation.realism import diversity
from cryoden_core.excerpts import robust_statistics
from cryoden_core.fourier import radial_power_spectrum
from cryoden_core.jobs import DualEncodeNoiseJob, DualSimulateJob, JobError, read_json
from cryoden_core.metrics import correlation, standardised
from tests.core.dual_models import Function, model, unshuffle


def detail(volume: torch.Tensor) -> torch.Tensor:
    """What means over 4 x 4 x 4 voxels do not show."""
    return volume - functional.interpolate(functional.avg_pool3d(volume, 4), scale_factor=4)


def fine(volume: torch.Tensor) -> torch.Tensor:
    """A code without structure."""
    return unshuffle(detail(volume))


def encoded(tomogram: Path, output: Path, **parameters: Any) -> tuple[np.ndarray, dict]:
    """The noise and the result of a job."""
    given = {"input": str(tomogram), "model": "m", "output": str(output), "threads": 1}
    result = api.run(DualEncodeNoiseJob.from_parameters({**given, **parameters}), quiet=True)
    return mrc.read_volume(result["output"]), result


def simulated(tomogram: Path, output: Path, **parameters: Any) -> list[np.ndarray]:
    """Tomograms of the truth."""
    given = {"input": str(tomogram.with_name("truth.mrc")), "model": "m", "output": str(output), "threads": 1}
    result = api.run(DualSimulateJob.from_parameters({**given, **parameters}), quiet=True)
    return [mrc.read_volume(path) for path in result["outputs"]]


def test_the_noise_found_is_gn_of_e_in_the_model_s_units_with_its_figures(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model(encoder=Function(fine)))
    found, result = encoded(tomogram, tmp_path / "noise.mrc", tile=32)
    data = mrc.read_volume(str(tomogram))
    mean, sd = robust_statistics(data)
    values = torch.from_numpy(soft_clip((data - mean) / sd))[None, None]
    expected = detail(values)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert result["noise_sd"] == pytest.approx(float(found.std()), rel=1e-3)
    assert result["noise_kurtosis"] == pytest.approx(float(stats.kurtosis(found, axis=None)), abs=1e-3)
    assert result["drawn_sd"] == pytest.approx(1, abs=0.01)
    assert result["correlation"] == pytest.approx(correlation(expected, values[0, 0].numpy()), abs=0.01)
    assert abs(result["correlation_of_means"]) < 0.15 and not result["warnings"]
    assert mrc.read_header(result["output"]).origin == pytest.approx((1, 2, 3))
    assert read_json(str(tmp_path / "noise_cryoden" / "result.json"))["noise_sd"] == result["noise_sd"]


def test_structure_that_travels_through_the_noise_code_is_pointed_out(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    # The code of this model is the tomogram itself.
    use(model())
    _, result = encoded(tomogram, tmp_path / "noise.mrc")
    assert result["correlation_of_means"] > 0.95
    assert any("structure of the tomogram travels through the noise code" in text for text in result["warnings"])


@pytest.mark.parametrize("code", ["map", "vector"])
def test_noise_lent_to_a_simulation_is_that_which_is_written(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray, code: str
) -> None:
    torch.manual_seed(0)
    known = model(encoder=Function(fine))
    if code == "vector":
        known = DualModel.new(Architecture(features=4, depth=2, code="vector", code_channels=8, patch=16), 10.0)
        known.simulator = Function(lambda volume: volume)
    use(known)
    noise, _ = encoded(tomogram, tmp_path / "noise.mrc")
    first, second = simulated(tomogram, tmp_path / "s.mrc", noise_from=str(tomogram), draws=2)
    residuals = [volume - np.polyval(np.polyfit(truth.ravel(), volume.ravel(), 1), truth) for volume in (first, second)]
    lent = noise - np.polyval(np.polyfit(truth.ravel(), noise.ravel(), 1), truth)
    assert correlation(residuals[0], lent) > 0.98
    # Another draw has the same noise from another place on.
    assert abs(correlation(residuals[1], lent)) < 0.1
    assert residuals[1].std() == pytest.approx(residuals[0].std(), rel=0.15)


def test_lent_noise_that_is_weaker_than_drawn_noise_is_pointed_out_with_the_amplitude_that_makes_up_for_it(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model(encoder=Function(lambda volume: 0.25 * fine(volume))))
    given = {"input": str(tomogram.with_name("truth.mrc")), "model": "m", "noise_from": str(tomogram), "threads": 1}
    warned = {}
    for amplitude in (1.0, 4.5):
        job = {**given, "output": str(tmp_path / "s.mrc"), "noise": amplitude}
        warned[amplitude] = api.run(DualSimulateJob.from_parameters(job), quiet=True)["warnings"]
    assert any("more plainly" in text and "--noise 4." in text for text in warned[1.0])
    assert not warned[4.5]


def test_sixteen_draws_have_noise_of_their_own_with_the_power_of_the_real_one(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    # This simulator blurs the noise only: the real noise would be blurred too.
    smooth = partial(functional.avg_pool3d, kernel_size=3, stride=1, padding=1)
    clean = torch.from_numpy(standardised(truth))[None, None]
    use(model(simulator=Function(lambda volume: clean + smooth(volume - clean))))
    draws = simulated(tomogram, tmp_path / "s.mrc", draws=16, tile=96)
    found = diversity(draws)
    assert found["residual_departure"] < 0.1 and found["residual_expected"] == pytest.approx(-1 / 15)
    mean = np.mean(draws, axis=0)
    power = np.mean([radial_power_spectrum(volume - mean)[1] for volume in draws], axis=0) * 16 / 15
    white = torch.randn((16, 1, *truth.shape), generator=torch.Generator().manual_seed(0))
    spectra = [radial_power_spectrum(smooth(field[None])[0, 0].numpy()) for field in white]
    frequency, real = spectra[0][0], np.mean([values for _, values in spectra], axis=0)
    band = (frequency > 0.08) & (frequency < 0.2)
    ratio = power[band] / real[band]
    # The scale of the file is free; the shape is not.
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.1)
    # Draws that are the same noise twice have the right mean correlation, and yet are found out.
    assert diversity([*draws[:15], draws[0]])["residual_departure"] > 0.5


def test_bad_input_is_refused_before_anything_is_written(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    mrc.write_volume(str(tmp_path / "flat.mrc"), np.ones((16, 32, 32), np.float32), 10.0)
    with pytest.raises(JobError, match="constant"):
        encoded(tmp_path / "flat.mrc", tmp_path / "noise.mrc")
    with pytest.raises(JobError, match="also an input"):
        encoded(tomogram, tomogram)
    assert not (tmp_path / "noise.mrc").exists()

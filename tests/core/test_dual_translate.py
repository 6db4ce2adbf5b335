"""Applying a DUAL model: strength, data held within their noise, tiles, simulation, conversion, and what is refused.

The networks are simple ones whose results are known.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoden_core import api, mrc
from cryoden_core.cli import main
from cryoden_core.dual import simulate
from cryoden_core.dual.model import DualModel
from cryoden_core.dual.networks import Architecture
from cryoden_core.fourier import missing_wedge_mask, radial_average
from cryoden_core.jobs import DualConvertJob, DualDenoiseJob, DualSimulateJob, JobError, read_json
from cryoden_core.metrics import correlation
from cryoden_core.models import save_model
from cryoden_core.phantom.particles import read_star
from tests.core.dual_models import NOISE, SHAPE, Blur, Function, model


def denoised(tomogram: Path, output: Path, **parameters: Any) -> tuple[np.ndarray, dict]:
    """The output and the result of a job."""
    given = {"input": str(tomogram), "model": "m", "output": str(output), "threads": 1, "flips": 1}
    result = api.run(DualDenoiseJob.from_parameters({**given, **parameters}), quiet=True)
    return mrc.read_volume(result["output"]), result


# ---- denoising -------------------------------------------------------------------------------------------------------


def test_strength_zero_returns_the_input_exactly(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    found, _ = denoised(tomogram, tmp_path / "out.mrc", strength=0.0)
    np.testing.assert_array_equal(found, mrc.read_volume(str(tomogram)))
    header = mrc.read_header(str(tmp_path / "out.mrc"))
    assert header.voxel_size == pytest.approx(10) and header.origin == pytest.approx((1, 2, 3))
    # The path that computes an uncertainty beside it returns it too.
    found, _ = denoised(tomogram, tmp_path / "two.mrc", strength=0.0, flips=4, uncertainty=str(tmp_path / "spread.mrc"))
    np.testing.assert_array_equal(found, mrc.read_volume(str(tomogram)))


def test_the_more_strength_the_closer_to_the_truth_and_on_the_input_s_grey_scale(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    use(model())
    volumes = [denoised(tomogram, tmp_path / "out.mrc", strength=s)[0] for s in (0.0, 0.3, 0.6, 1.0)]
    agreement = [correlation(volume, truth) for volume in volumes]
    assert all(after > before + 0.02 for before, after in itertools.pairwise(agreement))
    assert agreement[-1] > 0.9
    spread = [float(np.std(volume - 3 * truth)) for volume in volumes]
    assert all(after < before for before, after in itertools.pairwise(spread))
    assert volumes[-1].mean() == pytest.approx(volumes[0].mean(), rel=0.02)


def test_a_denoiser_that_changes_nothing_returns_the_input(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model(Function(lambda volume: volume)))
    found, result = denoised(tomogram, tmp_path / "out.mrc")
    np.testing.assert_allclose(found, mrc.read_volume(str(tomogram)), atol=0.15)
    assert result["correlation_of_means"] > 0.99


def test_what_was_measured_departs_by_no_more_than_its_noise(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    # This denoiser deletes the specimen, which is more than can be noise.
    fine = Function(lambda volume: volume - Blur()(volume))
    use(model(fine))
    given = {name: str(tomogram.with_name(f"{name}.mrc")) for name in ("even", "odd")}
    data = mrc.read_volume(str(tomogram))
    power = {}
    for hold in (True, False):
        found, _ = denoised(tomogram, tmp_path / "out.mrc", hold_data=hold, **given)
        change = np.abs(np.fft.rfftn(found - data)) ** 2 / data.size
        frequency, power[hold] = radial_average(change, data.shape, inside=missing_wedge_mask(data.shape))
    # Blocks of 32 voxels under a window, in which the noise is measured, blur what is coarser.
    band = (frequency > 2 / 32) & (frequency < 0.45)
    assert np.nanmax(power[False][band]) > 10 * (3 * NOISE) ** 2
    assert np.nanmax(power[True][band]) < 2 * (3 * NOISE) ** 2


def test_noise_that_cannot_be_told_from_a_specimen_everywhere_is_pointed_out(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model())
    crowded = tmp_path / "crowded.mrc"
    data = mrc.read_volume(str(tomogram))[:, :40, :40]
    mrc.write_volume(str(crowded), np.ascontiguousarray(data), 10.0)
    _, result = denoised(crowded, tmp_path / "out.mrc")
    assert any("emptier than the rest" in text for text in result["warnings"])


def test_dark_density_stays_dark_and_a_wrong_contrast_is_pointed_out(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model())
    bright, _ = denoised(tomogram, tmp_path / "bright.mrc")
    negative = tmp_path / "negative.mrc"
    mrc.write_volume(str(negative), -mrc.read_volume(str(tomogram)), 10.0)
    dark, result = denoised(negative, tmp_path / "dark.mrc", contrast="dark")
    np.testing.assert_allclose(dark, -bright, atol=0.02)
    assert not any("contrast" in text for text in result["warnings"])
    _, result = denoised(negative, tmp_path / "wrong.mrc", contrast="bright")
    assert any("give the contrast" in text for text in result["warnings"])
    use(model(Function(lambda volume: -Blur()(volume))))
    _, result = denoised(tomogram, tmp_path / "inverted.mrc")
    assert any("opposite contrast" in text for text in result["warnings"])
    job = DualConvertJob(input=str(tomogram), model="m", output=str(tmp_path / "clean.mrc"), threads=1)
    assert any("opposite contrast" in text for text in api.run(job, quiet=True)["warnings"])


def test_a_model_of_dark_density_says_so_of_a_bright_tomogram(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model(contrast="dark"))
    _, result = denoised(tomogram, tmp_path / "out.mrc")
    assert any("read with dark density, as the model's, but looks bright" in text for text in result["warnings"])
    _, result = denoised(tomogram, tmp_path / "out.mrc", contrast="bright")
    assert not any("contrast" in text for text in result["warnings"])


def test_dark_density_correlates_with_its_denoised_volume_as_bright_density_does(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model(contrast="dark"))
    dark = tmp_path / "dark.mrc"
    mrc.write_volume(str(dark), -mrc.read_volume(str(tomogram)), 10.0)
    _, result = denoised(dark, tmp_path / "out.mrc")
    assert result["correlation_of_means"] > 0.8


def test_tiles_leave_no_seams(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    whole, _ = denoised(tomogram, tmp_path / "whole.mrc", tile=80)
    tiled, _ = denoised(tomogram, tmp_path / "tiled.mrc", tile=32)
    np.testing.assert_allclose(tiled, whole, atol=2e-3 * whole.std())


def test_another_voxel_size_is_resampled_and_pointed_out(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    found, result = denoised(tomogram, tmp_path / "out.mrc", voxel_size=8.0)
    assert found.shape == SHAPE and mrc.read_header(result["output"]).voxel_size == pytest.approx(8)
    assert any("8.00 A" in text for text in result["warnings"])
    assert sum("given as 8 A, but its header says 10 A" in text for text in result["warnings"]) == 1
    assert result["correlation_of_means"] > 0.8


def test_halves_are_denoised_too_and_their_noise_stays_independent(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    use(model())
    paths = {name: str(tomogram.with_name(f"{name}.mrc")) for name in ("even", "odd")}
    outputs = {f"output_{name}": str(tmp_path / f"{name}.mrc") for name in ("even", "odd")}
    _, result = denoised(tomogram, tmp_path / "out.mrc", **paths, **outputs)
    even, odd = (mrc.read_volume(result[name]) for name in outputs)
    assert correlation(even, truth) > 0.8 and correlation(odd, truth) > 0.8
    residuals = [half - 3 * truth for half in (even, odd)]
    assert abs(correlation(residuals[0], residuals[1])) < abs(correlation(even, odd)) - 0.2
    assert not list((tmp_path / "out_cryoden").glob("scratch*"))


def test_uncertainty_is_nothing_for_a_symmetric_denoiser_and_something_for_another(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    spreads = []
    for denoiser in (Blur(), Function(lambda volume: Blur()(volume) + 0.3 * volume.roll(1, -1))):
        use(model(denoiser))
        path = str(tmp_path / "spread.mrc")
        denoised(tomogram, tmp_path / "out.mrc", flips=4, uncertainty=path)
        spreads.append(mrc.read_volume(path))
    assert all(spread.min() >= 0 for spread in spreads)
    assert spreads[0].max() < 0.05 and spreads[1].mean() > 0.1


# ---- simulation and conversion ---------------------------------------------------------------------------------------


def simulated(tomogram: Path, output: Path, **parameters: Any) -> dict:
    given = {"input": str(tomogram.with_name("truth.mrc")), "model": "m", "output": str(output), "threads": 1}
    return api.run(DualSimulateJob.from_parameters({**given, **parameters}), quiet=True)


def test_the_same_seed_draws_the_same_noise_and_every_draw_another(
    tomogram: Path, tmp_path: Path, use: Callable
) -> None:
    use(model())
    first = simulated(tomogram, tmp_path / "a.mrc", draws=2)
    again = simulated(tomogram, tmp_path / "b.mrc", draws=2)
    other = simulated(tomogram, tmp_path / "c.mrc", seed=2)
    volumes = [mrc.read_volume(path) for path in (*first["outputs"], *again["outputs"], *other["outputs"])]
    np.testing.assert_array_equal(volumes[0], volumes[2])
    np.testing.assert_array_equal(volumes[1], volumes[3])
    clean = mrc.read_volume(str(tomogram.with_name("truth.mrc")))
    noises = [volume - np.polyval(np.polyfit(clean.ravel(), volume.ravel(), 1), clean) for volume in volumes]
    for a, b in ((0, 1), (0, 4), (1, 4)):
        assert abs(correlation(noises[a], noises[b])) < 0.02


def test_the_command_names_every_tomogram_that_it_drew(
    tomogram: Path, tmp_path: Path, use: Callable, capsys: pytest.CaptureFixture
) -> None:
    use(model())
    words = ["dual", "simulate", str(tomogram.with_name("truth.mrc")), "--model", "m", "-o", str(tmp_path / "s.mrc")]
    assert main([*words, "--draws", "2", "--threads", "1"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"s_{number}.mrc") for number in (1, 2)]


def test_resume_draws_what_is_missing_and_keeps_what_the_same_job_has_drawn(
    tomogram: Path, tmp_path: Path, use: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(model())
    drawn: list[str] = []
    write = simulate._write

    def stopped_in_the_third(setting: Any, volume: Any, values: Any, path: str) -> None:
        drawn.append(Path(path).name)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        write(setting, volume, values, path)

    monkeypatch.setattr(simulate, "_write", stopped_in_the_third)
    given = {"noise_from": str(tomogram), "draws": 3}
    with pytest.raises(KeyboardInterrupt):
        simulated(tomogram, tmp_path / "s.mrc", **given)
    times = [(tmp_path / f"s_{number}.mrc").stat().st_mtime_ns for number in (1, 2)]
    result = simulated(tomogram, tmp_path / "s.mrc", resume=True, **given)
    assert drawn == ["s_1.mrc", "s_2.mrc", "s_3.mrc", "s_3.mrc"]
    assert times == [(tmp_path / f"s_{number}.mrc").stat().st_mtime_ns for number in (1, 2)]
    whole = simulated(tomogram, tmp_path / "whole.mrc", **given)
    for one, other in zip(result["outputs"], whole["outputs"], strict=True):
        np.testing.assert_array_equal(mrc.read_volume(one), mrc.read_volume(other))
    # Two more, then those of another seed, of which none is there; without resume all are drawn anew.
    for change, count in (({"draws": 5, "resume": True}, 2), ({"seed": 2, "resume": True}, 3), ({"seed": 2}, 3)):
        drawn[:] = [""] * 3
        simulated(tomogram, tmp_path / "s.mrc", **{**given, **change})
        assert len(drawn) == 3 + count


def test_a_simulation_has_the_style_of_the_noisy_set_and_noise_in_proportion(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    use(model())
    volumes = [
        mrc.read_volume(simulated(tomogram, tmp_path / "s.mrc", noise=amplitude)["output"])
        for amplitude in (0.0, 0.5, 1.0, 2.0)
    ]
    agreement = [correlation(volume, truth) for volume in volumes]
    # White noise of variance 1 on standardised density.
    assert agreement == pytest.approx([1, 1 / np.sqrt(1.25), 1 / np.sqrt(2), 1 / np.sqrt(5)], abs=0.05)
    for volume in volumes:
        assert np.median(volume) == pytest.approx(50, abs=2) and volume.std() == pytest.approx(4, rel=0.15)
    use(model(contrast="dark"))
    dark = mrc.read_volume(simulated(tomogram, tmp_path / "d.mrc")["output"])
    assert correlation(dark, truth) == pytest.approx(-agreement[2], abs=0.02)


def test_a_simulation_in_tiles_has_no_seams(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model(simulator=Blur()))
    whole, tiled = (mrc.read_volume(simulated(tomogram, tmp_path / "s.mrc", tile=tile)["output"]) for tile in (80, 32))
    np.testing.assert_allclose(tiled, whole, atol=2e-3 * whole.std())


def test_the_mean_of_simulated_halves_is_the_tomogram_and_their_noise_is_independent(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    use(model())
    result = simulated(tomogram, tmp_path / "s.mrc", halves=True)
    whole = mrc.read_volume(result["output"])
    even, odd = (mrc.read_volume(path) for path in result["halves"][0])
    np.testing.assert_allclose((even + odd) / 2, whole, atol=1e-3)
    residuals = [half - np.polyval(np.polyfit(truth.ravel(), half.ravel(), 1), truth) for half in (even, odd)]
    assert abs(correlation(residuals[0], residuals[1])) < 0.03


def test_labels_and_coordinates_go_with_each_simulation(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    phantom = tmp_path / "phantom"
    api.phantom("packed", str(phantom), depth=32, height=48, width=48, particles=4, vesicles=0, threads=1)
    result = simulated(
        phantom / "density.mrc", tmp_path / "s.mrc", input=str(phantom / "density.mrc"), draws=2, contrast="dark",
        labels=str(phantom / "labels.mrc"), coordinates=str(phantom / "particles.star"),
    )  # fmt: skip
    labels = mrc.read_volume(str(phantom / "labels.mrc"))
    for path, name in zip(result["labels"], ("s_1_labels.mrc", "s_2_labels.mrc"), strict=True):
        assert Path(path).name == name
        np.testing.assert_array_equal(mrc.read_volume(path), labels)
    before = read_star(phantom / "particles.star")
    for path, name in zip(result["coordinates"], ("s_1", "s_2"), strict=True):
        after = read_star(path)
        assert [item.position.tolist() for item in after] == [item.position.tolist() for item in before]
        assert name in Path(path).read_text()


def test_conversion_gives_each_style_its_grey_scale(
    tomogram: Path, tmp_path: Path, use: Callable, truth: np.ndarray
) -> None:
    use(model())
    volumes = {}
    for style, source in (("clean", tomogram), ("noisy", tomogram.with_name("truth.mrc"))):
        job = DualConvertJob(input=str(source), model="m", output=str(tmp_path / f"{style}.mrc"), to=style, threads=1)
        volumes[style] = mrc.read_volume(api.run(job, quiet=True)["output"])
    assert np.median(volumes["clean"]) == pytest.approx(1, abs=1)
    assert np.median(volumes["noisy"]) == pytest.approx(50, abs=2)
    assert correlation(volumes["clean"], truth) > 0.9 > 0.75 > correlation(volumes["noisy"], truth) > 0.6


def test_a_map_smaller_than_a_tile_is_simulated(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    small = tmp_path / "small.mrc"
    mrc.write_volume(str(small), mrc.read_volume(str(tomogram.with_name("truth.mrc")))[:13, :21, :18], 10.0)
    result = simulated(tomogram, tmp_path / "s.mrc", input=str(small), noise_from=str(tomogram), contrast="bright")
    assert mrc.read_volume(result["output"]).shape == (13, 21, 18)


def test_padding_is_left_out_of_the_grey_scale(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    whole, _ = denoised(tomogram, tmp_path / "whole.mrc", hold_data=False)
    data = mrc.read_volume(str(tomogram))
    padded = tmp_path / "padded.mrc"
    mrc.write_volume(str(padded), np.pad(data, ((0, 0), (0, 0), (24, 24))), 10.0)
    found, result = denoised(padded, tmp_path / "out.mrc", hold_data=False, contrast="bright")
    assert any("padding" in text for text in result["warnings"])
    slope, _ = np.polyfit(whole[:, :, 16:32].ravel(), found[:, :, 40:56].ravel(), 1)
    assert slope == pytest.approx(1, abs=0.05)


def test_the_jobs_run_a_model_from_its_file_and_leave_report_and_result(tomogram: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = str(tmp_path / "m.safetensors")
    DualModel.new(Architecture(features=4, depth=2, code_channels=4), 10.0).save(path)
    denoised(tomogram, tmp_path / "d.mrc", model=path)
    simulated(tomogram, tmp_path / "s.mrc", model=path, noise_from=str(tomogram), halves=True)
    for run in ("d_cryoden", "s_cryoden"):
        assert {"job.json", "progress.json", "report.png", "result.json"} <= {
            file.name for file in (tmp_path / run).iterdir()
        }
        assert read_json(str(tmp_path / run / "progress.json"))["state"] == "done"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_model_file_that_is_none_or_another_s_is_refused(tomogram: Path, tmp_path: Path) -> None:
    for name, words in (("absent.safetensors", "does not exist"), ("other.safetensors", "not of 'dual'")):
        if name.startswith("other"):
            save_model(str(tmp_path / name), {"a": torch.zeros(1)}, {"system": "nmsg"})
        with pytest.raises(JobError, match=words):
            denoised(tomogram, tmp_path / "out.mrc", model=str(tmp_path / name))
    assert not (tmp_path / "out.mrc").exists()


def test_bad_input_is_refused_before_anything_is_written(tomogram: Path, tmp_path: Path, use: Callable) -> None:
    use(model())
    holes = tmp_path / "holes.mrc"
    data = mrc.read_volume(str(tomogram))
    mrc.write_volume(str(holes), data, 10.0)
    stored = np.memmap(holes, np.float32, "r+", offset=1024, shape=SHAPE)
    stored[3, 4, 5] = np.nan
    stored.flush()
    flat, small = tmp_path / "flat.mrc", tmp_path / "small.mrc"
    mrc.write_volume(str(flat), np.ones(SHAPE, np.float32), 10.0)
    mrc.write_volume(str(small), data[:24], 10.0)
    other, half = str(small), str(tmp_path / "a_even.mrc")
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: denoised(holes, tmp_path / "out.mrc"), "NaN"),
        (lambda: denoised(flat, tmp_path / "out.mrc"), "constant"),
        (lambda: denoised(tomogram, tmp_path / "out.mrc", uncertainty=str(tmp_path / "u.mrc")), "at least 4 flips"),
        (lambda: denoised(tomogram, tmp_path / "out.mrc", even=other), "both halves or none"),
        (lambda: denoised(tomogram, tmp_path / "out.mrc", even=other, odd=other), "small.mrc is 48 x 96 x 24"),
        (lambda: denoised(tomogram, tomogram), "also an input"),
        (lambda: simulated(tomogram, tmp_path / "out.mrc", labels=other), "another size"),
        (lambda: simulated(tomogram, tmp_path / "a.mrc", halves=True, labels=half), "also an input"),
        (lambda: simulated(tomogram, tmp_path / "out.mrc", noise_from=str(flat)), "constant"),
        (lambda: simulated(tomogram, tmp_path / "out.mrc", coordinates=str(tmp_path / "no.star")), "no.star"),
    ]
    for refused, words in cases:
        with pytest.raises(JobError, match=words):
            refused()
    assert not (tmp_path / "out.mrc").exists()

"""The missing wedge as an operator, and the job that fills it."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from cryoden_core import api, mrc
from cryoden_core.dual import wedge_training
from cryoden_core.dual.compensate import _signal_weights
from cryoden_core.dual.crops import CropSource, wedge_preserving_symmetries
from cryoden_core.dual.domains import DomainVolume, Scale
from cryoden_core.dual.missing_wedge import EXCHANGED, CubeWedge, TiltRange, merge, missing_part, turns
from cryoden_core.fourier import missing_wedge_mask, radial_average
from cryoden_core.jobs import DualWedgeJob, JobError
from cryoden_core.metrics import fourier_change, fourier_correlation
from cryoden_core.models import load_model
from cryoden_core.phantom.spheres import random_spheres
from cryoden_core.progress import Progress
from cryoden_core.tiling import shape_of
from cryoden_core.training import Interrupted, Trainer, TrainingSettings

RANGES = [TiltRange(), TiltRange(-50, 70), TiltRange(-40, 55)]
SHAPES = [(20, 12, 24), (21, 13, 25), (24, 10, 21)]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def specimen() -> np.ndarray:
    """Hollow spheres, bright, 64 voxels a side."""
    return random_spheres((64, 64, 64), 40, 3).volume().astype(np.float32)


# ---- the operator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tilt_range", RANGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_merge_keeps_the_measured_region_and_takes_the_missing_one(shape: tuple, tilt_range: TiltRange) -> None:
    data, filled, merged = noise(shape, 1), noise(shape, 2), np.zeros(shape, np.float32)
    merge(data, filled, merged, tilt_range)
    measured = missing_wedge_mask(shape, tilt_range.minimum, tilt_range.maximum)
    assert fourier_change(merged, data, measured) < 1e-5
    np.testing.assert_allclose(missing_part(merged, tilt_range), missing_part(filled, tilt_range), atol=2e-6)


def test_merge_by_groups_of_sections_and_in_place_equals_merge_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    data, filled = noise((16, 11, 18), 1), noise((16, 11, 18), 2)
    whole = np.zeros_like(data)
    merge(data, filled, whole, TiltRange())
    monkeypatch.setattr("cryoden_core.dual.missing_wedge.SECTION_BYTES", 3 * 4 * 16 * 18)
    counted: list[int] = []
    merge(data, filled, filled, TiltRange(), counted.append)
    np.testing.assert_allclose(filled, whole, atol=1e-6)
    assert sum(counted) == 11 and max(counted) == 3


@pytest.mark.parametrize("tilt_range", RANGES)
def test_cutting_a_wedge_twice_is_cutting_it_once(tilt_range: TiltRange) -> None:
    for shape in SHAPES:
        once = missing_part(noise(shape), tilt_range)
        np.testing.assert_allclose(missing_part(once, tilt_range), once, atol=1e-6)


def test_one_third_is_missing_of_a_range_of_sixty_degrees_on_both_sides() -> None:
    depth = 256
    measured = TiltRange().measured(depth, depth)
    radius = np.hypot(np.fft.fftfreq(depth)[:, None], np.fft.rfftfreq(depth)[None])
    assert np.mean(~measured[(radius > 0.02) & (radius < 0.5)]) == pytest.approx(1 / 3, abs=0.01)
    # A square has more of its corners inside: 1 - tan(30 degrees) / 2.
    assert np.mean(measured) == pytest.approx(0.711, abs=0.01)


def test_exchanging_x_and_z_twice_is_the_identity_and_exchanged_wedges_do_not_overlap() -> None:
    cube = torch.from_numpy(noise((16, 16, 16)))
    assert torch.equal(EXCHANGED.apply(EXCHANGED.apply(cube)), cube)
    measured = TiltRange().measured(16, 16)
    exchanged = EXCHANGED.measured(16, TiltRange())[:, 0]
    assert (measured | exchanged).all() and not (measured & exchanged).all()


@pytest.mark.parametrize("tilt_range", RANGES[:2])
def test_a_turned_cube_has_power_only_where_its_turn_says_that_it_was_measured(tilt_range: TiltRange) -> None:
    cube = noise((15, 15, 15))
    cut = torch.from_numpy(cube - missing_part(cube, tilt_range))
    assert len({(turn.axes, turn.reversed) for turn in turns()}) == 24
    for turn in turns():
        power = torch.fft.rfftn(turn.apply(cut)).abs().square().numpy()
        measured = turn.measured(15, tilt_range)
        # On the plane kx = 0 both halves of each pair are stored, and one of them may be the measured one.
        assert power[..., 1:][~measured[..., 1:]].max() < 1e-6 * power.max()
        assert np.median(power[..., 1:][measured[..., 1:]]) > 1e-3 * power.max()


def test_turns_do_not_mirror() -> None:
    corner = torch.zeros(3, 3, 3)
    corner[0, 1, 1], corner[1, 0, 1], corner[1, 1, 0] = 1, 2, 3
    for turn in turns():
        place = [(turn.apply(corner) == value).nonzero()[0].double() - 1 for value in (1, 2, 3)]
        assert torch.linalg.det(torch.stack(place)) == pytest.approx(-1)


def test_wedge_of_cubes_equals_that_of_volumes() -> None:
    cubes = noise((2, 1, 16, 16, 16))
    wedge = CubeWedge(TiltRange(-50, 70).measured(16, 16), torch.device("cpu"))
    missing = wedge.missing(torch.from_numpy(cubes)).numpy()
    for found, cube in zip(missing[:, 0], cubes[:, 0], strict=True):
        np.testing.assert_allclose(found, missing_part(cube, TiltRange(-50, 70)), atol=1e-6)


# ---- training --------------------------------------------------------------------------------------------------------

TINY = wedge_training.WedgePreset(features=8, depth=2, edge=32, batch=1, steps=2)


def source(data: np.ndarray) -> CropSource:
    volume = DomainVolume(
        "t.mrc", data, Scale(float(data.mean()), float(data.std()), 1), 1, 1, shape_of(data), (0, 0, 0)
    )
    return CropSource([volume], wedge_preserving_symmetries(-60, 60))


@pytest.mark.parametrize("adversary", [0.0, 0.1])
def test_a_network_that_adds_nothing_explains_nothing_of_the_wedges_cut_on_purpose(adversary: float) -> None:
    data = specimen() - missing_part(specimen(), TiltRange())
    device = torch.device("cpu")
    task = wedge_training.ConsistentTask(source(data), TiltRange(), TINY, adversary, device, seed=1)
    trainer = Trainer(task, TrainingSettings(2), device, 1, Progress(quiet=True))
    first = task.step(0, trainer)
    # A little leaks through the window from where power was left.
    assert first["loss"] == pytest.approx(0.9, abs=0.2)
    assert ("critic_spatial" in first) == (adversary > 0)


def test_only_turns_that_leave_something_known_in_the_cut_wedge_are_lessons() -> None:
    task = wedge_training.ConsistentTask(source(specimen()), TiltRange(), TINY, 0.0, torch.device("cpu"), seed=1)
    assert len(task.lessons) == 20
    assert all(turn.axes != (0, 1, 2) for turn, _ in task.lessons)


# ---- the job ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spheres without their missing wedge and with some noise."""
    path = tmp_path_factory.mktemp("wedge") / "tomogram.mrc"
    data = specimen() + 0.1 * specimen().std() * noise((64, 64, 64))
    mrc.write_volume(str(path), data - missing_part(data, TiltRange()), 10.0)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A small network, and a picture in one test only."""
    if "stopped" not in request.node.name:
        request.getfixturevalue("no_pictures")
    presets = {"fast": dataclasses.replace(TINY, steps=60)}
    monkeypatch.setattr("cryoden_core.dual.compensate.PRESETS", presets)


def job(tomogram: Path, folder: Path, **parameters: object) -> DualWedgeJob:
    given = {"input": str(tomogram), "output": str(folder / "filled.mrc"), "preset": "fast", "threads": 1}
    return cast(DualWedgeJob, DualWedgeJob.from_parameters({**given, **parameters}))


def test_what_is_filled_in_resembles_the_truth_and_what_was_measured_stays(
    tomogram: Path, tmp_path: Path, quick: None
) -> None:
    # In a specimen that is everywhere the share of signal is taken for too small.
    whole = {"signal_only": False}
    result = api.run(job(tomogram, tmp_path, **whole), quiet=True)
    filled, data = mrc.read_volume(result["output"]), mrc.read_volume(str(tomogram))
    measured = missing_wedge_mask(data.shape)
    assert fourier_correlation(filled, specimen(), ~measured) > 0.3
    assert fourier_change(filled, data, measured) < 1e-5
    assert result["measured_change"] < 1e-5 and result["unexplained"] < 1
    assert result["wedge_ratio_after"] > 10 * result["wedge_ratio_before"]
    assert mrc.read_header(result["output"]).voxel_size == pytest.approx(10)
    # The model that was kept does the same again; another tilt range is pointed out.
    again = api.run(
        job(tomogram, tmp_path, model=result["model"], output=str(tmp_path / "again.mrc"), tilt_max=50.0), quiet=True
    )
    assert any("was trained for tilts" in text for text in again["warnings"])
    same = api.run(
        job(tomogram, tmp_path, model=result["model"], output=str(tmp_path / "same.mrc"), **whole), quiet=True
    )
    np.testing.assert_array_equal(mrc.read_volume(same["output"]), filled)


def test_only_the_share_of_signal_is_filled_in_where_it_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    density = np.zeros((48, 96, 64), np.float32)
    density[:, :48] = random_spheres((48, 48, 64), 30, 4).volume()
    noisy = density + 2 * density.std() * noise(density.shape)
    told = Progress(quiet=True)
    weights = _signal_weights(source(noisy).volumes[0], TiltRange(), told)
    assert weights is not None and not told.warnings
    frequency, by_shell = radial_average(weights, (32, 32, 32))
    assert by_shell[frequency < 0.1].min() > 0.5 > 0.15 > by_shell[frequency > 0.35].max() >= 0
    noise_alone = source(noise((48, 96, 64))).volumes[0]
    weights = _signal_weights(noise_alone, TiltRange(), told)
    assert weights is not None and weights.max() < 0.25
    # Where no part is emptier than the rest nothing can be told.
    monkeypatch.setattr("cryoden_core.dual.transfer.LOWEST_CONTRAST", 5.0)
    assert _signal_weights(noise_alone, TiltRange(), told) is None
    assert any("emptier than the rest" in text for text in told.warnings)


def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    tomogram: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = api.run(job(tomogram, tmp_path, steps=4), quiet=True)
    make_step = wedge_training.ConsistentTask.step

    def stop(self: wedge_training.ConsistentTask, step: int, trainer: Trainer) -> dict[str, float]:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_step(self, step, trainer)

    parts = {"steps": 4, "output": str(tmp_path / "parts.mrc")}
    with monkeypatch.context() as patch:
        patch.setattr(wedge_training.ConsistentTask, "step", stop)
        with pytest.raises(Interrupted):
            api.run(job(tomogram, tmp_path, **parts), quiet=True)
    assert not (tmp_path / "parts.mrc").exists()
    resumed = api.run(job(tomogram, tmp_path, resume=True, **parts), quiet=True)
    np.testing.assert_array_equal(mrc.read_volume(resumed["output"]), mrc.read_volume(whole["output"]))


def test_the_published_cycle_leaves_the_measured_region_alone_too(tomogram: Path, tmp_path: Path, quick: None) -> None:
    result = api.run(job(tomogram, tmp_path, mode="cycle", steps=2), quiet=True)
    assert result["measured_change"] < 1e-5 and result["mode"] == "cycle"


def test_a_wedge_about_another_axis_is_pointed_out(tomogram: Path, tmp_path: Path, quick: None) -> None:
    turned = tmp_path / "turned.mrc"
    mrc.write_volume(str(turned), np.ascontiguousarray(mrc.read_volume(str(tomogram)).transpose(1, 0, 2)), 10.0)
    result = api.run(job(turned, tmp_path, steps=1), quiet=True)
    assert any("missing wedge" in text and "about y" in text for text in result["warnings"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tilt_min": 60.0, "tilt_max": -60.0}, "smaller angle first"),
        ({"tilt_min": -10.0, "tilt_max": 10.0}, "too little"),
        ({"tilt_min": -90.0, "tilt_max": 90.0}, "no wedge"),
    ],
)
def test_tilt_ranges_that_make_no_sense_are_refused(
    tomogram: Path, tmp_path: Path, parameters: dict, message: str
) -> None:
    with pytest.raises(JobError, match=message):
        job(tomogram, tmp_path, **parameters)


def test_the_tilt_range_is_that_of_a_file_of_angles(tomogram: Path, tmp_path: Path, quick: None) -> None:
    angles = tmp_path / "tilts.tlt"
    angles.write_text("39.5 1.2\n0.0 0.1\n-51.0 2.0\n")
    result = api.run(job(tomogram, tmp_path, steps=1, tilt_angles=str(angles)), quiet=True)
    assert load_model(result["model"], "dual wedge")[1]["tilt_range"] == [-51.0, 39.5]
    angles.write_text("0\n20\n")
    with pytest.raises(JobError, match="too little"):
        api.run(job(tomogram, tmp_path, steps=1, tilt_angles=str(angles)), quiet=True)


def test_an_output_that_is_the_input_and_a_tomogram_too_thin_are_refused(tomogram: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="also an input"):
        job(tomogram, tmp_path, output=str(tomogram))
    thin = tmp_path / "thin.mrc"
    mrc.write_volume(str(thin), noise((8, 64, 64)), 10.0)
    with pytest.raises(JobError, match="8 slices"):
        api.run(job(thin, tmp_path), quiet=True)
    assert not (tmp_path / "filled.mrc").exists()

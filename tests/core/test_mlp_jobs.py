"""The reconstruction by a coordinate network as a job: from files to files, and what is refused."""

import csv
import dataclasses
import json
import os
import signal

import mrcfile
import numpy as np
import pytest
import torch

from cryoden_core import api, metrics
from cryoden_core.jobs import JobError, MlpJob, RunFolder, read_json
from cryoden_core.metrics import displacement
from cryoden_core.mlp import reconstruct as mlp
from cryoden_core.mlp import single
from cryoden_core.mlp.fit import FitTask
from cryoden_core.mlp.losses import WedgePenalty
from cryoden_core.mlp.presets import PRESETS
from cryoden_core.mlp.single import binnings
from cryoden_core.tomography.binning import fourier_crop
from cryoden_core.training import Interrupted, TrainingSettings
from tests.core.mlp_phantom import ANGLES, SHAPE, phantom
from tests.core.test_reconstruct import golden_job

QUICK = {"passes": 3, "held_out": False, "device": "cpu", "threads": 1, "thickness": SHAPE[0], "preview_every": 0,
         "sparsity": 1.0}  # fmt: skip


def write_stack(path, views):
    with mrcfile.new(path) as stack:
        stack.set_data(views.astype(np.float32))
        stack.voxel_size = 10.0
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Parameters that name a stack and its angles."""
    _, given = phantom()
    (tmp_path / "ts.tlt").write_text("\n".join(f"{angle:.3f}" for angle in ANGLES))
    stack = write_stack(tmp_path / "ts.mrc", given.projections)
    return {"input": stack, "tilt_angles": str(tmp_path / "ts.tlt"), "output": str(tmp_path / "out.mrc")}


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Leave the number of threads as it was, and draw pictures only where they are asked for."""
    before = torch.get_num_threads()
    if "size_place" not in request.node.name:
        monkeypatch.setattr(mlp, "_write_picture", lambda *about: None)
    yield
    torch.set_num_threads(before)


def run(files, **given):
    parameters = {**QUICK, **files, **given}
    return api.run(MlpJob.from_parameters(parameters), quiet=True)


def test_a_tomogram_with_its_size_place_and_figures_comes_out(files, monkeypatch):
    monkeypatch.setattr(mlp, "PREVIEW_SECONDS", 0.0)
    result = run(files, passes=10, preview_every=10)
    with mrcfile.open(files["output"]) as tomogram:
        assert tomogram.data.shape == SHAPE
        assert float(tomogram.voxel_size.x) == pytest.approx(10)
        assert float(tomogram.header.origin.z) == pytest.approx(80)
        assert metrics.correlation(tomogram.data, phantom()[0]) > 0.7
    folder = RunFolder.beside(files["output"])
    assert read_json(folder.result) == result
    assert result["crowther_penalty_active"] is False and result["crowther_frequency"] == 0.5
    assert len(result["residual_per_view"]) == len(ANGLES) and max(result["residual_per_view"]) < 0.6
    assert {"mvoxels_per_second", "neighbour_correlation", "section_residual_sd", "masked_fraction", "seconds",
            "peak_memory_gib", "passes", "warnings", "origin"} <= set(result)  # fmt: skip
    left = sorted(os.listdir(folder.path))
    assert not [name for name in left if name.endswith(".tmp") or name.startswith("checkpoint")]
    assert {"preview.mrc", "preview.png", "report.png", "metrics.csv", "progress.json", "job.json"} <= set(left)


def test_an_interrupted_run_that_is_resumed_ends_with_the_same_bits(files, tmp_path, monkeypatch):
    run(files, output=str(tmp_path / "whole.mrc"))
    step = FitTask.step

    def stopping(self, number, trainer):
        if number == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, trainer)

    monkeypatch.setattr(FitTask, "step", stopping)
    with pytest.raises(Interrupted):
        run(files)
    assert not os.path.exists(files["output"])
    monkeypatch.setattr(FitTask, "step", step)
    run(files, resume=True)
    assert np.array_equal(mrcfile.read(files["output"]), mrcfile.read(tmp_path / "whole.mrc"))


def test_halves_know_nothing_of_each_other(files, tmp_path):
    _, given = phantom()
    noise = np.random.default_rng(0).normal(0, 1, (3, *given.projections.shape))
    even = write_stack(tmp_path / "even.mrc", given.projections + noise[0])
    odd = [write_stack(tmp_path / f"odd{i}.mrc", given.projections + noise[i]) for i in (1, 2)]
    halves = []
    for number, stack in enumerate(odd):
        output = str(tmp_path / f"out{number}.mrc")
        result = run(files, halves="stacks", even=even, odd=stack, output=output, passes=2)
        halves.append([mrcfile.read(result[role]) for role in ("output_even", "output_odd")])
    assert np.array_equal(halves[0][0], halves[1][0])
    assert not np.array_equal(halves[0][1], halves[1][1])
    assert 0.2 < metrics.correlation(*halves[0]) < 0.99


def test_an_ensemble_writes_the_mean_and_the_spread_of_its_members(files, tmp_path):
    result = run(files, ensemble=3)
    mean, spread = mrcfile.read(result["output"]), mrcfile.read(result["output_std"])
    assert spread.min() >= 0 and 0 < spread.mean() < mean.std()
    # The spread is larger where there is something than in the corners.
    truth = phantom()[0]
    assert spread[truth > 0.5].mean() > 1.2 * spread[truth == 0].mean()


def test_held_out_views_stop_a_fit_to_noise_early_and_prefer_strong_penalties(files, tmp_path):
    _, given = phantom()
    views = given.projections
    noisy = views + np.random.default_rng(1).normal(0, 2 * views.std(), views.shape)
    clean = run(files, passes=15, held_out=True)
    result = run(files, passes=15, held_out=True, input=write_stack(tmp_path / "n.mrc", noisy))
    assert result["passes"] < clean["passes"]
    assert result["total_variation"] > clean["total_variation"]
    assert clean["held_out_error"] < 0.3 < result["held_out_error"]
    with open(RunFolder.beside(files["output"]).metrics, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    logged = {row["stage"]: row["held_out_error"] for row in rows if row["held_out_error"]}
    last = {f"pilot with {label}": errors[-1] for label, errors in result["held_out_errors"].items()}
    assert {stage: float(error) for stage, error in logged.items()} == pytest.approx(last)
    assert all(float(row["mvoxels_per_second"]) > 0 for row in rows if row["loss_projections"])


def test_what_the_cpu_would_need_days_for_is_refused_with_the_binning_that_fits():
    job = MlpJob(input="a", output="b", tilt_angles="c", preset="best")
    with pytest.raises(
        JobError, match=r"1024 x 1024 x 300 voxels would take about \d+ hours on this CPU; bin \d times"
    ):
        mlp.check_cpu_time((300, 1024, 1024), PRESETS["best"], job)
    mlp.check_cpu_time((32, 128, 128), PRESETS["best"], job)


@pytest.mark.parametrize(
    ("hours", "memory", "said"),
    [(0.0, 0.0, r"32 x 24 x 16 voxels would take .* hours on this CPU; bin \d+ times more"),
     (4.0, 0.0001, r"needs .* GiB of memory and may take .*max_memory.* bin the images")],
)  # fmt: skip
def test_a_volume_too_large_is_refused_before_anything_is_written(files, monkeypatch, hours, memory, said):
    monkeypatch.setattr(mlp, "LONGEST_CPU_HOURS", hours or 1e-9)
    with pytest.raises(JobError, match=said):
        # A stack without one of its images would have been written.
        run(files, exclude="31", max_memory=memory)
    assert not os.path.exists(files["output"])
    assert set(os.listdir(RunFolder.beside(files["output"]).path)) <= {"progress.json", "run.lock"}


@pytest.mark.parametrize("held_out", [False, True])
def test_a_loss_that_stays_not_finite_is_one_sentence_and_leaves_no_large_files(files, monkeypatch, held_out):
    monkeypatch.setattr(FitTask, "_loss", lambda self, density, *about: density.sum() * float("nan"))
    with pytest.raises(JobError, match=r"the loss is not a finite number at step \d+; check the input .*\.$"):
        run(files, held_out=held_out)
    assert not os.path.exists(files["output"])
    assert not [name for name in os.listdir(RunFolder.beside(files["output"]).path) if name.endswith(".tmp")]


def test_a_loss_that_is_not_finite_for_a_while_is_overcome_from_the_last_checkpoint(files, monkeypatch):
    # Every step is kept, so that there is something to go back to.
    monkeypatch.setattr(single, "TrainingSettings", lambda steps, **given: TrainingSettings(
        steps, **{**given, "checkpoint_seconds": 0.0}))  # fmt: skip
    loss, calls = FitTask._loss, []

    def spoiled(self, *about):
        calls.append(about)
        return loss(self, *about) * (float("nan") if 12 <= len(calls) < 22 else 1.0)

    monkeypatch.setattr(FitTask, "_loss", spoiled)
    result = run(files, passes=10)
    assert any("from the last checkpoint with half the rate" in warning for warning in result["warnings"])
    assert metrics.correlation(mrcfile.read(files["output"]), phantom()[0]) > 0.4


def test_bad_input_is_refused_in_a_sentence_that_names_it(files, tmp_path):
    _, given = phantom()
    for parameters, said in (
        ({"thickness": 7}, "thickness"),
        ({"thickness": 65}, "thickness 65 is more than twice the 32 pixels"),
        ({"exclude": "1-22"}, "has 9 views left"),
        ({"angle_offset": 26.0}, "image 31 of .* is tilted by 86 degrees"),
        ({"tilt_axis_angle": 85.0}, "align the series first"),
        ({"input": write_stack(tmp_path / "fewer.mrc", given.projections[:30])}, "31 tilt angles .* 30 images"),
    ):
        with pytest.raises(JobError, match=said):
            run(files, **parameters)
    assert not os.path.exists(files["output"])


def test_a_stack_without_a_pixel_size_gives_a_tomogram_without_one(files):
    with mrcfile.open(files["input"], mode="r+") as stack:
        stack.voxel_size = 0.0
    result = run(files, passes=1)
    assert result["voxel_size"] == 0 and any("no pixel size" in warning for warning in result["warnings"])
    with mrcfile.open(files["output"]) as tomogram:
        assert tomogram.data.shape == SHAPE and tomogram.voxel_size.x == 0


@pytest.mark.parametrize("case", ["B", "D"])
def test_golden_spheres_lie_where_they_are_and_z_is_not_mirrored(test_data, tmp_path, case):
    golden = test_data / "imod_golden"
    given = golden_job(test_data, case, tmp_path / "out.mrc", MlpJob, binning=2,
                       **{name: value for name, value in QUICK.items() if name != "thickness"})  # fmt: skip
    result = api.run(dataclasses.replace(given, passes=40), quiet=True)
    tomogram, phantom = mrcfile.read(given.output), halved(mrcfile.read(golden / "phantom.mrc"))
    truth = json.loads((golden / "features.json").read_text())["truth"]
    for name, about in truth.items():
        if "sphere" in name:
            box = tuple(slice(round(c / 2) - 6, round(c / 2) + 7) for c in reversed(about["centre"]))
            assert np.abs(displacement(tomogram[box], phantom[box])).max() < 0.1, name
    assert metrics.correlation(tomogram, phantom) > 0.8
    assert metrics.correlation(tomogram[::-1], phantom) < 0.2
    assert result["warnings"] == [] and len(result["images"]) == (39 if case == "B" else 41)


def halved(volume):
    """Every edge half as long."""
    sections = np.stack([fourier_crop(section, (volume.shape[1] // 2, volume.shape[2] // 2)) for section in volume])
    return np.moveaxis(fourier_crop(np.moveaxis(sections, 0, -1), (len(volume) // 2,)), -1, 0)


def test_a_bounded_memory_changes_nothing_but_rounding(files, tmp_path):
    run(files, fit_views=False)
    bounded = str(tmp_path / "bounded.mrc")
    run(files, fit_views=False, output=bounded, max_memory=0.008)
    a, b = mrcfile.read(files["output"]), mrcfile.read(bounded)
    assert metrics.correlation(a, b) > 0.995


@pytest.mark.parametrize(("field", "least"), [("siren", 0.5), ("fourier", 0.25)])
def test_every_field_reconstructs(files, field, least):
    result = run(files, field=field, passes=8)
    assert result["field"] == field
    assert metrics.correlation(mrcfile.read(files["output"]), phantom()[0]) > least


@pytest.mark.parametrize(("start", "least"), [("wbp", 0.7), ("none", 0.5)])
def test_every_start_reconstructs(files, start, least):
    run(files, start=start, passes=15)
    assert metrics.correlation(mrcfile.read(files["output"]), phantom()[0]) > least


def test_what_the_job_says_overrides_the_preset():
    def preset(**given):
        return mlp.resolved_preset(MlpJob(input="a", output="b", tilt_angles="c", **given))

    assert preset() == PRESETS["default"]
    assert preset(passes=7, loss="huber", slices=5, crowther_weight=0.0).passes == 7
    assert preset(sparsity=0.5).penalties == ((0.5, 0.0), (0.5, 0.3), (0.5, 1.0))
    assert preset(sparsity=0.5, total_variation=0.1).penalties == ((0.5, 0.1),)
    assert preset(non_negative=True).penalties == ((0.0, 0.0), (0.0, 0.3), (0.0, 1.0))
    assert preset(field="siren").rate < preset().rate
    assert preset(preset="paper").start == "none"


def test_large_volumes_go_from_coarse_to_fine_and_small_ones_do_not():
    assert list(binnings((64, 128, 128))) == [1]
    assert list(binnings((300, 1024, 1024))) == [4, 2, 1]
    assert sum(binnings((64, 300, 300)).values()) == pytest.approx(1)


def test_the_penalty_that_is_active_is_reported_so(files):
    wedge = WedgePenalty(SHAPE[0], SHAPE[2], ANGLES[::3])
    thin = dict(files, exclude=",".join(str(i + 1) for i in range(31) if i % 3))
    assert wedge.active
    assert run(thin)["crowther_penalty_active"] is True
    assert run(thin, crowther_weight=0)["crowther_penalty_active"] is False


def test_coarse_to_fine_ends_where_the_fit_without_binning_does_whatever_the_grey_level(files, tmp_path, monkeypatch):
    _, given = phantom()
    views = given.projections
    shifted = write_stack(tmp_path / "shifted.mrc", views + 100 * views.std())
    asked = {"passes": 8, "background": "median"}
    run(files, **asked)
    monkeypatch.setattr(single, "COARSE_TO_FINE", ((0, {2: 0.5, 1: 0.5}),))
    run(files, **asked, output=str(tmp_path / "coarse.mrc"))
    run(files, **asked, input=shifted, output=str(tmp_path / "lifted.mrc"))
    fine, coarse, lifted = (mrcfile.read(tmp_path / f"{name}.mrc") for name in ("out", "coarse", "lifted"))
    assert metrics.correlation(fine, coarse) > 0.75
    assert metrics.correlation(coarse, lifted) > 0.999

"""Training DUAL: files of a run, resuming, health, presets, and what is refused."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from cryoden_core.api import run
from cryoden_core.cli import main
from cryoden_core.dual import alarms, presets, train, transfer
from cryoden_core.dual.alarms import check, largest_shift, spectrum_distance
from cryoden_core.dual.crops import CropSource
from cryoden_core.dual.model import PARTS, DualModel
from cryoden_core.dual.presets import PRESETS
from cryoden_core.dual.task import DualTask
from cryoden_core.jobs import DUAL_PRESETS, DualTrainJob, JobError, read_json
from cryoden_core.mrc import read_volume, write_volume
from cryoden_core.progress import Progress, read_metrics
from tests.core.noise_volumes import as_measured, specimen, wedge

SHAPE = (32, 40, 40)
FAST = PRESETS["fast"]


def noisy_volume(seed: int) -> np.ndarray:
    """A tomogram with dark density, noise and missing wedge."""
    white = np.random.default_rng(seed).normal(size=SHAPE)
    noise = np.fft.irfftn(np.fft.rfftn(white) * wedge(SHAPE), s=SHAPE)
    return (noise - as_measured(specimen(SHAPE, seed, count=12, radius=4.0))).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dual")
    paths = {"noisy": [], "clean": [], "folder": folder}
    for seed in (1, 2):
        for kind, data in (("noisy", noisy_volume(seed)), ("clean", specimen(SHAPE, seed + 10, 12, 4.0))):
            paths[kind].append(str(folder / f"{kind}{seed}.mrc"))
            write_volume(paths[kind][-1], data, 10.0)
    paths["truth"] = str(folder / "truth.mrc")
    write_volume(paths["truth"], specimen(SHAPE, 1, count=12, radius=4.0), 10.0)
    return paths


@pytest.fixture(autouse=True)
def tiny(monkeypatch, request):
    """The fast preset with the smallest networks; pictures, which take longer than the training, in one test only.

    Filters and figures are measured on fewer crops, but where they are looked at.
    """
    if "command" not in request.node.name:
        monkeypatch.setattr(train, "_write_pictures", lambda folder, task: None)
    if "short_training" not in request.node.name:
        monkeypatch.setattr(transfer, "MEASURED_CROPS", 16)
        monkeypatch.setattr(alarms, "CROPS", 3)
    small = dataclasses.replace(PRESETS["fast"], patch=16, features=4, depth=1, batch=2, critic_features=4)
    monkeypatch.setitem(presets.PRESETS, "fast", small)


def job(files, output, **parameters) -> DualTrainJob:
    given = {"contrast": "dark", "clean_contrast": "bright", "preset": "fast", "steps": 4, "device": "cpu"}
    given |= {"threads": 1, "check_every": 1000}
    return DualTrainJob(
        noisy=parameters.pop("noisy", files["noisy"]), clean=parameters.pop("clean", files["clean"]),
        output=str(output), **{**given, **parameters},
    )  # fmt: skip


def weights(folder) -> dict[str, torch.Tensor]:
    model = DualModel.load(os.path.join(str(folder), "model.safetensors"))
    return {f"{part}.{name}": value for part in PARTS for name, value in getattr(model, part).state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_command_trains_a_model_that_says_what_it_is(files, tmp_path):
    arguments = ["dual", "train", "--noisy", *files["noisy"], "--clean", *files["clean"], "--preset", "fast",
                 "--steps", "4", "--contrast", "dark", "--clean-contrast", "bright", "--validation-noisy",
                 files["noisy"][0], "--validation-clean", files["truth"], "--device", "cpu", "--threads", "1",
                 "--seed", "3", "--check-every", "2", "-o", str(tmp_path / "run")]  # fmt: skip
    assert main(arguments) == 0
    model = DualModel.load(str(tmp_path / "run" / "model.safetensors"))
    assert model.voxel_size == 10.0 and model.about["contrast"] == {"noisy": "dark", "clean": "bright"}
    assert (
        model.about["trained_on"]["clean"] == [f"{files['folder'].name}/clean{n}.mrc" for n in (1, 2)]
        and model.about["steps"] == 4
    )
    assert len(model.about["statistics"]["noisy"]) == 2 and model.about["seed"] == 3
    left = set(os.listdir(tmp_path / "run"))
    assert {"job.json", "metrics.csv", "montage.png", "report.png", "result.json", "checkpoint.pt"} <= left
    result = read_json(str(tmp_path / "run" / "result.json"))
    assert 0 < result["figures"]["r_noisy"] < 1 and "cycle_gap" in result["figures"]
    columns = read_metrics(str(tmp_path / "run" / "metrics.csv"))
    assert {"noisy_cycle_loss", "critic_noisy_spectral_right", "check_diversity", "rate_critics"} <= set(columns)


@pytest.mark.parametrize("changes", [{}, {"large_patch": 32, "large_batch": 2, "large_share": 0.6}])
def test_a_resumed_training_equals_an_uninterrupted_one(files, tmp_path, monkeypatch, changes):
    from cryoden_core.training import Interrupted, Trainer

    monkeypatch.setitem(presets.PRESETS, "fast", dataclasses.replace(presets.PRESETS["fast"], **changes))
    run(job(files, tmp_path / "whole", steps=8), quiet=True)
    report = Trainer._report

    def stop_at_four(self, values):
        report(self, values)
        self._stop = self.step == 4

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_report", stop_at_four)
        with pytest.raises(Interrupted, match="step 4 of 8"):
            run(job(files, tmp_path / "parts", steps=8), quiet=True)
    run(job(files, tmp_path / "parts", steps=8, resume=True), quiet=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_volumes_too_thin_for_large_crops_are_trained_on_with_small_ones(files, tmp_path, monkeypatch):
    large = {"large_patch": 64, "large_batch": 2, "large_share": 0.5}
    monkeypatch.setitem(presets.PRESETS, "fast", dataclasses.replace(presets.PRESETS["fast"], **large))
    run(job(files, tmp_path / "a", steps=2), quiet=True)
    result = read_json(str(tmp_path / "a" / "result.json"))
    assert any("no room for crops of 64 x 64 x 64" in warning for warning in result["warnings"])


def test_another_seed_gives_another_model(files, tmp_path):
    run(job(files, tmp_path / "a", steps=2), quiet=True)
    run(job(files, tmp_path / "b", steps=2, seed=2), quiet=True)
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_resuming_with_another_domain_is_refused(files, tmp_path):
    run(job(files, tmp_path / "a", steps=2), quiet=True)
    with pytest.raises(JobError, match="belongs to other input or parameters"):
        run(job(files, tmp_path / "a", steps=2, resume=True, clean=files["clean"][:1]), quiet=True)


@pytest.mark.parametrize("changes", [
    {"code": "vector", "code_channels": 2, "batch": 4, "printed_divergence": True, "gan": "bce", "norm": "batch",
     "bounded_critics": False, "floor": 1e-8, "transfer": False, "shown": 0.0, "moments": 0.0, "spectrum": 0.0,
     "decorrelation": 0.0, "ema": 0.0, "mean_free": False, "clip": float("inf"), "schedule": "constant",
     "robust_scale": False},
    {"r1": 1.0, "r1_every": 1, "jitter": 0.05, "large_patch": 32, "large_batch": 2, "large_share": 0.5},
])  # fmt: skip
def test_the_other_presets_parts_train_too(files, tmp_path, monkeypatch, changes):
    monkeypatch.setitem(presets.PRESETS, "fast", dataclasses.replace(presets.PRESETS["fast"], **changes))
    run(job(files, tmp_path / "a", steps=2), quiet=True)
    result = read_json(str(tmp_path / "a" / "result.json"))
    assert all(np.isfinite(value) for value in result["figures"].values())


@pytest.mark.parametrize(
    ("preset", "device", "warned"), [("robust", "cpu", 1), ("fast", "cpu", 0), ("robust", "cuda", 0)]
)
def test_only_a_cpu_with_the_large_networks_is_warned_of(preset, device, warned):
    progress = Progress(quiet=True)
    train.warn_of_a_long_training(preset, PRESETS[preset].steps, torch.device(device), progress)
    assert len(progress.warnings) == warned
    assert all("choose the preset 'fast'" in sentence for sentence in progress.warnings)


def test_presets_are_those_that_the_job_offers():
    assert set(PRESETS) == set(DUAL_PRESETS)
    literal = PRESETS["paper"]
    assert (literal.gan, literal.code, literal.beta, literal.rate, literal.floor) == ("bce", "vector", 0.9, 1e-4, 1e-8)
    added = ("transfer", "shown", "moments", "spectrum", "decorrelation", "identity", "jitter", "r1", "ema")
    assert all(getattr(literal, name) == 0 for name in added)
    assert (literal.reconstruction, literal.adversarial, literal.divergence) == (1, 1, 0.1)


def test_the_papers_training_sees_the_larger_domain_twenty_times(files, tmp_path, monkeypatch):
    short = dataclasses.replace(presets.PRESETS["fast"], steps=0, epochs=1, patch=16, batch=5)
    monkeypatch.setitem(presets.PRESETS, "fast", short)
    run(job(files, tmp_path / "a", steps=0), quiet=True)
    crops = 2 * np.prod(SHAPE) / 16**3
    assert read_json(str(tmp_path / "a" / "result.json"))["steps"] == np.ceil(crops / 5)


def test_alarms_ring_beyond_their_limits_only():
    healthy = {"code_leak": 0.05, "noise_sd": 0.5, "diversity": 0.3, "own_minus_wrong_noise": 0.6, "cycle_gap": 0.1,
               "divergence": 0.1, "denoised_sd": 0.8, "shift": 0.0, "same_contrast": 0.5}  # fmt: skip
    assert check(healthy) == []
    sick = {"code_leak": 0.3, "noise_sd": 0.01, "diversity": 0.95, "own_minus_wrong_noise": 0.0, "cycle_gap": 0.5,
            "divergence": 60.0, "denoised_sd": 0.05, "shift": 1.0, "same_contrast": -0.1}  # fmt: skip
    for name, value in sick.items():
        (sentence,) = check({**healthy, name: value})
        assert f"{value:.2f}" in sentence
    assert check({**healthy, "noise_sd": float("nan")})


def test_alarms_of_a_finished_run_are_warnings_and_in_the_result(files, tmp_path, monkeypatch):
    dead = dataclasses.replace(presets.PRESETS["fast"], rate=1e-12, critic_rate=1e-12)
    monkeypatch.setitem(presets.PRESETS, "fast", dead)
    run(job(files, tmp_path / "a", steps=2), quiet=True)
    result = read_json(str(tmp_path / "a" / "result.json"))
    assert result["alarms"] and set(result["alarms"]) <= set(result["warnings"])


def test_a_shift_of_the_output_is_seen():
    volume = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    assert largest_shift(volume, volume) == 0
    assert largest_shift(volume.roll((1, 1), (2, 4)), volume) == pytest.approx(2**0.5)


def test_spectra_of_one_kind_are_near_and_of_another_far():
    made = [torch.randn(8, 1, 16, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    blurred = torch.nn.functional.avg_pool3d(made[1], 3, 1, 1)
    assert spectrum_distance(*made) < 0.5 < 1.0 < spectrum_distance(made[0], blurred)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"clean": []}, "'clean' is missing"),
    ({"noisy": ["absent.mrc"]}, "cannot read absent.mrc"),
    ({"clean_masks": ["one.mrc"]}, "one mask for each clean volume"),
    ({"validation_noisy": "t.mrc"}, "a tomogram and its truth"),
    ({"tilt_min": -2.0, "tilt_max": 2.0}, "too small"),
    ({"voxel_size": 40.0}, "has no room for a training crop of 16 x 16 x 16"),
    ({"preset": "best"}, "must be one of robust, fast, paper"),
    ({"preset": "paper", "batch": 8}, "needs more than 16 crops"),
])  # fmt: skip
def test_wrong_parameters_are_refused_before_anything_is_written(files, tmp_path, wrong, words):
    with pytest.raises(JobError, match=words) as refused:
        run(job(files, tmp_path / "a", **wrong), quiet=True)
    assert "\n" not in str(refused.value) and not os.path.exists(tmp_path / "a" / "model.safetensors")
    assert not os.path.exists(tmp_path / "a" / "job.json")


def test_a_truth_of_another_size_is_refused(files, tmp_path):
    path = str(tmp_path / "small.mrc")
    write_volume(path, specimen((32, 32, 40), 5, 12, 4.0), 10.0)
    with pytest.raises(JobError, match="cannot be the truth"):
        run(job(files, tmp_path / "a", validation_noisy=files["noisy"][0], validation_clean=path), quiet=True)


def test_a_truth_of_the_opposite_contrast_is_refused(files, tmp_path):
    dark = str(tmp_path / "dark.mrc")
    write_volume(dark, -specimen(SHAPE, 1, count=12, radius=4.0), 10.0)
    pair = {"validation_noisy": files["noisy"][0], "validation_clean": dark}
    with pytest.raises(JobError, match="opposite contrast"):
        run(job(files, tmp_path / "a", **pair), quiet=True)
    assert not os.path.exists(tmp_path / "a" / "job.json")


def test_padding_does_not_part_the_grey_scale_of_halves_from_that_of_their_tomogram(files, tmp_path):
    data = read_volume(files["noisy"][0])
    data[:, :, :8] = 50.0
    paths = [str(tmp_path / f"{name}.mrc") for name in ("whole", "even", "odd")]
    for path in paths:
        write_volume(path, data, 10.0)
    asked = job(files, tmp_path / "a", noisy=paths[:1], noisy_even=paths[1:2], noisy_odd=paths[2:])
    noisy, _ = train._open_domains(asked, FAST, Progress(quiet=True))
    halves = train._open_halves(asked, FAST, noisy, Progress(quiet=True))
    whole = noisy.volumes[0]
    assert not whole.inside[:, :, :8].any() and whole.scale.sd < 5
    for source in halves:
        assert source.volumes[0].scale == whole.scale and source.volumes[0].inside is whole.inside


def test_halves_are_drawn_at_one_place_and_bring_their_term(files, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"half{number}.mrc") for number in range(4)]
    # The halves differ in their grey scale, of which nothing is left in the crops.
    for path, source, gain in zip(
        paths, [path for path in files["noisy"] for _ in range(2)], (1, 2, 1, 2), strict=True
    ):
        write_volume(path, gain * read_volume(source), 10.0)
    seen = []
    monkeypatch.setattr(
        "cryoden_core.dual.losses.half_disagreement",
        lambda denoised, other, measured: seen.append(other) or denoised.square().mean(),
    )
    draw = CropSource.draw
    drawn = []
    monkeypatch.setattr(CropSource, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    run(job(files, tmp_path / "a", steps=2, noisy_even=paths[::2], noisy_odd=paths[1::2]), quiet=True)
    assert len(seen) == 2
    for other in seen:
        assert sum(other.shape == crops.shape and torch.allclose(other, crops, atol=1e-4) for crops in drawn) == 2
    assert "half_disagreement" in read_metrics(str(tmp_path / "a" / "metrics.csv"))
    with pytest.raises(JobError, match="cannot be a half"):
        write_volume(paths[0], read_volume(files["noisy"][0])[:, :, :32], 10.0)
        run(job(files, tmp_path / "b", noisy_even=paths[::2], noisy_odd=paths[1::2]), quiet=True)
    with pytest.raises(JobError, match="2 tomograms, 1 even, 2 odd"):
        run(job(files, tmp_path / "b", noisy_even=paths[:1], noisy_odd=paths[1::2]), quiet=True)


def test_a_smaller_batch_makes_the_batch_of_large_crops_smaller_too(files, tmp_path):
    robust = train._preset(job(files, tmp_path, preset="robust", batch=8, steps=0))
    assert (robust.batch, robust.large_batch, robust.steps) == (8, 2, PRESETS["robust"].steps)


def test_the_tilt_range_is_that_of_a_file_of_angles(files, tmp_path):
    angles = tmp_path / "tilts.tlt"
    angles.write_text("-51.0\n0.0\n39.5\n")
    run(job(files, tmp_path / "a", steps=1, tilt_angles=str(angles)), quiet=True)
    assert DualModel.load(str(tmp_path / "a" / "model.safetensors")).about["tilt_range"] == [-51.0, 39.5]
    angles.write_text("10\n40\n")
    with pytest.raises(JobError, match="tilt_min"):
        run(job(files, tmp_path / "b", steps=1, tilt_angles=str(angles)), quiet=True)


def test_memory_that_runs_out_halves_the_batch_once_and_says_so(files, tmp_path, monkeypatch):
    sizes, draw = [], CropSource.draw

    def short_of_memory(self, count, edge, generator):
        sizes.append(count)
        if count == 4:
            raise RuntimeError("out of memory")
        return draw(self, count, edge, generator)

    monkeypatch.setattr(DualTask, "measure_spectra", lambda self, edge: None)
    monkeypatch.setattr(CropSource, "draw", short_of_memory)
    run(job(files, tmp_path / "a", steps=2, batch=4), quiet=True)
    assert "batches of half the size" in " ".join(read_json(str(tmp_path / "a" / "result.json"))["warnings"])
    assert sizes.count(4) == 1 and sizes.count(2) == 4


def test_an_invisible_contrast_is_asked_for(files, tmp_path):
    path = str(tmp_path / "noise.mrc")
    write_volume(path, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), 10.0)
    with pytest.raises(JobError, match="say so with the contrast"):
        run(job(files, tmp_path / "a", noisy=[path], contrast="auto"), quiet=True)


def test_one_volume_cannot_be_noisy_and_clean(files, tmp_path):
    with pytest.raises(JobError, match="given as noisy and as clean"):
        run(job(files, tmp_path / "a", clean=files["noisy"][:1]), quiet=True)


def test_tomograms_of_both_contrasts_are_refused(files, tmp_path):
    path = str(tmp_path / "bright.mrc")
    write_volume(path, specimen(SHAPE, 5, 12, 4.0), 10.0)
    with pytest.raises(JobError, match=r"looks bright in .* and dark in"):
        run(job(files, tmp_path / "a", noisy=[files["noisy"][0], path], contrast="auto"), quiet=True)


def test_volumes_of_other_voxel_sizes_join_at_the_models(files, tmp_path):
    path = str(tmp_path / "fine.mrc")
    write_volume(path, noisy_volume(9), 8.0)
    run(job(files, tmp_path / "a", noisy=[files["noisy"][0], path], steps=2, voxel_size=10.0), quiet=True)
    assert DualModel.load(str(tmp_path / "a" / "model.safetensors")).voxel_size == 10.0


def test_a_short_training_denoises_simulates_and_uses_its_noise(files, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "fast", dataclasses.replace(FAST, patch=16, batch=8, schedule="constant"))
    about = {"validation_noisy": files["noisy"][0], "validation_clean": files["truth"]}
    run(job(files, tmp_path / "a", steps=60, **about), quiet=True)
    figures = read_json(str(tmp_path / "a" / "result.json"))["figures"]
    assert figures["r_denoised"] > figures["r_noisy"] + 0.1
    assert figures["wedge"] < 0.5 * figures["wedge_clean"]
    # A dead noise branch gives 0.00; a training of the preset's length brings it to 0.3.
    assert figures["diversity"] < 0.8 and figures["own_minus_wrong_noise"] > 0.03
    # So few steps leave the smallest network's kernels lopsided, by a voxel at most.
    assert figures["cycle_gap"] < 0.4 and figures["shift"] <= 1

"""NMSG's jobs from file to file on tiny volumes."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoden_core import mrc
from cryoden_core.api import nmsg, nmsg_train, run
from cryoden_core.fourier import missing_wedge_mask
from cryoden_core.jobs import EXIT_INTERRUPTED, JobError, NmsgJob, RunFolder, read_job
from cryoden_core.models import load_model, save_model
from cryoden_core.nmsg import denoise
from cryoden_core.nmsg.presets import Preset
from cryoden_core.progress import read_metrics, read_progress
from tests.core.noise_volumes import as_measured, coloured, specimen

SHAPE = (18, 48, 44)
ORIGIN = (10.0, -20.0, 30.0)
QUICK = {"preset": "fast", "steps": 4, "device": "cpu", "threads": 1}
AS_SHIPPED = denoise.PRESETS["fast"]


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """The smallest networks, and pictures in two tests only."""
    if "its_files" not in request.node.name and "halves_are_denoised" not in request.node.name:
        request.getfixturevalue("no_pictures")
    tiny = Preset(features=4, depth=2, steps=4, tile=32, batch=1, rate=2e-3, flips=2)
    monkeypatch.setitem(denoise.PRESETS, "fast", tiny)


def write(path: Path, data: np.ndarray) -> str:
    mrc.write_volume(str(path), data.astype(np.float32), 12.5, ORIGIN)
    return str(path)


def truth() -> np.ndarray:
    return 40 * as_measured(specimen(SHAPE, radius=4))


@pytest.fixture
def tomogram(tmp_path) -> str:
    return write(tmp_path / "t.mrc", 500 + truth() + 30 * coloured(SHAPE, seed=1))


@pytest.fixture
def halves(tmp_path) -> tuple[str, str, str]:
    """A tomogram that is the sum of its halves, so that a half has half its scale."""
    even, odd = (250 + truth() / 2 + 20 * coloured(SHAPE, seed=seed) for seed in (1, 2))
    return write(tmp_path / "sum.mrc", even + odd), write(tmp_path / "e.mrc", even), write(tmp_path / "o.mrc", odd)


def test_a_run_leaves_its_files_and_keeps_header_and_grey_scale(tomogram, tmp_path):
    output = str(tmp_path / "d.mrc")
    result = nmsg(tomogram, output, **QUICK)
    folder = RunFolder.beside(output)
    for path in (folder.job, folder.progress, folder.metrics, folder.report, folder.noise_report, folder.model,
                 folder.result, folder.checkpoint):  # fmt: skip
        assert os.path.getsize(path) > 0, path
    assert not list(tmp_path.rglob("*.tmp*"))
    header = mrc.read_header(output)
    assert header.shape == SHAPE and header.mode == 2
    assert header.voxel_size == pytest.approx(12.5) and header.origin == pytest.approx(ORIGIN)
    before, after = mrc.read_volume(tomogram), mrc.read_volume(output)
    assert after.mean() == pytest.approx(before.mean(), abs=0.3 * before.std())
    assert json.loads(Path(folder.result).read_text()) == json.loads(json.dumps(result))
    assert result["output"] == output and result["trained_on"] == ["t.mrc"]
    assert result["noise_sd_after"] < result["noise_sd_before"]
    assert read_progress(folder.progress)["state"] == "done"
    assert read_job(folder.job).steps == 4
    assert read_metrics(folder.metrics)["step"][-1] == 4


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tomogram, tmp_path):
    volumes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        nmsg(tomogram, str(tmp_path / f"{name}.mrc"), seed=seed, **QUICK)
        volumes.append(mrc.read_volume(str(tmp_path / f"{name}.mrc")))
    assert np.array_equal(volumes[0], volumes[1]) and not np.array_equal(volumes[0], volumes[2])


def test_a_saved_model_applied_gives_what_its_training_gave(tomogram, tmp_path):
    model = str(tmp_path / "models" / "m.safetensors")
    nmsg(tomogram, str(tmp_path / "a.mrc"), save_model=model, **QUICK)
    result = nmsg(tomogram, str(tmp_path / "b.mrc"), model=model, device="cpu", threads=1)
    assert np.array_equal(mrc.read_volume(str(tmp_path / "a.mrc")), mrc.read_volume(str(tmp_path / "b.mrc")))
    assert result["model"] == model and "noise_model" not in result


def test_a_model_trained_on_two_tomograms_denoises_both(tomogram, tmp_path):
    other = write(tmp_path / "u.mrc", 3 + 0.1 * coloured((20, 40, 56), seed=3))
    model = str(tmp_path / "m.safetensors")
    result = nmsg_train([tomogram, other], model, **QUICK)
    assert result["trained_on"] == ["t.mrc", "u.mrc"] and result["output"] == model
    reports = json.loads(Path(RunFolder.beside(model).noise_report).read_text())
    assert len(reports["tomograms"]) == 2
    for path in (tomogram, other):
        output = str(tmp_path / ("d" + os.path.basename(path)))
        nmsg(path, output, model=model, device="cpu", threads=1)
        before, after = mrc.read_volume(path), mrc.read_volume(output)
        assert after.shape == before.shape
        assert after.mean() == pytest.approx(before.mean(), abs=0.3 * before.std())


def test_halves_are_denoised_on_their_own_scale(halves, tmp_path):
    whole, even, odd = halves
    names = {name: str(tmp_path / f"{name}.mrc") for name in ("output", "output_even", "output_odd")}
    parameters = {"input": whole, "even": even, "odd": odd, **names, **QUICK}
    result = run(NmsgJob.from_parameters(parameters))
    assert result["noise_source"] == "halves"
    for name, path in names.items():
        assert result[name] == path
    for path, written in ((even, "output_even"), (odd, "output_odd"), (whole, "output")):
        before, after = mrc.read_volume(path), mrc.read_volume(names[written])
        assert after.mean() == pytest.approx(before.mean(), abs=0.3 * before.std())
        assert after.std() < before.std()
    total = sum(mrc.read_volume(names[name]) for name in ("output_even", "output_odd"))
    assert np.corrcoef(total.ravel(), mrc.read_volume(names["output"]).ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda e, o: (e, e), "identical"),
        (lambda e, o: (e[:, :40], o), "voxels but"),
        (lambda e, o: (coloured(SHAPE, 7), coloured(SHAPE, 8)), "not the halves of"),
    ],
)
def test_halves_that_are_none_are_refused(halves, tmp_path, spoil, words):
    whole, even, odd = halves
    for path, data in zip((even, odd), spoil(mrc.read_volume(even), mrc.read_volume(odd)), strict=True):
        write(Path(path), data)
    with pytest.raises(JobError, match=words):
        nmsg(whole, str(tmp_path / "d.mrc"), even=even, odd=odd, **QUICK)
    assert not (tmp_path / "d.mrc").exists()


def test_crops_are_taken_inside_the_mask(tomogram, tmp_path):
    mask = np.zeros(SHAPE, np.float32)
    mask[5:12, 30:40, 30:40] = 1
    path = write(tmp_path / "mask.mrc", mask)
    nmsg(tomogram, str(tmp_path / "a.mrc"), mask=path, **QUICK)
    nmsg(tomogram, str(tmp_path / "b.mrc"), **QUICK)
    a, b = (mrc.read_volume(str(tmp_path / name)) for name in ("a.mrc", "b.mrc"))
    assert not np.array_equal(a, b)
    write(Path(path), np.zeros(SHAPE))
    with pytest.raises(JobError, match="is empty"):
        nmsg(tomogram, str(tmp_path / "a.mrc"), mask=path, **QUICK)


def test_a_model_is_trained_inside_the_masks_of_its_tomograms(tomogram, tmp_path):
    other = write(tmp_path / "u.mrc", 3 + 0.1 * coloured((20, 40, 56), seed=3))
    masks = [np.zeros(SHAPE), np.zeros((20, 40, 56))]
    masks[0][:, :, :8] = masks[1][:, :, :8] = 1
    paths = [write(tmp_path / f"mask{index}.mrc", mask) for index, mask in enumerate(masks)]
    models = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    nmsg_train([tomogram, other], models[0], masks=paths, **QUICK)
    nmsg_train([tomogram, other], models[1], masks=["", ""], **QUICK)
    first, second = (load_model(path, "nmsg")[0] for path in models)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(JobError, match="2 tomograms, 1 masks"):
        nmsg_train([tomogram, other], models[0], masks=paths[:1], **QUICK)
    with pytest.raises(JobError, match=r"mask1.mrc is 56 x 40 x 20 voxels but .*t.mrc is"):
        nmsg_train([tomogram, other], models[0], masks=paths[::-1], **QUICK)


def test_the_wedge_of_the_output_can_be_kept(tomogram, tmp_path):
    free, kept = str(tmp_path / "d.mrc"), str(tmp_path / "k.mrc")
    nmsg(tomogram, free, **QUICK)
    result = nmsg(tomogram, kept, keep_wedge=True, tilt_min=-60, tilt_max=60, **QUICK)
    measured = missing_wedge_mask(SHAPE, -60, 60)
    measured[:, :, -1] = True
    before, after = (np.fft.rfftn(mrc.read_volume(path)) for path in (free, kept))
    np.testing.assert_allclose(after[measured], before[measured], rtol=1e-3, atol=1e-3 * np.abs(before[1:, 1:]).max())
    assert (np.abs(after[~measured]) ** 2).sum() < 0.9 * (np.abs(before[~measured]) ** 2).sum()
    assert 0 < result["removed_from_wedge"] < 1
    with pytest.raises(JobError, match="'tilt_min' is 0 and 'tilt_max' is 0 degrees"):
        nmsg(tomogram, kept, keep_wedge=True, **QUICK)


def test_a_job_refused_leaves_the_older_output_alone(tomogram, tmp_path):
    output = tmp_path / "d.mrc"
    output.write_bytes(b"older")
    with pytest.raises(JobError):
        nmsg(tomogram, str(output), model=str(tmp_path / "none.safetensors"), device="cpu")
    assert output.read_bytes() == b"older"
    assert "does not exist" in read_progress(RunFolder.beside(str(output)).progress)["message"]


@pytest.mark.parametrize(("mode", "number"), [("float16", 12), ("int8", 0)])
def test_other_number_formats_are_written(tomogram, tmp_path, mode, number):
    output, exact = str(tmp_path / "d.mrc"), str(tmp_path / "x.mrc")
    result = nmsg(tomogram, output, output_mode=mode, **QUICK)
    nmsg(tomogram, exact, **QUICK)
    assert mrc.read_header(output).mode == number
    written, wanted = mrc.read_volume(output), mrc.read_volume(exact)
    if mode == "float16":
        np.testing.assert_allclose(written, wanted, rtol=1e-3)
    else:
        assert np.corrcoef(written.ravel(), wanted.ravel())[0, 1] > 0.99
        assert "sd_after" not in result


def test_strength_zero_writes_the_input_and_a_result_that_is_strict_json(tomogram, tmp_path):
    output = str(tmp_path / "d.mrc")
    nmsg(tomogram, output, strength=0.0, **QUICK)
    np.testing.assert_allclose(mrc.read_volume(output), mrc.read_volume(tomogram), rtol=1e-5)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    json.loads(Path(RunFolder.beside(output).result).read_text(), parse_constant=refuse)
    json.loads(Path(RunFolder.beside(output).noise_report).read_text(), parse_constant=refuse)


def test_a_fresh_run_leaves_nothing_of_the_older_one(tomogram, tmp_path):
    output = str(tmp_path / "d.mrc")
    nmsg(tomogram, output, **QUICK)
    nmsg(tomogram, output, **{**QUICK, "steps": 3})
    assert read_metrics(RunFolder.beside(output).metrics)["step"] == [3]


def test_resuming_with_other_parameters_or_input_is_refused(tomogram, tmp_path):
    output = str(tmp_path / "d.mrc")
    nmsg(tomogram, output, **QUICK)
    with pytest.raises(JobError, match="other input or parameters"):
        nmsg(tomogram, output, resume=True, **{**QUICK, "steps": 6})
    write(Path(tomogram), 2 * mrc.read_volume(tomogram))
    with pytest.raises(JobError, match="other input or parameters"):
        nmsg(tomogram, output, resume=True, **QUICK)


def test_resuming_with_another_versions_preset_is_refused(tomogram, tmp_path, monkeypatch):
    output = str(tmp_path / "d.mrc")
    nmsg(tomogram, output, **QUICK)
    monkeypatch.setitem(denoise.PRESETS, "fast", dataclasses.replace(denoise.PRESETS["fast"], features=5))
    with pytest.raises(JobError, match="other input or parameters"):
        nmsg(tomogram, output, resume=True, **QUICK)


def test_resuming_may_change_where_and_how_the_output_is_written(tomogram, tmp_path):
    nmsg(tomogram, str(tmp_path / "a.mrc"), **QUICK)
    folder = RunFolder.beside(str(tmp_path / "a.mrc")).path
    nmsg(tomogram, str(tmp_path / "b.mrc"), run_folder=folder, resume=True, output_mode="float16", **QUICK)
    a, b = (mrc.read_volume(str(tmp_path / name)) for name in ("a.mrc", "b.mrc"))
    np.testing.assert_allclose(b, a, rtol=2e-3)


def test_a_model_of_another_system_is_refused(tomogram, tmp_path):
    model = str(tmp_path / "m.safetensors")
    save_model(model, {"a": torch.zeros(1)}, {"system": "dual"})
    with pytest.raises(JobError, match="'dual', not of 'nmsg'"):
        nmsg(tomogram, str(tmp_path / "d.mrc"), model=model, device="cpu")
    assert not (tmp_path / "d.mrc").exists()


@pytest.mark.parametrize("spoiled", ["weights", "architecture"])
def test_a_model_whose_parts_do_not_fit_is_refused(tomogram, tmp_path, spoiled):
    model = str(tmp_path / "m.safetensors")
    nmsg(tomogram, str(tmp_path / "a.mrc"), save_model=model, **QUICK)
    weights, about = load_model(model, "nmsg")
    if spoiled == "weights":
        weights.popitem()
    else:
        about["architecture"]["colour"] = "red"
    save_model(model, weights, about)
    with pytest.raises(JobError) as error:
        nmsg(tomogram, str(tmp_path / "d.mrc"), model=model, device="cpu")
    assert model in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "d.mrc").exists()


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_neither_a_pickled_model_nor_a_pickled_checkpoint_is_unpickled(tomogram, tmp_path):
    model, sprung = tmp_path / "m.safetensors", tmp_path / "sprung"
    model.write_bytes(pickle.dumps(Trap(str(sprung))))
    with pytest.raises(JobError, match="cannot be read"):
        nmsg(tomogram, str(tmp_path / "d.mrc"), model=str(model), device="cpu")
    folder = RunFolder.beside(str(tmp_path / "d.mrc"))
    torch.save({"fingerprint": Trap(str(sprung))}, folder.checkpoint)
    with pytest.raises(JobError, match="cannot be read"):
        nmsg(tomogram, str(tmp_path / "d.mrc"), resume=True, **QUICK)
    assert not sprung.exists()


def test_another_voxel_size_than_the_models_is_warned_of(tomogram, tmp_path):
    model = str(tmp_path / "m.safetensors")
    nmsg(tomogram, str(tmp_path / "a.mrc"), save_model=model, **QUICK)
    result = nmsg(tomogram, str(tmp_path / "b.mrc"), model=model, voxel_size=20.0, device="cpu", threads=1)
    assert any("trained at 12.50" in text for text in result["warnings"])
    assert mrc.read_header(str(tmp_path / "b.mrc")).voxel_size == pytest.approx(20)


def test_the_adversarial_model_is_not_trained_on_too_few_blocks(tomogram, tmp_path):
    result = nmsg(tomogram, str(tmp_path / "d.mrc"), noise_model="gan", **QUICK)
    assert result["noise_model"] == "spectral"
    assert any("too few to train the adversarial noise model" in text for text in result["warnings"])


COMMAND = [sys.executable, "-m", "cryoden_core", "nmsg", "--preset", "fast", "--steps", "40", "--device", "cpu",
           "--threads", "1"]  # fmt: skip
ROOT = str(Path(__file__).resolve().parents[2])


def test_a_run_stopped_by_sigterm_and_resumed_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    small = write(tmp_path / "s.mrc", 7 + coloured((16, 32, 32), seed=4))
    stopped, whole = str(tmp_path / "stopped.mrc"), str(tmp_path / "whole.mrc")
    folder = RunFolder.beside(stopped)
    process = subprocess.Popen([*COMMAND, small, "-o", stopped], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not read_progress(folder.progress).get("stage", "").startswith("training") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "go on with --resume" in said
    state = read_progress(folder.progress)
    assert state["state"] == "interrupted" and 0 < state["step"] < 40
    assert os.path.exists(folder.checkpoint) and not os.path.exists(stopped)
    monkeypatch.setitem(denoise.PRESETS, "fast", AS_SHIPPED)
    nmsg(small, stopped, resume=True, **{**QUICK, "steps": 40})
    nmsg(small, whole, **{**QUICK, "steps": 40})
    assert np.array_equal(mrc.read_volume(stopped), mrc.read_volume(whole))
    assert read_metrics(folder.metrics) == read_metrics(RunFolder.beside(whole).metrics)

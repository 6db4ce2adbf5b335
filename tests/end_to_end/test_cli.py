"""The command line as a person uses it: what it writes, what it says and with which exit code it ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoden_core.cli import main
from cryoden_core.jobs import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_NO_DEVICE, EXIT_OK, NmsgJob, RunFolder, write_job
from tests.end_to_end.volumes import SHAPE, noisy_volume, write_mrc

QUICK = ["--preset", "fast", "--steps", "2", "--device", "cpu", "--threads", "1"]


def cryoden(*arguments: str) -> int:
    """The exit code of ``cryoden ARGUMENTS``, run in this process because loading torch takes seconds."""
    try:
        return main(list(arguments)) or 0
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def tomogram(tmp_path: Path) -> str:
    return write_mrc(tmp_path / "tomogram.mrc", noisy_volume())


def test_doctor_names_torch_and_the_devices(capsys):
    assert cryoden("doctor") == EXIT_OK
    told = capsys.readouterr().out.lower()
    assert "torch" in told and "cuda" in told and "scipion" in told


def test_a_mistyped_option_is_answered_with_those_of_its_own_command(capsys):
    assert cryoden("wbp", "stack.mrc", "--tilt-angles", "a.tlt", "-o", "x.mrc", "--thicknes", "5") == EXIT_BAD_INPUT
    told = capsys.readouterr().err
    assert "--thickness" in told and "cryoden wbp --help" in told and "dual" not in told


@pytest.mark.parametrize(("words", "meant"), [("nmgs a.mrc", "'nmsg'?"), ("dual trian", "'dual train'?")])
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(words, meant, capsys):
    assert cryoden(*words.split()) == EXIT_BAD_INPUT
    assert meant in capsys.readouterr().err


def test_help_opens_with_what_the_command_is_about(capsys):
    assert cryoden("dual", "train", "--help") == EXIT_OK
    told = capsys.readouterr().out
    assert told.index("--noisy") < told.index("--preset") < told.index("--device")


def test_help_tells_each_default_as_one_types_it(capsys):
    assert cryoden("mlp", "--help") == EXIT_OK
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("INPUT", "--held-out, --no-held-out", "(default: yes)", "[degrees] (-90 to 90) (default: 0)"):
        assert part in told, part
    for part in ("STR", "FLOAT", "default: ''", "True", "(default: )"):
        assert part not in told, part
    assert cryoden("evaluate", "picking", "--help") == EXIT_OK
    told = capsys.readouterr().out
    assert "TOMOGRAMS ..." in told and "[" + "'particle'" not in told


def test_a_command_without_its_action_answers_with_the_actions(capsys):
    for words in ([], ["dual"]):
        cryoden(*words)
        assert "denoise" in capsys.readouterr().out.lower()


def test_a_denoised_tomogram_keeps_shape_and_voxel_size_and_brings_its_report(tomogram, tmp_path):
    output = tmp_path / "denoised.mrc"
    assert cryoden("nmsg", tomogram, "-o", str(output), *QUICK) == EXIT_OK
    with mrcfile.open(output) as stream:
        assert stream.data.shape == SHAPE and stream.data.dtype == np.float32
        assert float(stream.voxel_size.x) == pytest.approx(10.0)
        assert np.isfinite(stream.data).all()
        assert stream.data.std() < noisy_volume().std()
    folder = RunFolder.beside(str(output))
    for path in (folder.job, folder.progress, folder.metrics, folder.report, folder.result, folder.model):
        assert os.path.exists(path), path


def test_a_job_file_does_what_the_command_does(tomogram, tmp_path):
    outputs = [str(tmp_path / "typed.mrc"), str(tmp_path / "filed.mrc")]
    assert cryoden("nmsg", tomogram, "-o", outputs[0], *QUICK) == EXIT_OK
    job = NmsgJob(input=tomogram, output=outputs[1], preset="fast", steps=2, device="cpu", threads=1)
    write_job(job, str(tmp_path / "job.json"))
    assert cryoden("run", str(tmp_path / "job.json")) == EXIT_OK
    np.testing.assert_array_equal(mrcfile.read(outputs[0]), mrcfile.read(outputs[1]))


def test_evaluate_has_a_command_for_each_thing_that_is_judged(tomogram, tmp_path, capsys):
    assert cryoden("evaluate", "volume", tomogram, tomogram) == EXIT_OK
    assert "Correlation" in capsys.readouterr().out
    assert cryoden("evaluate", "picking", tomogram, "--picks", str(tmp_path / "picks"), "--sigma", "30") == EXIT_OK
    assert (tmp_path / "picks" / "picks_1.star").exists()
    quick = ["--edge", "16", "--network-steps", "0"]
    assert cryoden("evaluate", "realism", "--real", tomogram, "--simulated", tomogram, *quick) == EXIT_OK
    assert "power in the missing wedge" in capsys.readouterr().out
    assert cryoden("evaluate", "hallucination", tomogram, "--controls", str(tmp_path / "controls")) == EXIT_OK
    assert (tmp_path / "controls" / "phase_randomised.mrc").exists()
    assert cryoden("evaluate", "wedge", tomogram, tomogram, "--tilt-min", "-50") == EXIT_OK
    assert "change of the measured region" in capsys.readouterr().out
    assert cryoden("evaluate", tomogram, tomogram) == EXIT_BAD_INPUT


def _missing(folder: Path) -> list[str]:
    return [str(folder / "nowhere.mrc")]


def _truncated(folder: Path) -> list[str]:
    path = write_mrc(folder / "truncated.mrc", noisy_volume())
    os.truncate(path, os.path.getsize(path) // 2)
    return [path]


def _not_a_number(folder: Path) -> list[str]:
    volume = noisy_volume()
    volume[5, 6, 7] = np.nan
    return [write_mrc(folder / "nan.mrc", volume)]


def _constant(folder: Path) -> list[str]:
    return [write_mrc(folder / "constant.mrc", np.full(SHAPE, 3, np.float32))]


def _complex(folder: Path) -> list[str]:
    return [write_mrc(folder / "complex.mrc", noisy_volume().astype(np.complex64))]


def _image(folder: Path) -> list[str]:
    return [write_mrc(folder / "image.mrc", noisy_volume(shape=(48, 48)))]


def _thin(folder: Path) -> list[str]:
    return [write_mrc(folder / "thin.mrc", noisy_volume(shape=(15, 48, 48)))]


def _mismatched_halves(folder: Path) -> list[str]:
    even = write_mrc(folder / "even.mrc", noisy_volume(1))
    odd = write_mrc(folder / "odd.mrc", noisy_volume(2, (24, 48, 40)))
    return [write_mrc(folder / "tomogram.mrc", noisy_volume()), "--even", even, "--odd", odd]


def _identical_halves(folder: Path) -> list[str]:
    even, odd = (write_mrc(folder / name, noisy_volume(1)) for name in ("even.mrc", "odd.mrc"))
    return [write_mrc(folder / "tomogram.mrc", noisy_volume()), "--even", even, "--odd", odd]


def _one_half(folder: Path) -> list[str]:
    even = write_mrc(folder / "even.mrc", noisy_volume(1))
    return [write_mrc(folder / "tomogram.mrc", noisy_volume()), "--even", even]


def _mask_of_another_shape(folder: Path) -> list[str]:
    mask = write_mrc(folder / "mask.mrc", np.ones((24, 48, 40), np.float32))
    return [write_mrc(folder / "tomogram.mrc", noisy_volume()), "--mask", mask]


def _range(folder: Path) -> list[str]:
    return [write_mrc(folder / "tomogram.mrc", noisy_volume()), "--strength", "1.5"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (_missing, "nowhere.mrc"),
        (_truncated, "truncated.mrc"),
        (_not_a_number, "nan.mrc"),
        (_constant, "constant.mrc"),
        (_complex, "complex.mrc"),
        (_image, "image.mrc"),
        (_thin, "thin.mrc"),
        (_mismatched_halves, "odd.mrc"),
        (_identical_halves, "odd.mrc"),
        (_one_half, "odd"),
        (_mask_of_another_shape, "mask.mrc"),
        (_range, "strength"),
    ],
)
def test_bad_input_gets_one_sentence_and_writes_no_output(arguments, named, tmp_path, capsys):
    output = tmp_path / "out" / "denoised.mrc"
    output.parent.mkdir()
    code = cryoden("nmsg", *arguments(tmp_path), "-o", str(output), *QUICK)
    assert code == EXIT_BAD_INPUT
    assert_one_sentence(capsys.readouterr().err, named)
    assert not output.exists()


def assert_one_sentence(told: str, named: str) -> None:
    """The last thing on the screen names the culprit, ends as a sentence does and is no traceback."""
    assert "Traceback" not in told
    sentence = told.strip().splitlines()[-1]
    assert named in sentence, told
    assert sentence.endswith("."), sentence


def test_an_output_that_cannot_be_written_is_said_before_anything_is_computed(tomogram, tmp_path, capsys):
    (tmp_path / "a_file").write_text("in the way")
    code = cryoden("nmsg", tomogram, "-o", str(tmp_path / "a_file" / "denoised.mrc"), *QUICK)
    assert code == EXIT_BAD_INPUT
    assert_one_sentence(capsys.readouterr().err, "a_file")
    assert (tmp_path / "a_file").read_text() == "in the way"


def test_a_refused_command_leaves_no_folder_but_those_of_older_runs(tomogram, tmp_path):
    refused = ["nmsg", str(tmp_path / "nowhere.mrc"), "-o", str(tmp_path / "denoised.mrc"), *QUICK]
    assert cryoden(*refused) == EXIT_BAD_INPUT
    assert os.listdir(tmp_path) == ["tomogram.mrc"]
    folder = tmp_path / "denoised_cryoden"
    folder.mkdir()
    (folder / "checkpoint.pt").write_text("of an older run")
    assert cryoden(*refused) == EXIT_BAD_INPUT
    assert (folder / "checkpoint.pt").read_text() == "of an older run"


def test_a_full_disk_is_told_in_one_sentence_and_leaves_no_output(tomogram, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the tables, not for the checkpoint: stands for a disk that fills up in the middle of a run.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        code = cryoden("nmsg", tomogram, "-o", str(tmp_path / "denoised.mrc"), *QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == EXIT_BAD_INPUT
    assert_one_sentence(capsys.readouterr().err, "checkpoint.pt")
    assert not (tmp_path / "denoised.mrc").exists()
    assert not list(tmp_path.rglob("*.tmp*"))


def test_an_absent_gpu_is_refused_unless_the_person_allows_the_cpu(tomogram, tmp_path, capsys):
    output = tmp_path / "denoised.mrc"
    elsewhere = [*QUICK[:-4], "--device", "cuda:99", "--threads", "1"]
    assert cryoden("nmsg", tomogram, "-o", str(output), *elsewhere) == EXIT_NO_DEVICE
    assert_one_sentence(capsys.readouterr().err, "cuda:99")
    assert not output.exists()
    assert cryoden("nmsg", tomogram, "-o", str(output), *elsewhere, "--cpu-fallback") == EXIT_OK
    assert output.exists()


def test_a_tile_too_small_for_the_network_is_refused_before_the_training(tomogram, tmp_path, capsys):
    code = cryoden("nmsg", tomogram, "-o", str(tmp_path / "denoised.mrc"), *QUICK, "--tile", "8")
    assert code == EXIT_BAD_INPUT
    told = capsys.readouterr().err
    assert_one_sentence(told, "tile")
    assert "training" not in told


def test_a_spoiled_job_file_is_named(tmp_path, capsys):
    path = tmp_path / "job.json"
    path.write_text('{"schema": 1,')
    assert cryoden("run", str(path)) == EXIT_BAD_INPUT
    assert_one_sentence(capsys.readouterr().err, "job.json")


def test_a_missing_package_is_told_with_the_command_that_brings_it():
    without_torch = "import sys; sys.modules['torch'] = None; from cryoden_core.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", without_torch, "doctor"], capture_output=True, text=True)
    assert done.returncode == EXIT_FAILED
    assert_one_sentence(done.stderr, "no package torch")
    assert "pip install 'scipion-em-cryoden[core]'" in done.stderr


def test_the_module_and_the_installed_command_end_with_the_same_code(tmp_path):
    arguments = ["nmsg", str(tmp_path / "nowhere.mrc"), "-o", str(tmp_path / "out.mrc")]
    script = Path(sys.executable).with_name("cryoden")
    for command in ([sys.executable, "-m", "cryoden_core"], [str(script)]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == EXIT_BAD_INPUT, done.stderr
        assert_one_sentence(done.stderr, "nowhere.mrc")

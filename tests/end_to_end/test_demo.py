"""The demonstration of ``make demo``, with a tiny tomogram in the place of the person's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoden_core.jobs import EXIT_BAD_INPUT
from tests.end_to_end.volumes import noisy_volume, write_mrc

DEMO = Path(__file__).resolve().parents[2] / "docs" / "demo.py"


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run it as the Makefile does, in a process of its own because Scipion configures itself from the environment."""
    command = [sys.executable, str(DEMO), "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """Folder and printed text of a demonstration whose paths hold what shells and Scipion stumble over."""
    base = tmp_path_factory.mktemp("demo")
    tomogram = write_mrc(base / "my tomo-1 (binned).mrc", noisy_volume())
    done = run_demo(base / "demo", "--tomogram", tomogram, "--steps", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return base / "demo", done.stdout


def printed(text: str, what: str) -> Path:
    line = next(line for line in text.splitlines() if line.strip().startswith(what))
    return Path(line.split(what, 1)[1].strip())


def test_the_printed_tomogram_is_a_denoised_one_with_the_right_voxel_size(demo):
    _, text = demo
    with mrcfile.open(printed(text, "denoised tomogram")) as stream:
        assert stream.data.shape == noisy_volume().shape
        assert float(stream.voxel_size.x) == pytest.approx(10.0)
        assert stream.data.std() < noisy_volume().std()


def test_the_printed_picture_is_a_png(demo):
    folder, text = demo
    picture = printed(text, "picture")
    assert picture.parent == folder
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_printed_project_is_a_scipion_project(demo):
    folder, text = demo
    project = printed(text, "Scipion project")
    assert (project / "project.sqlite").exists()
    assert folder in project.parents


def test_the_script_that_opens_the_project_is_valid_and_names_it(demo):
    folder, text = demo
    script = folder / "open-project.sh"
    assert str(script) in text and os.access(script, os.X_OK)
    assert subprocess.run(["sh", "-n", str(script)]).returncode == 0
    assert "scipion project cryoden_demo" in script.read_text()


@pytest.mark.parametrize(
    ("voxel_size", "spoil", "said"),
    [(0.0, False, "voxel size"), (10.0, True, "bad.mrc")],
)
def test_a_bad_tomogram_is_refused_in_one_sentence(voxel_size, spoil, said, tmp_path):
    volume = np.full((24, 48, 48), np.nan, np.float32) if spoil else noisy_volume()
    done = run_demo(tmp_path / "demo", "--tomogram", write_mrc(tmp_path / "bad.mrc", volume, voxel_size))
    assert done.returncode == EXIT_BAD_INPUT
    assert len(done.stderr.strip().splitlines()) == 1 and said in done.stderr


def test_a_missing_tomogram_is_refused_in_one_sentence(tmp_path):
    done = run_demo(tmp_path / "demo", "--tomogram", str(tmp_path / "nowhere.mrc"))
    assert done.returncode == EXIT_BAD_INPUT
    assert len(done.stderr.strip().splitlines()) == 1 and "nowhere.mrc" in done.stderr

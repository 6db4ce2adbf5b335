"""``cryoden wbp`` and ``cryoden sirt`` as a person uses them."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoden_core.jobs import EXIT_BAD_INPUT, EXIT_OK, RunFolder, read_json
from tests.core.tilt_files import ANGLES, SHAPE, density, project, write_mrc, write_numbers
from tests.end_to_end.test_cli import cryoden

HERE = ["--device", "cpu", "--threads", "1"]


@pytest.fixture
def series(tmp_path: Path) -> list[str]:
    """The arguments that name a stack and its angles."""
    stack = write_mrc(tmp_path / "ts.mrc", project(noise=0.1))
    return [stack, "--tilt-angles", write_numbers(tmp_path / "ts.tlt", ANGLES)]


@pytest.mark.parametrize("command", [["wbp"], ["sirt", "--iterations", "5"]])
def test_a_tilt_series_becomes_a_tomogram(series, tmp_path, capsys, command):
    output = tmp_path / "out.mrc"
    arguments = [command[0], *series, "--thickness", str(SHAPE[0]), "-o", str(output), *command[1:], *HERE]
    assert cryoden(*arguments) == EXIT_OK
    assert str(output) in capsys.readouterr().out
    with mrcfile.open(output) as stream:
        assert stream.data.shape == SHAPE and float(stream.voxel_size.x) == pytest.approx(10)
        assert np.corrcoef(stream.data.ravel(), density().ravel())[0, 1] > 0.6
    assert read_json(RunFolder.beside(str(output)).result)["images"] == list(range(1, 22))


def test_halves_exclusion_and_binning_work_together(series, tmp_path):
    output = tmp_path / "out.mrc"
    given = ["--thickness", "24", "--halves", "views", "--exclude", "1,20-21", "--binning", "2"]
    assert cryoden("wbp", *series, "-o", str(output), *given, *HERE) == EXIT_OK
    for name in ("out.mrc", "out_even.mrc", "out_odd.mrc"):
        assert mrcfile.read(tmp_path / name).shape == (12, 20, 32)


def test_bad_input_is_one_sentence_and_exit_code_2(series, tmp_path, capsys):
    write_numbers(tmp_path / "ts.tlt", ANGLES[1:])
    output = tmp_path / "out.mrc"
    assert cryoden("wbp", *series, "--thickness", "24", "-o", str(output), *HERE) == EXIT_BAD_INPUT
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cryoden:")]
    assert len(told) == 1 and "20 tilt angles" in told[0] and "21 images" in told[0]
    assert not output.exists()


@pytest.mark.parametrize("command", ["wbp", "sirt"])
def test_the_help_names_what_imod_users_look_for(capsys, command):
    assert cryoden(command, "--help") == EXIT_OK
    told = capsys.readouterr().out
    for option in ("--tilt-angles", "--transforms", "--exclude", "--thickness", "--angle-offset", "--halves"):
        assert option in told
    assert "XAXISTILT" not in told

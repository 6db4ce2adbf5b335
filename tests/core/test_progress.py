"""Progress: the file that the plugin reads, the table of metrics, warnings."""

import errno
import json
import math
import os
import time
from pathlib import Path

import pytest

from cryoden_core import progress as module
from cryoden_core.jobs import RunFolder
from cryoden_core.progress import FAILED, INTERRUPTED, Progress, read_metrics, read_progress


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def quiet(folder: RunFolder) -> Progress:
    return Progress(folder, quiet=True, interval=0)


def test_a_run_is_running_from_its_first_moment(folder):
    quiet(folder)
    state = read_progress(folder.progress)
    assert state["state"] == "running" and state["stage"] == "starting" and state["warnings"] == []


def test_no_file_and_half_a_file_read_as_nothing_known(tmp_path):
    assert read_progress(str(tmp_path / "none.json")) == {}
    (tmp_path / "half.json").write_text('{"state": "runn')
    assert read_progress(str(tmp_path / "half.json")) == {}
    (tmp_path / "list.json").write_text("[]")
    assert read_progress(str(tmp_path / "list.json")) == {}


def test_the_file_is_replaced_in_one_piece(folder, monkeypatch):
    """A reader never sees a half-written file: the rename is the only thing that touches the name."""
    shown = quiet(folder)
    before = read_progress(folder.progress)

    def crash(source: str, target: str) -> None:
        assert json.loads(Path(source).read_text())["stage"] == "training"
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        shown.stage("training", 10)
    assert read_progress(folder.progress) == before
    assert os.listdir(folder.path) == ["progress.json"]


def test_a_full_disk_ends_no_run_and_hides_no_failure(folder, monkeypatch, capsys):
    shown = quiet(folder)

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "replace", full)
    shown.stage("training", 10)
    shown.log(1, {"loss": 1.0})
    shown.finish(FAILED, "why it failed")
    assert capsys.readouterr().err.count("cannot be written: No space left on device") == 1
    assert os.listdir(folder.path) == ["progress.json"]
    with pytest.raises(OSError, match="No space"):
        quiet(folder)


def test_time_left_is_counted_from_the_steps_of_this_run(folder, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    shown = quiet(folder)
    shown.stage("training", total=100, first=60)
    clock[0] += 20
    shown.advance(10, loss=0.5)
    state = read_progress(folder.progress)
    assert state["step"] == 70 and state["total"] == 100 and state["loss"] == 0.5
    assert state["eta_seconds"] == pytest.approx(2.0 * 30)
    assert state["elapsed_seconds"] == 20


def test_a_loss_that_is_not_finite_does_not_spoil_the_json(folder):
    shown = quiet(folder)
    shown.stage("training", 10)
    shown.advance(loss=1.0)
    shown.advance(loss=math.nan)
    assert read_progress(folder.progress)["loss"] == 1.0
    assert "NaN" not in Path(folder.progress).read_text()


def test_warnings_are_kept_once_and_to_the_end(folder, capsys):
    shown = quiet(folder)
    shown.warn("the moon is full.")
    shown.warn("the moon is full.")
    shown.stage("writing")
    shown.finish(INTERRUPTED, "stopped")
    state = read_progress(folder.progress)
    assert state["warnings"] == ["the moon is full."] == shown.warnings
    assert state["state"] == "interrupted" and state["message"] == "stopped"
    assert capsys.readouterr().err.count("moon") == 1


def test_columns_that_appear_later_are_empty_before(folder):
    shown = quiet(folder)
    shown.stage("training", 3)
    shown.log(1, {"loss": 1.0})
    shown.log(2, {"loss": 0.5, "guidance": 0.25})
    shown.log(3, {"guidance": 0.125})
    columns = read_metrics(folder.metrics)
    assert list(columns) == ["step", "loss", "guidance"]
    assert columns["step"] == [1, 2, 3]
    assert columns["loss"][:2] == [1.0, 0.5] and math.isnan(columns["loss"][2])
    assert math.isnan(columns["guidance"][0]) and columns["guidance"][1:] == [0.25, 0.125]


def test_rewinding_drops_later_rows_of_this_stage_only(folder):
    shown = quiet(folder)
    shown.stage("noise", 3)
    shown.log(9, {"loss": 9.0})
    shown.stage("training", 3)
    for step in (1, 2, 3):
        shown.log(step, {"loss": float(step)})
    shown.rewind(2)
    assert read_metrics(folder.metrics)["step"] == [9, 1, 2]


def test_rewinding_heals_a_row_cut_short_by_a_kill(folder):
    shown = quiet(folder)
    shown.stage("training", 3)
    shown.log(1, {"loss": 1.0})
    with open(folder.metrics, "a") as stream:
        stream.write("2,trai")
    shown.rewind(1)
    shown.log(2, {"loss": 0.5})
    columns = read_metrics(folder.metrics)
    assert columns["step"] == [1, 2] and columns["loss"] == [1.0, 0.5]


def test_stages_bars_and_remarks_are_shown_unless_the_run_is_quiet(capsys):
    shown = Progress(None)
    shown.stage("reading")
    shown.say("by the way")
    list(shown.track("ab", "slabs", 2))
    shown.finish()
    said = capsys.readouterr().err
    assert "reading ..." in said and "by the way" in said and "slabs: 100%" in said and "2/2" in said
    hidden = Progress(None, quiet=True)
    hidden.stage("reading")
    hidden.say("by the way")
    list(hidden.track("ab", "slabs", 2))
    hidden.warn("look out")
    hidden.finish()
    assert capsys.readouterr().err == "WARNING: look out\n"


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = Progress(None, quiet=True)
    shown.stage("reading", 2)
    shown.advance()
    shown.log(1, {"loss": 1.0})
    shown.rewind(0)
    shown.finish()
    assert list(tmp_path.iterdir()) == []
    assert read_metrics("metrics.csv") == {}


def test_a_tracked_stage_counts_each_item(folder):
    shown = quiet(folder)
    assert list(shown.track("abc", "slabs", 3)) == ["a", "b", "c"]
    assert read_progress(folder.progress)["step"] == 3

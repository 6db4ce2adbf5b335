"""Pictures of a run: what they show, what they read and what they leave when they cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryoden_core import excerpts, metrics, report
from cryoden_core.jobs import JobError

LOSSES = {
    "step": [float(step) for step in range(60)],
    "loss": [1.0 / (1 + step) for step in range(60)],
    "validation_loss": [0.5 if step % 10 == 0 else float("nan") for step in range(60)],
    "learning_rate": [1e-3] * 60,
}


class Watched:
    """A volume that counts the voxels that are read and cannot be read as a whole."""

    def __init__(self, shape: tuple) -> None:
        self.shape, self.ndim, self.read = shape, 3, 0

    def __getitem__(self, index: object) -> np.ndarray:
        part = np.broadcast_to(np.float32(0), self.shape)[index]
        self.read += part.size
        return np.random.default_rng(part.size).normal(size=part.shape).astype(np.float32)

    def __array__(self, *_: object) -> np.ndarray:
        raise AssertionError("the whole volume was read")


@pytest.fixture
def volumes() -> tuple:
    before = np.random.default_rng(0).normal(size=(20, 40, 50)).astype(np.float32)
    return before, 0.2 * before


def size_of_png(path: Path) -> tuple:
    raw = path.read_bytes()
    assert raw.startswith(b"\x89PNG")
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def test_a_report_is_written_whole_and_leaves_nothing_else(tmp_path: Path, volumes: tuple) -> None:
    curve = metrics.fsc(*volumes)
    report.write_report(
        str(tmp_path / "report.png"), *volumes, 10.0, LOSSES, "a title", {"before": curve, "after": curve}
    )
    assert os.listdir(tmp_path) == ["report.png"]
    assert min(size_of_png(tmp_path / "report.png")) > 500


@pytest.mark.parametrize("shape", [(2, 30, 40), (3, 500, 20), (300, 8, 8), (40, 40, 40), (2, 2, 2)])
def test_volumes_of_any_proportion_make_a_page(tmp_path: Path, shape: tuple) -> None:
    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    report.write_report(str(tmp_path / "r.png"), volume, volume * 0.5)
    width, height = size_of_png(tmp_path / "r.png")
    assert 0.3 < height / width < 1.2


def test_constant_volumes_do_not_break_the_picture(tmp_path: Path) -> None:
    volume = np.zeros((8, 16, 16), np.float32)
    report.write_report(str(tmp_path / "r.png"), volume, volume, metrics={})
    assert size_of_png(tmp_path / "r.png")[0] > 500


def test_only_central_slices_and_one_block_of_a_large_volume_are_read(tmp_path: Path) -> None:
    before, after = Watched((300, 1000, 900)), Watched((300, 1000, 900))
    report.write_report(str(tmp_path / "r.png"), before, after)
    slices = 1000 * 900 + 300 * 900 + 300 * 1000
    assert before.read <= slices + excerpts.SPECTRUM_BLOCK**3
    assert after.read == before.read


def test_central_slices_are_named_by_their_axes() -> None:
    volume = np.zeros((4, 6, 8), np.float32)
    volume[3, 5, 4], volume[2, 5, 7], volume[3, 3, 7] = 1, 2, 3
    xy, xz, yz = excerpts.central_slices(volume)
    assert (xy.shape, xz.shape, yz.shape) == ((6, 8), (4, 8), (6, 4))
    assert (yz[5, 3], xy[5, 7], xz[3, 7]) == (1, 2, 3)


def test_before_after_and_difference_have_one_contrast(volumes: tuple) -> None:
    figure = report.slices_figure(*volumes, 10.0)
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert len(limits) == 9
    assert len(set(limits[:6])) == 1
    widths = [high - low for low, high in limits]
    np.testing.assert_allclose(widths, widths[0])
    assert limits[8][0] == -limits[8][1]


def test_views_keep_the_proportions_of_the_volume(volumes: tuple) -> None:
    figure = report.slices_figure(*volumes)
    width, height = figure.get_size_inches()
    xy, xz, yz = (axes.get_position() for axes in figure.axes[:3])
    scale = xy.width * width / 50
    assert xy.height * height == pytest.approx(40 * scale)
    assert xz.height * height == pytest.approx(20 * scale)
    assert yz.width * width == pytest.approx(20 * scale)


def test_the_loss_picture_shows_losses_and_nothing_else() -> None:
    axes = report.loss_figure(LOSSES).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["loss", "validation loss"]
    assert report.loss_figure({}).axes[0].texts[0].get_text() == "no training in this run"


def test_of_several_trainings_only_the_last_is_drawn_and_without_its_start() -> None:
    losses = {
        "step": [10, 20, 30, 10, 20, 30, 40],
        "loss": [0.1, 5, 4, 0.2, 3, 2, 1],
        "loss_start": [0.1, float("nan"), float("nan"), 0.2, *[float("nan")] * 3],
    }
    axes = report.loss_figure(losses).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["loss"]
    assert axes.lines[0].get_xydata().tolist() == [[20, 3], [30, 2], [40, 1]]


def test_the_spectrum_of_a_volume_scaled_by_a_fifth_lies_25_times_lower(volumes: tuple) -> None:
    axes = report.spectrum_figure(*volumes, 10.0).axes[0]
    before, after, _ = (line.get_ydata() for line in axes.get_lines())
    np.testing.assert_allclose(before / after, 25, rtol=1e-3)
    assert axes.get_xlim()[1] == pytest.approx(0.05)


def test_the_fsc_picture_marks_both_thresholds() -> None:
    frequency = np.linspace(0.01, 0.5, 50)
    figure = report.fsc_figure({"before": (frequency, 1 - frequency), "other": (frequency, 1 - 2 * frequency)}, 5.0)
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"0.5", "0.143"}
    assert axes.get_lines()[-1].get_xdata()[-1] == pytest.approx(0.1)


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path: Path, volumes: tuple) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot write"):
        report.write_report(str(tmp_path / "file" / "r.png"), *volumes)


def test_a_failed_save_keeps_the_old_picture(tmp_path: Path, volumes: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.png"
    path.write_bytes(b"old")
    figure = report.spectrum_figure(*volumes)

    def fail(name: str, **_: object) -> None:
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        report.save_figure(figure, str(path))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["r.png"]


def test_importing_loads_neither_matplotlib_nor_torch_and_drawing_no_pyplot() -> None:
    code = (
        "import sys, numpy as np\n"
        "from cryoden_core import report, metrics, fourier, mrc\n"
        "assert not {'matplotlib', 'torch', 'skimage'} & set(sys.modules)\n"
        "report.slices_figure(np.eye(4)[None] + np.zeros((4, 1, 1)), np.zeros((4, 4, 4)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": root})

"""The pictures of one tomogram, made from the files that its run left.

Each function returns a matplotlib figure that belongs to no window, drawn by :mod:`cryoden_core.report`, which is what
the core's own report uses.  Volumes stay on the disk: central slices and a central block are read.
"""

import os
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple

import numpy as np
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, Tomogram, TomoMask

from cryoden_core import report
from cryoden_core.jobs import JobError, read_json
from cryoden_core.metrics import fsc
from cryoden_core.mrc import open_volume
from cryoden_core.progress import read_metrics

from ..clean_domain import class_names
from ..convert import ItemFolder, clean_path, even_and_odd
from . import truth_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Edge of the central block from which the FSC is computed, voxels.
FSC_BLOCK = 256


def slices(before: Tomogram, after: Tomogram) -> "Figure":
    """Central xy, xz and yz slices before, after and their difference, with one contrast."""
    return report.slices_figure(_volume(before), _volume(after), after.getSamplingRate())


def loss(folder: ItemFolder) -> "Figure":
    """Training losses; the file grows while the training runs."""
    return report.loss_figure(read_metrics(folder.metrics))


def spectra(before: Tomogram, after: Tomogram) -> "Figure":
    """Power spectra of before, after and the difference."""
    return report.spectrum_figure(_volume(before), _volume(after), after.getSamplingRate())


def beside_back_projection(tomogram: Tomogram, folder: ItemFolder) -> "Figure":
    """Central slices of a reconstruction and of the weighted back-projection that its run left."""
    return report.comparison_figure(_with_back_projection(tomogram, folder), tomogram.getSamplingRate())


def side_spectra(tomogram: Tomogram, folder: ItemFolder) -> "Figure":
    """Power in the kx, kz plane of a reconstruction and of the weighted back-projection."""
    return report.side_spectra_figure(_with_back_projection(tomogram, folder))


def side_by_side(tomograms: Dict[str, Tomogram]) -> "Figure":
    """Central slices of tomograms of one size, by name, each with its own contrast."""
    voxel_size = next(iter(tomograms.values())).getSamplingRate()
    return report.comparison_figure({name: _volume(item) for name, item in tomograms.items()}, voxel_size)


def side_spectra_of(tomograms: Dict[str, Tomogram]) -> "Figure":
    """Power in the kx, kz plane of tomograms, by name."""
    return report.side_spectra_figure({name: _volume(item) for name, item in tomograms.items()})


def labelled(tomogram: Tomogram, mask: TomoMask, named_by: str = "") -> "Figure":
    """Central slices of a tomogram, as they are and with the classes of a mask in colour.

    Where the file of the mask says no names, those of the labels ``named_by`` are taken.
    """
    path = clean_path(mask.getFileName())
    return truth_figures.labelled_figure(
        _volume(tomogram), open_volume(path), class_names(path) or class_names(named_by), tomogram.getSamplingRate()
    )


def picks(tomogram: Tomogram, coordinates: Sequence[Coordinate3D], diameter: float) -> "Figure":
    """A slab of a tomogram with the picks in it; ``diameter`` of the particles in angstrom."""
    for coordinate in coordinates:
        coordinate.setVolume(tomogram)
    positions = np.array([coordinate.getPosition(BOTTOM_LEFT_CORNER) for coordinate in coordinates], float)
    return truth_figures.picks_figure(_volume(tomogram), positions.reshape(-1, 3), diameter, tomogram.getSamplingRate())


def picture(path: str) -> "Figure":
    """A picture that a run wrote.

    Raises
    ------
    JobError
        When it is not there yet.
    """
    if not os.path.exists(path):
        raise JobError("There is no picture yet; the first one comes after a while of training.")
    from matplotlib.image import imread

    pixels = imread(path)
    height, width = pixels.shape[:2]
    figure = report.new_figure(width / 100.0, height / 100.0)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(pixels)
    axis.set_axis_off()
    return figure


def residuals(folder: ItemFolder) -> Optional["Figure"]:
    """Residual of each image against its tilt, or None before the run has ended."""
    result = read_json(folder.result)
    if not result.get("residual_per_view"):
        return None
    angles, values = np.array(result["tilt_angles"]), np.array(result["residual_per_view"])
    return report.residuals_figure({"relative residual": (angles, values)})


def _with_back_projection(tomogram: Tomogram, folder: ItemFolder) -> Dict[str, np.ndarray]:
    volumes = {"coordinate network": _volume(tomogram)}
    if os.path.exists(folder.comparison):
        volumes["weighted back-projection"] = open_volume(folder.comparison)
    return volumes


def half_map_fsc(before: Optional[Tomogram], after: Tomogram) -> Optional["Figure"]:
    """Fourier shell correlation of the halves before and after, or None when there are no halves."""
    tomograms = {"before": before, "after": after} if before is not None else {"halves": after}
    curves = {name: _half_curve(tomogram) for name, tomogram in tomograms.items()}
    found = {name: curve for name, curve in curves.items() if curve is not None}
    return report.fsc_figure(found, after.getSamplingRate()) if found else None


def noise_report_text(content: Dict[str, Any]) -> str:
    """The checks of the noise model, as ``noise_report.json`` holds them, in words."""
    if not content:
        return "This run has no noise report: a model was applied that had been trained before."
    verdict = "passed" if content.get("passed") else "did NOT pass"
    lines = ["The noise model %s its checks.  Noise measured from: %s." % (verdict, content.get("source", "?")), ""]
    lines.append("%-6s %-34s %10s   %s" % ("", "check", "value", "allowed"))
    for check in content.get("checks", []):
        lines.append(
            "%-6s %-34s %10.4g   %.4g to %.4g"
            % (
                "ok" if check["passed"] else "FAILED",
                check["name"].replace("_", " "),
                _number(check["value"]),
                check["low"],
                check["high"],
            )
        )
        lines.append("%-6s %s" % ("", check.get("meaning", "")))
    return "\n".join(lines)


def _number(value: Optional[float]) -> float:
    return float("nan") if value is None else value


def _volume(tomogram: Tomogram) -> np.ndarray:
    return open_volume(clean_path(tomogram.getFileName()))


def _half_curve(tomogram: Tomogram) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    halves = even_and_odd(tomogram)
    if halves is None:
        return None
    even, odd = (report.central_block(open_volume(path), FSC_BLOCK) for path in halves)
    return fsc(even, odd)

"""The pictures of a training of DUAL, from the values that it logged: its losses by kind, and the checks of its health.

Each function returns a matplotlib figure that belongs to no window.
"""

from typing import TYPE_CHECKING, Any, Dict, List, Tuple

import numpy as np

from cryoden_core import report
from cryoden_core.dual.limits import ALARMS
from cryoden_core.jobs import JobError
from cryoden_core.progress import read_metrics

from ..convert import ItemFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Panels of the losses: title, and columns with the names of their curves.
LOSSES = (
    ("Cycles: should fall",
     {"noisy_cycle_loss": "noisy, denoised, noisy again", "clean_cycle_loss": "clean, simulated, clean again"}),
    ("Critics: go up and down",
     {"critic_noisy_spatial_loss": "tomograms", "critic_noisy_spectral_loss": "spectra of tomograms",
      "critic_clean_spatial_loss": "clean volumes", "critic_clean_spectral_loss": "spectra of clean volumes"}),
    ("Generators against the critics",
     {"generator_noisy_spatial_loss": "simulations", "generator_noisy_spectral_loss": "spectra of simulations",
      "generator_clean_spatial_loss": "denoised", "generator_clean_spectral_loss": "spectra of denoised"}),
)  # fmt: skip
#: A panel of the checks beside those that have limits.
WEDGES = ("power in the missing wedge",
          {"check_wedge": "simulated", "check_wedge_real": "tomograms", "check_wedge_clean": "clean"})  # fmt: skip
#: The same for a tomogram of known truth.
TRUTH = ("correlation with the known truth", {"check_r_noisy": "tomogram", "check_r_denoised": "denoised"})

_COLUMNS = 3


def losses(folder: ItemFolder) -> "Figure":
    """Losses over the steps: the two cycles, the critics, and the generators against them.

    Raises
    ------
    JobError
        Before the first values are logged.
    """
    metrics = read_metrics(folder.metrics)
    if not _known(metrics, "noisy_cycle_loss"):
        raise JobError("Nothing was logged yet; the first values come after some steps.")
    figure = report.new_figure(12.0, 4.0)
    for axis, (title, curves) in zip(figure.subplots(1, len(LOSSES)), LOSSES):
        _draw(axis, title, metrics, curves)
        axis.set_xlabel("step")
    return figure


def checks(folder: ItemFolder) -> "Figure":
    """The figures that watch over a training, over its steps, each with the limit of its alarm.

    Raises
    ------
    JobError
        Before the first check.
    """
    metrics = read_metrics(folder.metrics)
    alarms = [alarm for alarm in ALARMS if _known(metrics, "check_" + alarm.figure)]
    if not alarms:
        raise JobError("There was no check yet; the first one comes after a tenth of the training.")
    others = [panel for panel in (WEDGES, TRUTH) if any(_known(metrics, name) for name in panel[1])]
    rows = -(-(len(alarms) + len(others)) // _COLUMNS)
    figure = report.new_figure(3.8 * _COLUMNS, 2.3 * rows)
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for alarm in alarms:
        axis = axes.pop(0)
        _draw(axis, alarm.title, metrics, {"check_" + alarm.figure: ""}, marker="o", markersize=3)
        _shade(axis, alarm.sign, alarm.limit)
    for title, curves in others:
        _draw(axes.pop(0), title, metrics, curves, marker="o", markersize=3)
    for axis in axes:
        axis.set_axis_off()
    return figure


def _draw(axis: Any, title: str, metrics: Dict[str, List[float]], curves: Dict[str, str], **style: Any) -> None:
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    for column, name in curves.items():
        for steps, values in _known(metrics, column):
            axis.plot(steps, values, label=name, **style)
    if any(curves.values()):
        axis.legend(fontsize=7, frameon=False)


def _shade(axis: Any, sign: int, limit: float) -> None:
    """Say the limit, and colour what lies beyond it where the curve comes near; far limits would flatten the curve."""
    axis.set_title("%s\n(alarm %s %g)" % (axis.get_title(), "above" if sign > 0 else "below", limit), fontsize=9)
    low, high = axis.get_ylim()
    reach = 0.5 * (high - low)
    if low - reach < limit < high + reach:
        low, high = min(low, limit), max(high, limit)
        beyond = (limit, high + reach / 5) if sign > 0 else (low - reach / 5, limit)
        axis.set_ylim(min(low, beyond[0]), max(high, beyond[1]))
        axis.axhspan(*beyond, color="tab:red", alpha=0.25, linewidth=0)


def _known(metrics: Dict[str, List[float]], column: str) -> List[Tuple[np.ndarray, np.ndarray]]:
    """Steps and values where a column has any, as a list of one pair or none."""
    if column not in metrics:
        return []
    steps, values = np.array(metrics["step"]), np.array(metrics[column])
    known = np.isfinite(values)
    return [(steps[known], values[known])] if known.any() else []

"""Run reconstructions as a user does, with their time and memory, and score them against a known truth.

Each run is a process of its own, ``python -m cryoden_core``, so that its seconds hold starting, reading and writing,
and its memory is the peak of the whole process as the system counts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from cryoden_core import metrics, mrc
from cryoden_core.fourier import missing_wedge_mask
from cryoden_core.jobs import RunFolder

GIB = 2**30


def run_core(*arguments: object) -> dict[str, float]:
    """Run a command of the core.

    Returns
    -------
    dict
        ``seconds`` of the process and ``gibibytes`` of memory at its peak.
    """
    command = [sys.executable, "-m", "cryoden_core", *map(str, arguments)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed with status {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    return {"seconds": round(time.monotonic() - start, 1), "gibibytes": round(usage.ru_maxrss * 1024 / GIB, 2)}


def reconstruct(method: str, stack: str, output: str, options: dict[str, Any], redo: bool = False) -> dict[str, Any]:
    """Reconstruct a stack with the angles that lie beside it; a result that is there is used again.

    Parameters
    ----------
    method
        wbp, sirt or mlp.
    stack
        ``NAME.mrc`` with ``NAME.tlt``.
    options
        Parameters of the job.

    Returns
    -------
    dict
        Seconds, memory and what the run wrote into its ``result.json``.
    """
    kept = os.path.splitext(output)[0] + ".cost.json"
    if redo or not (os.path.exists(kept) and os.path.exists(output)):
        arguments = [method, stack, "-o", output, "--tilt-angles", os.path.splitext(stack)[0] + ".tlt"]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                arguments += [flag, str(value)]
        print("running: " + " ".join(arguments), flush=True)
        cost = run_core(*arguments)
        with open(kept, "w", encoding="utf-8") as stream:
            json.dump(cost, stream)
    with open(kept, encoding="utf-8") as stream:
        cost = json.load(stream)
    with open(RunFolder.beside(output).result, encoding="utf-8") as stream:
        return {**json.load(stream), **cost}


def write_series(path: str, views: np.ndarray, angles: np.ndarray, voxel_size: float) -> None:
    """Write ``views`` (views, y, x) and, beside them, their angles."""
    mrc.write_volume(path, views, voxel_size)
    with open(os.path.splitext(path)[0] + ".tlt", "w", encoding="ascii") as stream:
        stream.writelines(f"{angle:.3f}\n" for angle in angles)


def score(volume: np.ndarray, truth: np.ndarray, tilt_limit_degrees: float) -> dict[str, float]:
    """Figures of merit of a reconstruction (z, y, x) after the best gain and offset.

    Returns
    -------
    dict
        ``psnr`` (dB, range of the truth), ``ssim`` and ``vif`` (mean over the xz slices), ``frc`` and ``fsc``
        (frequency of 0.5, cycles per voxel; FRC of the xz slices), ``wedge`` (correlation with the truth in the
        directions that no view measured), ``correlation``, and ``psnr_spread`` (standard deviation over the xz slices).
    """
    gain, offset = metrics.affine_fit(volume, truth)
    fitted = np.float32(gain) * volume + np.float32(offset)
    span = float(truth.max() - truth.min())
    slices = [(fitted[:, y], truth[:, y]) for y in range(truth.shape[1])]
    per_slice = [metrics.psnr(test, true, span) for test, true in slices]
    return {
        "psnr": metrics.psnr(fitted, truth),
        "ssim": float(np.mean([slice_ssim(test, true, span) for test, true in slices])),
        "vif": metrics.vif(np.moveaxis(fitted, 1, 0), np.moveaxis(truth, 1, 0)),
        "frc": metrics.frequency_at(*metrics.frc(volume, truth, axis=1), 0.5),
        "fsc": metrics.frequency_at(*metrics.fsc(volume, truth), 0.5),
        "wedge": wedge_correlation(volume, truth, tilt_limit_degrees),
        "correlation": metrics.correlation(volume, truth),
        "psnr_spread": float(np.std(per_slice)),
    }


def slice_ssim(test: np.ndarray, truth: np.ndarray, data_range: float) -> float:
    """Structural similarity of one slice with scikit-image's default window of 7 pixels."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(test, truth, data_range=data_range))


def wedge_correlation(volume: np.ndarray, truth: np.ndarray, tilt_limit_degrees: float) -> float:
    """Correlation of two volumes (z, y, x) over the Fourier coefficients of the missing wedge."""
    missing = ~missing_wedge_mask(truth.shape, -tilt_limit_degrees, tilt_limit_degrees)
    return metrics.fourier_correlation(volume, truth, missing)


def table(columns: dict[str, str], rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: ``columns`` maps keys to headings with a format, as in ``PSNR (dB)|.2f``."""
    titles = [heading.split("|") for heading in columns.values()]
    lines = ["| method | " + " | ".join(title for title, _ in titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            "" if row.get(key) is None else format(row[key], form)
            for key, (_, form) in zip(columns, titles, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

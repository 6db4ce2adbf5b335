"""Seconds and memory of a training step of DUAL for each preset, and the share of the device's convolution rate.

``python benchmarks/dual_cost.py --presets fast robust paper --paper-batch 20``.  Each preset is timed in a process of
its own, on noise in place of both domains.  The rate is that of a single convolution (see ``nmsg_speed.py``);
operations are counted by torch (two for a multiplication with addition) over a whole step: both cycles, critics and
generators, forward and backward, without the penalty on critics that ``robust`` has in one step of 16.  A step of
``paper`` costs in proportion to its 64 crops, of which ``--paper-batch`` are timed where memory does not hold them all.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
from typing import Any

import numpy as np
import torch
from nmsg_speed import convolution_rate, flops_of, timed, trainer_of

from cryoden_core.dual.crops import CropSource, wedge_preserving_symmetries
from cryoden_core.dual.domains import DomainVolume, Scale
from cryoden_core.dual.presets import PRESETS
from cryoden_core.dual.task import DualTask

TILTS = (-60.0, 60.0)


def domain(seed: int) -> CropSource:
    """White noise as a volume of 64 x 128 x 128 voxels."""
    data = np.random.default_rng(seed).standard_normal((64, 128, 128), dtype=np.float32)
    volume = DomainVolume("noise", data, Scale(0.0, 1.0, 1), 10.0, 10.0, data.shape, (0.0, 0.0, 0.0))
    return CropSource([volume], wedge_preserving_symmetries(*TILTS))


def cost(name: str, batch: int, steps: int, threads: int) -> dict[str, Any]:
    """Figures of one preset; ``batch`` crops a step, 0 for the preset's."""
    if threads:
        torch.set_num_threads(threads)
    device, preset = torch.device("cuda" if torch.cuda.is_available() else "cpu"), PRESETS[name]
    if batch:
        preset = dataclasses.replace(preset, batch=batch)
    rate = convolution_rate(device)
    task = DualTask(domain(1), domain(2), preset, TILTS, device, 1)
    trainer = trainer_of(task, device, preset.precision)
    seconds = timed(lambda: task.step(1, trainer), device, steps)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    operations = flops_of(lambda: task.step(1, trainer))
    return {
        "device": str(device), "batch": preset.batch, "patch": preset.patch, "seconds": seconds, "peak": peak,
        "operations": operations, "share": operations / seconds / rate,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["fast", "robust"])
    parser.add_argument("--paper-batch", type=int, default=0, help="crops a step of paper; 0 takes all 64")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one that is not")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 takes torch's number")
    options = parser.parse_args()
    print("| preset | device | crops a step | seconds a step | GFLOP a step | of the convolution rate | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for name in options.presets:
        batch = options.paper_batch if name == "paper" else 0
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(cost, (name, batch, options.steps, options.threads))
        print(
            f"| {name} | {found['device']} | {found['batch']} x {found['patch']}^3 | {found['seconds']:.3g} | "
            f"{found['operations'] / 1e9:.4g} | {found['share']:.2f} | {found['peak'] / 2**30:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Time weighted back-projection of 512 x 512 x 128 voxels from 61 views against IMOD's ``tilt`` on one core.

IMOD 4.8 needs 1.3 s for this size on one core of the machine where the golden data were made.  Run
``OMP_NUM_THREADS=1 python benchmarks/wbp_speed.py``; the best of the repetitions is printed with its ratio to 1.3 s.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from cryoden_core.tomography.wbp import weighted_back_projection

IMOD_SECONDS = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    projections = np.random.default_rng(1).standard_normal((61, 512, 512), dtype=np.float32)
    angles = np.linspace(-60, 60, 61)
    seconds = []
    for _ in range(arguments.repetitions):
        start, busy = time.perf_counter(), time.process_time()
        weighted_back_projection(projections, angles, thickness=128, device=arguments.device)
        seconds.append((time.perf_counter() - start, time.process_time() - busy))
    wall, busy = min(seconds)
    print(
        f"512 x 512 x 128 from 61 views on {arguments.device}, {arguments.threads} thread(s): "
        f"{wall:.2f} s wall, {busy:.2f} s of processor time, {wall / IMOD_SECONDS:.2f} of IMOD's {IMOD_SECONDS} s"
    )


if __name__ == "__main__":
    main()

"""Peak host memory while NMSG denoises a volume that is larger than the memory it may use.

A volume of noise is written to the disk by slabs, a small network is trained for a few steps on a crop, and a second
process applies it to the volume with its data segment limited (RLIMIT_DATA: all anonymous writable memory, as by
``ulimit -d``).  A thread of that process samples its anonymous resident memory (RssAnon of /proc/self/status) and notes
the peak of each stage, reading checks and report included.  Pages of the memory-mapped files do not count: the kernel
takes them back when it needs them.  The limit is on what is reserved, so the peak that is used lies below it.

The default, 1.1 GiB under a limit of 1 GiB with 8 features in place of 16, takes minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import threading
import time

GIB = 2**30


class Sampler(threading.Thread):
    """Peak anonymous resident memory (bytes) and seconds of each stage of this process."""

    def __init__(self, interval: float = 0.02) -> None:
        super().__init__(daemon=True)
        self.interval, self.stage = interval, "importing"
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        before = time.monotonic()
        while True:
            now, stage = time.monotonic(), self.stage
            self.peaks[stage] = max(self.peaks.get(stage, 0), status_bytes("RssAnon"))
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - before
            before = now
            time.sleep(self.interval)


def status_bytes(name: str) -> int:
    """One figure of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as stream:
        for line in stream:
            if line.startswith(name + ":"):
                return 1024 * int(line.split()[1])
    raise KeyError(name)


def write_noise(path: str, shape: tuple[int, int, int]) -> None:
    """A volume of white noise, written slice by slice."""
    import numpy as np

    from cryoden_core import mrc

    rng = np.random.default_rng(1)
    with mrc.create_volume(path, shape, 10.0) as target:
        for index in range(shape[0]):
            target[index] = rng.standard_normal(shape[1:], dtype=np.float32)


def train_model(path: str, features: int, steps: int) -> None:
    """A network of the fast preset with other features, trained on a crop of noise, as a model file."""
    import torch
    from nmsg_speed import noise_volume, trainer_of

    from cryoden_core.models import save_model
    from cryoden_core.nmsg.denoiser import RecorruptedTask
    from cryoden_core.nmsg.presets import PRESETS

    preset = dataclasses.replace(PRESETS["fast"], features=features, flips=1)
    device = torch.device("cpu")
    task = RecorruptedTask([noise_volume((64, 64, 64))], preset, device, 1)
    trainer = trainer_of(task, device, True)
    for step in range(steps):
        task.step(step, trainer)
    about = {
        "system": "nmsg", "preset": dataclasses.asdict(preset), "architecture": task.network.architecture,
        "voxel_size": 10.0, "trained_on": ["noise"], "steps": steps,
    }  # fmt: skip
    save_model(path, task.network.state_dict(), about)


def denoise_within(limit: int, folder: str, threads: int, tile: int) -> None:
    """What the limited process does; it prints its figures as JSON on its last line."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sampler = Sampler()
    sampler.start()
    from cryoden_core.jobs import NmsgJob, RunFolder
    from cryoden_core.nmsg.denoise import denoise
    from cryoden_core.progress import Progress

    class Staged(Progress):
        def stage(self, name: str, total: int = 0, first: int = 0) -> None:
            sampler.stage = name
            super().stage(name, total, first)

    output = os.path.join(folder, "denoised.mrc")
    job = NmsgJob.from_parameters({
        "input": os.path.join(folder, "noise.mrc"), "output": output,
        "model": os.path.join(folder, "model.safetensors"), "device": "cpu", "threads": threads, "tile": tile,
    })  # fmt: skip
    result = denoise(job, Staged(RunFolder.beside(output)))  # type: ignore[arg-type]
    time.sleep(2 * sampler.interval)
    figures = {"peaks": sampler.peaks, "seconds": sampler.seconds, "warnings": result["warnings"],
               "reserved": status_bytes("VmData")}  # fmt: skip
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for the volumes, on a disk with room for twice the volume")
    parser.add_argument("--limit", type=float, default=1.0, help="memory limit (GiB)")
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 3072, 3072], metavar=("Z", "Y", "X"))
    parser.add_argument("--features", type=int, default=8, help="width of the network; the presets have 16 and 32")
    parser.add_argument("--steps", type=int, default=10, help="training steps")
    parser.add_argument("--tile", type=int, default=0, help="edge of the tiles; 0 lets NMSG choose")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limited", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = int(options.limit * GIB)
    if options.limited:
        denoise_within(limit, options.out, options.threads, options.tile)
        return
    os.makedirs(options.out, exist_ok=True)
    write_noise(os.path.join(options.out, "noise.mrc"), tuple(options.shape))
    train_model(os.path.join(options.out, "model.safetensors"), options.features, options.steps)
    started = time.monotonic()
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--limited"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the limited process failed with exit code {done.returncode}.")
    report(json.loads(done.stdout.splitlines()[-1]), options, time.monotonic() - started)


def report(figures: dict, options: argparse.Namespace, seconds: float) -> None:
    """Print what was measured."""
    depth, height, width = options.shape
    print(f"Volume {width} x {height} x {depth}, float32: {4 * depth * height * width / GIB:.2f} GiB; "
          f"limit {options.limit:g} GiB; {options.features} features; {seconds:.0f} s.\n")  # fmt: skip
    print("| stage | peak anonymous memory (GiB) | seconds |")
    print("|---|---|---|")
    for stage, peak in figures["peaks"].items():
        print(f"| {stage} | {peak / GIB:.3f} | {figures['seconds'][stage]:.1f} |")
    print(f"| all | {max(figures['peaks'].values()) / GIB:.3f} | {sum(figures['seconds'].values()):.1f} |")
    for warning in figures["warnings"]:
        print(f"warning given: {warning}")


if __name__ == "__main__":
    main()

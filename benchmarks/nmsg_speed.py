"""Seconds per megavoxel of NMSG's training step and inference, what tiling costs, and the share of the device's rate.

That rate is the one of a 3 x 3 x 3 convolution of 32 to 32 channels in the memory layout and number format that NMSG
uses; operations are counted by torch (two for a multiplication with addition).  A training step holds forward and
backward passes, the noise, the losses and the optimiser.  Megavoxels are those of the tomogram; the published recipe
quadruples them by up-sampling, and is timed with the published network on tiles of 64 to stay short.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cryoden_core.device import free_memory, has_bfloat16
from cryoden_core.nmsg import paper
from cryoden_core.nmsg.denoiser import HALO, RecorruptedTask, TrainingVolume, denoise_volume, make_network
from cryoden_core.nmsg.noise_model import NoiseLevel, SpectralNoiseModel
from cryoden_core.nmsg.presets import PRESETS
from cryoden_core.progress import Progress
from cryoden_core.spectrum import NoiseShare, Shape
from cryoden_core.tiling import choose_tile, plan_axis
from cryoden_core.tomogram import Tomogram
from cryoden_core.training import Trainer, TrainingSettings

BLEND = 16


def timed(function: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    seconds = []
    for index in range(repetitions + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if index:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def convolution_rate(device: torch.device, channels: int = 32, edge: int = 64) -> float:
    """Operations a second of one convolution, the yardstick."""
    kind = torch.bfloat16 if has_bfloat16(device) else torch.float32
    layout = torch.channels_last_3d
    data = torch.randn(1, channels, edge, edge, edge, device=device, dtype=kind).to(memory_format=layout)
    weight = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=kind).to(memory_format=layout)
    with torch.no_grad():
        seconds = timed(lambda: torch.nn.functional.conv3d(data, weight, padding=1), device, 10)
    return 2 * 27 * channels**2 * edge**3 / seconds


def noise_volume(shape: Shape) -> TrainingVolume:
    """White noise as a tomogram."""
    data = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    block: Shape = (64, 64, 64)
    share = NoiseShare(torch.ones(64, 64, 33), block, "made", np.zeros((0, 3), int), np.zeros((0, 3), int),
                       np.ones(0), 1.0)  # fmt: skip
    model = SpectralNoiseModel(torch.ones(64, 64, 33), block)
    return TrainingVolume(data, 0.0, 1.0, model, NoiseLevel(share, shape), 1.5)


def trainer_of(task: object, device: torch.device, precision: bool) -> Trainer:
    """A trainer that only lends its surroundings to a task's steps."""
    return Trainer(task, TrainingSettings(1000, precision=precision), device, 1, Progress(quiet=True))  # type: ignore


def flops_of(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def row(name: str, device: torch.device, rate: float, voxels: float, training: float, training_flops: float,
        inference: float, inference_flops: float, flips: int) -> str:  # fmt: skip
    """One line of the table: seconds and operations are those of a step and of a single pass over a megavoxel."""
    return (
        f"| {name} | {device} | {training:.3g} | {1e6 * training / voxels:.3g} | "
        f"{training_flops / training / rate:.2f} | "
        f"{inference:.3g} | {flips} | {flips * inference:.3g} | {inference_flops / inference / rate:.2f} |"
    )


def preset_row(name: str, device: torch.device, rate: float, repetitions: int) -> str:
    """Time one preset."""
    preset = PRESETS[name]
    volume = noise_volume((64, 128, 128))
    task = RecorruptedTask([volume], preset, device, 1)
    trainer = trainer_of(task, device, True)
    training = timed(lambda: task.step(0, trainer), device, repetitions)
    training_flops = flops_of(lambda: task.step(0, trainer))
    output = np.zeros_like(volume.data)
    megavoxels = volume.data.size / 1e6

    def infer() -> None:
        denoise_volume(task.network, volume.data, output, 0.0, 1.0, device=device, tile=128)

    inference = timed(infer, device, max(1, repetitions // 2)) / megavoxels
    return row(name, device, rate, preset.batch * math.prod(task.crop), training, training_flops, inference,
               flops_of(infer) / megavoxels, preset.flips)  # fmt: skip


def paper_row(device: torch.device, rate: float) -> str:
    """Time the published network and step, on small tiles."""
    recipe = paper.PaperRecipe(tile=64, batch=1)
    data = noise_volume((64, 64, 64)).data
    tomogram = Tomogram("noise", data, 10.0, (0.0, 0.0, 0.0), 0.0, 1.0)
    task = paper.PaperTask(tomogram, data, recipe, device, 1)
    trainer = trainer_of(task, device, False)
    training = timed(lambda: task.step(0, trainer), device, 1)
    wide = torch.randn(1, 1, 64, 64, 64, device=device)

    def infer() -> None:
        with torch.no_grad():
            task.network(wide)

    # A pass over 64^3 up-sampled voxels is one over a quarter as many of the tomogram.
    megavoxels = wide.numel() / 4e6
    return row("paper", device, rate, recipe.batch * math.prod(task.crop), training,
               flops_of(lambda: task.step(0, trainer)), timed(infer, device, 1) / megavoxels,
               flops_of(infer) / megavoxels, 1)  # fmt: skip


def computed_share(shape: Shape, tile: Shape, multiple: int) -> float:
    """Voxels computed over voxels of the volume."""
    plans = [plan_axis(size, edge, HALO, BLEND, multiple) for size, edge in zip(shape, tile, strict=True)]
    return math.prod(len(plan.starts) * plan.tile for plan in plans) / math.prod(shape)


def tiling_lines(device: torch.device, shape: Shape, tiles: list[int]) -> list[str]:
    """Time of a volume in tiles against one piece, and what a whole tomogram would cost on this device."""
    preset = PRESETS["default"]
    network = make_network(preset, device)
    data = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    output = np.zeros_like(data)

    def run(tile: int) -> float:
        call = lambda: denoise_volume(network, data, output, 0.0, 1.0, device=device, tile=tile)  # noqa: E731
        if device.type == "cuda":
            return timed(call, device, 3)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    run(max(shape))
    whole = run(max(shape))
    size = " x ".join(str(edge) for edge in reversed(shape))
    lines = [f"Tiling, default preset, one pass over {size}: in one piece {whole:.2f} s."]
    for tile in tiles:
        edges: Shape = tuple(min(tile, edge) for edge in shape)  # type: ignore[assignment]
        share = computed_share(shape, edges, network.multiple)
        lines.append(f"- tiles of {tile}: {run(tile) / whole:.2f} of that time, {share:.2f} of its voxels.")
    large: Shape = (256, 1024, 1024)
    features = preset.features
    chosen = choose_tile(large, 16 * features + 64, device, features, HALO, network.multiple)
    lines.append(
        f"- 1024 x 1024 x 256 with {free_memory(device) / 2**30:.0f} GiB free: tiles of "
        f"{' x '.join(str(edge) for edge in reversed(chosen))}, "
        f"{computed_share(large, chosen, network.multiple):.2f} of the voxels (not timed)."
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="", help="cpu or cuda; empty takes the CPU and the GPU when there is one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--presets", nargs="*", default=[*PRESETS, "paper"], choices=[*PRESETS, "paper"])
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 256, 256], metavar=("Z", "Y", "X"))
    parser.add_argument("--tiles", type=int, nargs="*", default=[128, 160])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in map(torch.device, names):
        kind = "bfloat16" if has_bfloat16(device) else "float32"
        title = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
        rate = convolution_rate(device)
        print(f"\n{title}; convolution 32 -> 32 channels in {kind}: {rate / 1e12:.3g} Tflop/s\n")
        print("| preset | device | training step (s) | training (s/Mvoxel) | of the rate | one pass (s/Mvoxel) | "
              "mirrored copies | inference (s/Mvoxel) | of the rate |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for name in options.presets:
            line = paper_row(device, rate) if name == "paper" else preset_row(name, device, rate, options.repetitions)
            print(line, flush=True)
        if options.tiles:
            print("\n" + "\n".join(tiling_lines(device, tuple(options.shape), options.tiles)), flush=True)


if __name__ == "__main__":
    main()

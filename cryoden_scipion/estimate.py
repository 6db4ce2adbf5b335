"""How long a run will take and how much memory it needs, roughly, before it starts.

Only sizes, the preset and the kind of device are looked at.  The figures are good to a factor of three: enough to
tell minutes from days.
"""

from typing import NamedTuple, Sequence

from cryoden_core.nmsg.presets import PRESETS

#: Steps of the published recipe for a tomogram of usual size; its number of tiles sets them.
PAPER_STEPS = 4000

#: What one step and one application cost relative to 'fast'.
STEP_COST = {"fast": 1.0, "default": 1.0, "best": 2.0, "paper": 100.0}
APPLYING_COST = {"fast": 1.0, "default": 2.0, "best": 8.0, "paper": 60.0}

#: Seconds for a training step of 'fast' and for applying its network to a million voxels.  CPU: measured on two cores
#: (0.2 s when quiet, three times that beside other programs).  GPU: assumed thirty times faster, not measured.
SECONDS_PER_STEP = {"cpu": 0.4, "gpu": 0.4 / 30}
SECONDS_PER_MEGAVOXEL = {"cpu": 3.0, "gpu": 3.0 / 30}

#: Seconds of MLP's 'default' for a million voxels.  CPU: measured on two cores (31 for a volume of 4 million, 50 for
#: one of half a million).  GPU: assumed thirty times faster, not measured.
MLP_SECONDS_PER_MEGAVOXEL = {"cpu": 40.0, "gpu": 40.0 / 30}

#: What MLP's presets cost relative to 'default': networks of sines take nine times as long for as many passes.
MLP_COST = {"fast": 0.5, "default": 1.0, "best": 9.0, "paper": 9.0}

#: Runs that take longer, or more memory, than this are announced before they start.
LONG_SECONDS = 600
LARGE_GIGABYTES = 8

#: Memory of the program with a training step, and bytes per voxel of the volumes that are open at once.
BASE_GIGABYTES = 2.0
BYTES_PER_VOXEL = 12.0


class Estimate(NamedTuple):
    """Duration of the whole run and memory of one job."""

    seconds: float
    gigabytes: float


def estimate_nmsg(
    voxels: Sequence[int], preset: str, steps: int, trainings: int, on_gpu: bool, concurrent: int, volumes: int
) -> Estimate:
    """What NMSG will cost.

    Parameters
    ----------
    voxels
        Number of voxels of each tomogram.
    preset, steps
        As in the job; 0 steps are those of the preset.
    trainings
        How many networks are trained.
    on_gpu
        Whether it runs on a GPU.
    concurrent
        How many tomograms are processed at the same time.
    volumes
        How many volumes are denoised for each tomogram: 1, or 3 with both halves.
    """
    device = "gpu" if on_gpu else "cpu"
    training = (steps or _steps(preset)) * STEP_COST[preset] * SECONDS_PER_STEP[device] * trainings
    applying = sum(voxels) / 1e6 * APPLYING_COST[preset] * SECONDS_PER_MEGAVOXEL[device] * volumes
    # On a CPU the jobs that run at the same time share its cores.
    shared = concurrent if on_gpu else 1
    memory = BASE_GIGABYTES + max(voxels, default=0) * BYTES_PER_VOXEL / 1e9
    return Estimate((training + applying) / max(1, shared), memory)


def estimate_mlp(voxels: Sequence[int], preset: str, networks: int, on_gpu: bool, concurrent: int) -> float:
    """Seconds that MLP will take for tomograms of so many voxels each.

    Parameters
    ----------
    voxels
        Number of voxels of each tomogram, after binning.
    preset
        As in the job.
    networks
        How many are fitted for each tomogram: those of an ensemble, for the whole and for each half.
    on_gpu, concurrent
        As in :func:`estimate_nmsg`.
    """
    device = "gpu" if on_gpu else "cpu"
    seconds = sum(voxels) / 1e6 * MLP_SECONDS_PER_MEGAVOXEL[device] * MLP_COST[preset] * networks
    return seconds / (max(1, concurrent) if on_gpu else 1)


def _steps(preset: str) -> int:
    return PRESETS[preset].steps if preset in PRESETS else PAPER_STEPS

"""Where to compute: the device, its number formats and its free memory."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator

import psutil
import torch

from .jobs import ComputeJob, DeviceError


def resolve_device(job: ComputeJob, warn: Callable[[str], None]) -> torch.device:
    """The device a job asks for, with the number of CPU threads set.

    Several processes that ``torchrun`` started on one computer take one GPU each and share the CPU's cores.

    Raises
    ------
    DeviceError
        A GPU was asked for and is absent, and the job does not allow the CPU instead.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(job.threads or max(1, len(os.sched_getaffinity(0)) // beside))
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if job.device == "cpu" or (job.device == "auto" and not available):
        return torch.device("cpu")
    index = int(job.device[5:] if job.device.startswith("cuda:") else os.environ.get("LOCAL_RANK", "0"))
    if index < available:
        torch.cuda.set_device(index)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        return torch.device("cuda", index)
    found = f"{available} GPU{'s' if available != 1 else ''} can be used by torch {torch.__version__}"
    asked = f"the GPU {job.device} was asked for"
    if beside > 1:
        asked += f" by process {index + 1} of {beside}"
    if job.cpu_fallback:
        warn(f"{asked} but {found}; computing on the CPU instead.")
        return torch.device("cpu")
    raise DeviceError(f"{asked} but {found}; use --device cpu, or allow the CPU with --cpu-fallback.")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def mixed_precision(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Convolutions in bfloat16 where the device has it, everything in float32 elsewhere."""
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device)):
        yield


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated now; the memory limit of a container, batch job or ``ulimit`` counts."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    used = psutil.Process().memory_info()
    # Pages of memory-mapped files count in none of these: the system takes them back when it needs them.
    candidates = [psutil.virtual_memory().available]
    limit = memory_limit()
    if limit is not None:
        candidates.append(limit - (used.rss - used.shared))
    for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            candidates.append(soft - taken)
    return max(0, min(candidates))


def memory_limit() -> int | None:
    """The smallest memory limit set on this process by a control group (Slurm, containers), in bytes, or None."""
    limits = []
    for path in _limit_files():
        try:
            with open(path, encoding="ascii") as stream:
                text = stream.read().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits) if limits else None


def _limit_files() -> list[str]:
    files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="ascii") as stream:
        for line in stream:
            number, controllers, path = line.strip().split(":", 2)
            while path and path != "/":
                if number == "0":
                    files.append(f"/sys/fs/cgroup{path}/memory.max")
                elif "memory" in controllers:
                    files.append(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
                path = os.path.dirname(path)
    return files


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory")
    )

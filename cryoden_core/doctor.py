"""What ``cryoden doctor`` shows."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

import psutil
import torch

from . import __version__
from .device import free_memory, has_bfloat16, memory_limit


def examine() -> list[tuple[str, str]]:
    """Pairs of a name and what was found."""
    cpu = torch.device("cpu")
    limit = memory_limit()
    found = [
        ("CryoDen", __version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("torch", torch.__version__),
        ("CUDA of torch", torch.version.cuda or "none: this torch was built for the CPU"),
        ("NVIDIA driver", _driver()),
        ("CPU cores", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"),
        ("CPU bfloat16", _yes(has_bfloat16(cpu))),
        ("memory", f"{_gigabytes(free_memory(cpu))} free of {_gigabytes(psutil.virtual_memory().total)}"),
        ("memory limit", _gigabytes(limit) if limit else "none"),
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        about = torch.cuda.get_device_properties(device)
        found.append(
            (
                f"cuda:{index}",
                f"{about.name}, {_gigabytes(free_memory(device))} free of {_gigabytes(about.total_memory)}, bfloat16 "
                + _yes(has_bfloat16(device)),
            )
        )
    if not torch.cuda.is_available():
        found.append(("GPU", "none can be used; --device auto computes on the CPU"))
    found.append(("disk", f"{_gigabytes(shutil.disk_usage(os.getcwd()).free)} free in this folder"))
    found.append(("Scipion", _scipion() or "not in this Python, where only the plugin needs it"))
    return found


def _scipion() -> str:
    """The packages of Scipion that this interpreter has, with their versions."""
    present = []
    for name in ("scipion-app", "scipion-pyworkflow", "scipion-em", "scipion-em-tomo"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            present.append(f"{name} {metadata.version(name)}")
    return ", ".join(present)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "nvidia-smi not found"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = ""
    # A GPU in trouble lets nvidia-smi hang, which is when people ask the doctor.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    return answer.splitlines()[0] if answer else "nvidia-smi gives no answer"

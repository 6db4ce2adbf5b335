"""Device: what a job gets when it asks, memory limits, out-of-memory errors."""

import os
import resource
import subprocess
from importlib import metadata

import psutil
import pytest
import torch

from cryoden_core import device, doctor
from cryoden_core.device import free_memory, is_out_of_memory, memory_limit, mixed_precision, resolve_device
from cryoden_core.jobs import DeviceError, NmsgJob


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def job(**changes) -> NmsgJob:
    return NmsgJob(input="a.mrc", output="b.mrc", **changes)


def test_auto_is_the_cpu_without_a_gpu(no_gpu):
    said = []
    assert resolve_device(job(), said.append) == torch.device("cpu")
    assert said == []


def test_the_asked_number_of_threads_is_set(no_gpu):
    resolve_device(job(device="cpu", threads=3), print)
    assert torch.get_num_threads() == 3
    resolve_device(job(device="cpu"), print)
    assert torch.get_num_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:7"])
def test_an_absent_gpu_is_refused_with_the_way_out(no_gpu, asked):
    with pytest.raises(DeviceError) as error:
        resolve_device(job(device=asked), print)
    assert asked in str(error.value) and "--cpu-fallback" in str(error.value)


def test_the_cpu_is_taken_instead_only_when_allowed_and_it_is_said(no_gpu):
    said = []
    assert resolve_device(job(device="cuda", cpu_fallback=True), said.append).type == "cpu"
    assert len(said) == 1 and "on the CPU instead" in said[0]


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert resolve_device(job(device="cuda:1"), print) == torch.device("cuda", 1)
    assert chosen == [1]
    with pytest.raises(DeviceError, match="2 GPUs can be used"):
        resolve_device(job(device="cuda:2"), print)


def test_processes_of_torchrun_take_a_gpu_each_and_share_the_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    for asked in ("auto", "cuda"):
        assert resolve_device(job(device=asked), print) == torch.device("cuda", 1)
    assert torch.get_num_threads() == 4
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="by process 3 of 3 but 2 GPUs can be used"):
        resolve_device(job(device="auto"), print)


def test_mixed_precision_follows_the_hardware(monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda _: True)
    layer, data = torch.nn.Linear(4, 4), torch.zeros(2, 4)
    with mixed_precision(torch.device("cpu")):
        assert layer(data).dtype == torch.bfloat16
    with mixed_precision(torch.device("cpu"), enabled=False):
        assert layer(data).dtype == torch.float32
    monkeypatch.setattr(device, "has_bfloat16", lambda _: False)
    with mixed_precision(torch.device("cpu")):
        assert layer(data).dtype == torch.float32


def test_the_limit_of_a_control_group_bounds_the_free_memory(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    limit.write_text(f"{2**33}\n")
    monkeypatch.setattr(device, "_limit_files", lambda: [str(limit), str(tmp_path / "none")])
    assert memory_limit() == 2**33
    assert free_memory(torch.device("cpu")) < 2**33
    limit.write_text("1000\n")
    assert free_memory(torch.device("cpu")) == 0
    for unlimited in ("max\n", f"{2**63 - 4096}\n"):
        limit.write_text(unlimited)
        assert memory_limit() is None


def test_a_limit_on_data_bounds_the_free_memory_and_mapped_files_do_not_count(monkeypatch):
    used = psutil.Process().memory_info().data
    limits = {resource.RLIMIT_DATA: (used + 2**30, -1), resource.RLIMIT_AS: (resource.RLIM_INFINITY, -1)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert 0.9 * 2**30 < free_memory(torch.device("cpu")) < 1.1 * 2**30


def test_lack_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_doctor_names_what_it_finds(no_gpu, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    found = dict(doctor.examine())
    assert found["torch"] == torch.__version__
    assert found["GPU"].startswith("none can be used")
    assert found["NVIDIA driver"] == "nvidia-smi not found"
    assert "GiB free of" in found["memory"]
    assert f"scipion-em {metadata.version('scipion-em')}" in found["Scipion"]


def test_a_driver_that_hangs_does_not_take_the_doctor_with_it(no_gpu, monkeypatch):
    def hangs(command, **about):
        raise subprocess.TimeoutExpired(command, about["timeout"])

    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    monkeypatch.setattr(doctor.subprocess, "run", hangs)
    assert dict(doctor.examine())["NVIDIA driver"] == "nvidia-smi gives no answer"

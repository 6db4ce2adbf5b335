"""A stand-in for the core, for tests of what the plugin does around it.

It is given to the plugin as ``CRYODEN_PYTHON`` and takes the core's command line.  Instead of denoising it blurs a
little; instead of a GPU it only notes which one it was told to use.  What else it does is set by environment
variables, so that a test can make it slow, be interrupted, be killed or miss its device:

``CRYODEN_STANDIN_LOG``
    file that gets one JSON line for each run: system, input, device, resume, start and end (seconds).
``CRYODEN_STANDIN_SECONDS``
    how long a run takes.
``CRYODEN_STANDIN_FIRST``
    what happens at the first run of each job: ``interrupted`` (leaves a checkpoint), ``killed``, ``killed-late`` (the
    same with a checkpoint), ``no-device``.
"""

import json
import os
import signal
import stat
import struct
import sys
import time

import mrcfile
import numpy as np

from cryoden_core.jobs import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_NO_DEVICE, RunFolder, read_job, write_json
from cryoden_core.progress import DONE, FAILED, INTERRUPTED, Progress


def install(folder: str) -> str:
    """Write an executable that behaves as an interpreter with the core; returns its name."""
    path = os.path.join(folder, "standin_python")
    with open(path, "w", encoding="utf-8") as script:
        script.write('#!/bin/sh\nexec "%s" -m cryoden_scipion.tests.standin_core "$@"\n' % sys.executable)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


def read_log(path: str) -> list:
    """The runs, in the order in which they ended."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def blur(source: str, target: str, voxel_size: float) -> None:
    """Write the mean of each voxel and its neighbours in y and x."""
    with mrcfile.open(source, permissive=True) as volume:
        data = np.asarray(volume.data, np.float32)
    if not np.isfinite(data).all() or data.std() == 0:
        raise ValueError("the tomogram %s holds no image." % os.path.basename(source))
    smooth = sum(np.roll(data, shift, axis) for axis in (1, 2) for shift in (-1, 0, 1)) / 6
    with mrcfile.new(target, overwrite=True) as volume:
        volume.set_data(smooth.astype(np.float32))
        volume.set_volume()
        volume.voxel_size = voxel_size


def write_model(path: str, about: dict) -> str:
    """Write a safetensors file that holds no weights and says ``about`` of itself; returns its name."""
    header = json.dumps({"__metadata__": {"cryoden": json.dumps(about)}}).encode("utf-8")
    with open(path, "wb") as model:
        model.write(struct.pack("<Q", len(header)) + header)
    return path


def misbehave(folder: RunFolder, progress: Progress) -> None:
    """Do what the test asked for, at the first run of a job only."""
    manner = os.environ.get("CRYODEN_STANDIN_FIRST")
    marker = os.path.join(folder.path, "first_run_over")
    if not manner or os.path.exists(marker):
        return
    open(marker, "w").close()
    if manner == "interrupted":
        open(folder.checkpoint, "w").close()
        progress.finish(INTERRUPTED, "SIGTERM was received.")
        sys.exit(EXIT_INTERRUPTED)
    if manner == "no-device":
        progress.finish(FAILED, "There is no GPU here.")
        sys.exit(EXIT_NO_DEVICE)
    if manner == "killed-late":
        open(folder.checkpoint, "w").close()
    if manner.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Behave as ``python -m cryoden_core run JOB.json --device DEVICE [--resume]``."""
    arguments = sys.argv[sys.argv.index("run") + 1 :]
    job = read_job(arguments[0])
    folder = RunFolder(job.run_folder)
    start = time.time()
    progress = Progress(folder, quiet=True)
    progress.stage("training", 4)
    misbehave(folder, progress)
    time.sleep(float(os.environ.get("CRYODEN_STANDIN_SECONDS", "0")))
    pairs = []
    if job.system == "nmsg":
        pairs = [(job.input, job.output), (job.even, job.output_even), (job.odd, job.output_odd)]
    if job.system == "dual denoise":
        pairs = [(job.input, job.output), (job.even, job.output_even), (job.odd, job.output_odd)]
        pairs.append((job.input, job.uncertainty))
    if job.system == "dual simulate":
        pairs = [(job.input, path) for path in job.outputs()]
    if job.system in ("dual convert", "dual wedge"):
        pairs = [(job.input, job.output)]
    if job.system == "mlp":
        pairs = [(job.input, path) for path in (job.output, *job.half_outputs())]
    try:
        for source, target in pairs:
            if target:
                blur(source, target, job.voxel_size)
    except ValueError as error:
        progress.finish(FAILED, str(error))
        sys.exit(EXIT_BAD_INPUT)
    if job.system == "dual train":
        contrast = {"noisy": job.contrast, "clean": job.clean_contrast}
        write_model(folder.model, {"system": "dual", "voxel_size": job.voxel_size, "contrast": contrast})
    else:
        with open(folder.model, "w", encoding="utf-8") as model:
            model.write("stand-in")
    progress.finish(DONE)
    write_json({"output": job.output, "seconds": time.time() - start, "warnings": []}, folder.result)
    log = os.environ.get("CRYODEN_STANDIN_LOG")
    if log:
        line = {
            "system": job.system,
            "input": getattr(job, "input", ""),
            "device": arguments[arguments.index("--device") + 1],
            "resume": "--resume" in arguments,
            "start": start,
            "end": time.time(),
        }
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

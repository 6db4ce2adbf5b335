"""Run a job: the one entry that the command line, the Scipion plugin and Python scripts share.

>>> from cryoden_core.api import nmsg
>>> nmsg("tomogram.mrc", "denoised.mrc", preset="fast")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from .jobs import (
    CleanDomainJob,
    DualTrainJob,
    EvaluateHallucinationJob,
    EvaluateJob,
    EvaluatePickingJob,
    EvaluateRealismJob,
    EvaluateSegmentationJob,
    EvaluateWedgeJob,
    Job,
    JobError,
    MlpJob,
    NmsgJob,
    NmsgTrainJob,
    PhantomJob,
    SirtJob,
    TrainingSetJob,
    WbpJob,
)
from .lock import sole_use
from .progress import FAILED, INTERRUPTED, Progress


def run(job: Job, quiet: bool = False) -> dict[str, Any]:
    """Validate and carry out a job.

    Parameters
    ----------
    job
        Any job of :mod:`cryoden_core.jobs`.
    quiet
        Show no progress bar.

    Returns
    -------
    dict
        The figures of the run, as in its ``result.json``.

    Raises
    ------
    JobError
        When the input or a parameter is wrong; no output has been written.
    cryoden_core.training.Interrupted
        When the run was asked to stop; its checkpoint lets ``resume`` go on.
    """
    job.validate()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(sole_use(job.folder()))
            progress = Progress(job.folder(), quiet)
        except OSError as error:
            raise JobError(f"cannot write into the run folder {error.filename}: {error.strerror}.") from error
        return _report_end(job, progress)


def _report_end(job: Job, progress: Progress) -> dict[str, Any]:
    """Carry out a job, and tell the progress how it ended."""
    from .training import Interrupted

    try:
        result = _carry_out(job, progress)
    except (Interrupted, KeyboardInterrupt) as stop:
        progress.finish(INTERRUPTED, str(stop))
        raise
    except JobError as error:
        progress.finish(FAILED, str(error))
        raise
    except BaseException as error:
        progress.finish(FAILED, f"{type(error).__name__}: {error}")
        raise
    progress.finish()
    return result


def _carry_out(job: Job, progress: Progress) -> dict[str, Any]:
    # The systems are imported when they are asked for: each brings torch and its own machinery.
    module, function = job.carried_out_by.split(":")
    return getattr(import_module("." + module, __package__), function)(job, progress)


def nmsg(input: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Denoise one tomogram with NMSG; parameters are those of :class:`cryoden_core.jobs.NmsgJob`."""
    return run(NmsgJob.from_parameters({"input": input, "output": output, **parameters}))


def nmsg_train(inputs: list[str], output: str, **parameters: Any) -> dict[str, Any]:
    """Train one NMSG model on several tomograms; see :class:`cryoden_core.jobs.NmsgTrainJob`."""
    return run(NmsgTrainJob.from_parameters({"inputs": inputs, "output": output, **parameters}))


def phantom(kind: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Make a specimen with known truth; see :class:`cryoden_core.jobs.PhantomJob`."""
    return run(PhantomJob.from_parameters({"kind": kind, "output": output, **parameters}))


def evaluate_picking(tomograms: list[str], truth: list[str], **parameters: Any) -> dict[str, Any]:
    """Score picking by difference of Gaussians; see :class:`cryoden_core.jobs.EvaluatePickingJob`."""
    return run(EvaluatePickingJob.from_parameters({"tomograms": tomograms, "truth": truth, **parameters}))


def evaluate_realism(real: list[str], simulated: list[str], **parameters: Any) -> dict[str, Any]:
    """Compare simulated with real tomograms; see :class:`cryoden_core.jobs.EvaluateRealismJob`."""
    return run(EvaluateRealismJob.from_parameters({"real": real, "simulated": simulated, **parameters}))


def evaluate_hallucination(tomogram: str, **parameters: Any) -> dict[str, Any]:
    """Count what a denoiser invents; see :class:`cryoden_core.jobs.EvaluateHallucinationJob`."""
    return run(EvaluateHallucinationJob.from_parameters({"tomogram": tomogram, **parameters}))


def evaluate_wedge(compensated: str, input: str, **parameters: Any) -> dict[str, Any]:
    """Judge what was filled into the missing wedge; see :class:`cryoden_core.jobs.EvaluateWedgeJob`."""
    return run(EvaluateWedgeJob.from_parameters({"compensated": compensated, "input": input, **parameters}))


def evaluate_segmentation(
    tomograms: list[str], labels: list[str], training_sets: list[str], **parameters: Any
) -> dict[str, Any]:
    """Judge what a network learns from training sets; see :class:`cryoden_core.jobs.EvaluateSegmentationJob`."""
    given = {"tomograms": tomograms, "labels": labels, "training_sets": training_sets, **parameters}
    return run(EvaluateSegmentationJob.from_parameters(given))


def evaluate(test: str, reference: str, **parameters: Any) -> dict[str, Any]:
    """Judge a volume against the truth; see :class:`cryoden_core.jobs.EvaluateJob`."""
    return run(EvaluateJob.from_parameters({"test": test, "reference": reference, **parameters}))


def mlp(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram with a coordinate network; see :class:`cryoden_core.jobs.MlpJob`."""
    return run(MlpJob.from_parameters({"input": input, "output": output, "tilt_angles": tilt_angles, **parameters}))


def wbp(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram by weighted back-projection; see :class:`cryoden_core.jobs.WbpJob`."""
    return run(WbpJob.from_parameters({"input": input, "output": output, "tilt_angles": tilt_angles, **parameters}))


def sirt(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram by SIRT; see :class:`cryoden_core.jobs.SirtJob`."""
    return run(SirtJob.from_parameters({"input": input, "output": output, "tilt_angles": tilt_angles, **parameters}))


def dual_train(noisy: list[str], clean: list[str], output: str, **parameters: Any) -> dict[str, Any]:
    """Train a DUAL model on unpaired volumes; see :class:`cryoden_core.jobs.DualTrainJob`."""
    return run(DualTrainJob.from_parameters({"noisy": noisy, "clean": clean, "output": output, **parameters}))


def clean_domain(output: str, **parameters: Any) -> dict[str, Any]:
    """Make grand models for DUAL; see :class:`cryoden_core.jobs.CleanDomainJob`."""
    return run(CleanDomainJob.from_parameters({"output": output, **parameters}))


def make_training_set(tomogram: str, labels: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Put a tomogram and its truth into one folder; see :class:`cryoden_core.jobs.TrainingSetJob`."""
    given = {"tomogram": tomogram, "labels": labels, "output": output, **parameters}
    return run(TrainingSetJob.from_parameters(given))

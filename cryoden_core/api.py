"""Run a job: the one entry that the command line, the Scipion plugin and Python scripts share.

Each system is a function with the name of its command, ``cryoden dual train`` being :func:`dual_train`.  What a job
cannot do without is an argument, everything else a keyword with the name that the job and the command line give it:

>>> from cryoden_core import api
>>> api.nmsg("tomogram.mrc", "denoised.mrc", preset="fast")  # doctest: +SKIP

All of them validate, run and return as :func:`run` does and raise what it raises.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from .jobs import (
    CleanDomainJob,
    DualConvertJob,
    DualDenoiseJob,
    DualEncodeNoiseJob,
    DualSimulateJob,
    DualTrainJob,
    DualWedgeJob,
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
    PickJob,
    SirtJob,
    TrainingSetJob,
    WbpJob,
)
from .lock import is_first_process, sole_use
from .progress import FAILED, INTERRUPTED, Progress


def run(job: Job, quiet: bool = False) -> dict[str, Any]:
    """Validate and carry out a job.

    Parameters
    ----------
    job
        Any job of :mod:`cryoden_core.jobs`.
    quiet
        Show warnings only.

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
            # Of several processes under torchrun one tells; the others would overwrite what it says.
            progress = Progress(job.folder(), quiet) if is_first_process() else Progress(quiet=True)
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
    return _run(NmsgJob, parameters, input=input, output=output)


def nmsg_train(inputs: list[str], output: str, **parameters: Any) -> dict[str, Any]:
    """Train one NMSG model on several tomograms; see :class:`cryoden_core.jobs.NmsgTrainJob`."""
    return _run(NmsgTrainJob, parameters, inputs=inputs, output=output)


def mlp(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram with a coordinate network; see :class:`cryoden_core.jobs.MlpJob`."""
    return _run(MlpJob, parameters, input=input, output=output, tilt_angles=tilt_angles)


def wbp(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram by weighted back-projection; see :class:`cryoden_core.jobs.WbpJob`."""
    return _run(WbpJob, parameters, input=input, output=output, tilt_angles=tilt_angles)


def sirt(input: str, output: str, tilt_angles: str, **parameters: Any) -> dict[str, Any]:
    """Reconstruct a tomogram by SIRT; see :class:`cryoden_core.jobs.SirtJob`."""
    return _run(SirtJob, parameters, input=input, output=output, tilt_angles=tilt_angles)


def pick(input: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Pick particles in a tomogram by difference of Gaussians; see :class:`cryoden_core.jobs.PickJob`."""
    return _run(PickJob, parameters, input=input, output=output)


def phantom(kind: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Make a specimen with known truth; see :class:`cryoden_core.jobs.PhantomJob`."""
    return _run(PhantomJob, parameters, kind=kind, output=output)


def dual_clean_domain(output: str, **parameters: Any) -> dict[str, Any]:
    """Make grand models for DUAL; see :class:`cryoden_core.jobs.CleanDomainJob`."""
    return _run(CleanDomainJob, parameters, output=output)


def dual_train(noisy: list[str], clean: list[str], output: str, **parameters: Any) -> dict[str, Any]:
    """Train a DUAL model on unpaired volumes; see :class:`cryoden_core.jobs.DualTrainJob`."""
    return _run(DualTrainJob, parameters, noisy=noisy, clean=clean, output=output)


def dual_denoise(input: str, model: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Denoise a tomogram with a DUAL model; see :class:`cryoden_core.jobs.DualDenoiseJob`."""
    return _run(DualDenoiseJob, parameters, input=input, model=model, output=output)


def dual_simulate(input: str, model: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Simulate tomograms of a density map; see :class:`cryoden_core.jobs.DualSimulateJob`."""
    return _run(DualSimulateJob, parameters, input=input, model=model, output=output)


def dual_convert(input: str, model: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Convert a tomogram to another style; see :class:`cryoden_core.jobs.DualConvertJob`."""
    return _run(DualConvertJob, parameters, input=input, model=model, output=output)


def dual_encode_noise(input: str, model: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Write the noise that a DUAL model finds in a tomogram; see :class:`cryoden_core.jobs.DualEncodeNoiseJob`."""
    return _run(DualEncodeNoiseJob, parameters, input=input, model=model, output=output)


def dual_wedge(input: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Fill the missing wedge of a tomogram; see :class:`cryoden_core.jobs.DualWedgeJob`."""
    return _run(DualWedgeJob, parameters, input=input, output=output)


def dual_make_training_set(tomogram: str, labels: str, output: str, **parameters: Any) -> dict[str, Any]:
    """Put a tomogram and its truth into one folder; see :class:`cryoden_core.jobs.TrainingSetJob`."""
    return _run(TrainingSetJob, parameters, tomogram=tomogram, labels=labels, output=output)


def evaluate_volume(test: str, reference: str, **parameters: Any) -> dict[str, Any]:
    """Judge a volume against the truth; see :class:`cryoden_core.jobs.EvaluateJob`."""
    return _run(EvaluateJob, parameters, test=test, reference=reference)


def evaluate_picking(tomograms: list[str], **parameters: Any) -> dict[str, Any]:
    """Score picking by difference of Gaussians; see :class:`cryoden_core.jobs.EvaluatePickingJob`."""
    return _run(EvaluatePickingJob, parameters, tomograms=tomograms)


def evaluate_realism(real: list[str], simulated: list[str], **parameters: Any) -> dict[str, Any]:
    """Compare simulated with real tomograms; see :class:`cryoden_core.jobs.EvaluateRealismJob`."""
    return _run(EvaluateRealismJob, parameters, real=real, simulated=simulated)


def evaluate_hallucination(tomogram: str, **parameters: Any) -> dict[str, Any]:
    """Count what a denoiser invents; see :class:`cryoden_core.jobs.EvaluateHallucinationJob`."""
    return _run(EvaluateHallucinationJob, parameters, tomogram=tomogram)


def evaluate_wedge(compensated: str, input: str, **parameters: Any) -> dict[str, Any]:
    """Judge what was filled into the missing wedge; see :class:`cryoden_core.jobs.EvaluateWedgeJob`."""
    return _run(EvaluateWedgeJob, parameters, compensated=compensated, input=input)


def evaluate_segmentation(
    tomograms: list[str], labels: list[str], training_sets: list[str], **parameters: Any
) -> dict[str, Any]:
    """Judge training sets by what a network learns of them; see :class:`cryoden_core.jobs.EvaluateSegmentationJob`."""
    return _run(EvaluateSegmentationJob, parameters, tomograms=tomograms, labels=labels, training_sets=training_sets)


def _run(job: type[Job], parameters: dict[str, Any], **required: Any) -> dict[str, Any]:
    return run(job.from_parameters({**required, **parameters}))

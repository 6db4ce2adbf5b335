"""The contract between whoever asks for work and the core that does it.

A *job* is a plain dataclass.  Each of its fields is defined here once: name, default, unit, allowed range and one
line of help; the command line, the JSON job file, the defaults of the Scipion forms and docs/parameters.rst are all
read from these definitions, and so is the sentence that a bad value gets.

Only the standard library is used and the syntax is that of Python 3.8, because the Scipion plugin imports this
package in Scipion's own environment, where torch is usually absent.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Type

from .clean_domain import CleanDomainJob, TrainingSetJob
from .contract import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_DEVICE,
    EXIT_OK,
    SCHEMA_VERSION,
    ComputeJob,
    DeviceError,
    Job,
    JobError,
    Parameter,
    ResumableJob,
    default_of,
    parameters_of,
)
from .dual import DUAL_PRESETS, DualTrainJob
from .dual_apply import (
    WEDGE_PRESETS,
    DualApplication,
    DualConvertJob,
    DualDenoiseJob,
    DualEncodeNoiseJob,
    DualSimulateJob,
    DualSimulation,
    DualWedgeJob,
)
from .evaluate import (
    EvaluateHallucinationJob,
    EvaluateJob,
    EvaluatePickingJob,
    EvaluateRealismJob,
    EvaluateSegmentationJob,
    EvaluateWedgeJob,
)
from .files import RunFolder, read_json, whole_file, write_json
from .nmsg import NMSG_PRESETS, NOISE_MODELS, SMALLEST_TILE, NmsgJob, NmsgTraining, NmsgTrainJob
from .phantom import PHANTOM_KINDS, PhantomJob
from .pick import PickJob
from .reconstruct import MLP_PRESETS, MlpJob, ReconstructionJob, SirtJob, WbpJob

__all__ = [
    "DUAL_PRESETS",
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NO_DEVICE",
    "EXIT_OK",
    "MLP_PRESETS",
    "NMSG_PRESETS",
    "NOISE_MODELS",
    "PHANTOM_KINDS",
    "SCHEMA_VERSION",
    "SMALLEST_TILE",
    "SYSTEMS",
    "WEDGE_PRESETS",
    "CleanDomainJob",
    "ComputeJob",
    "DeviceError",
    "DualApplication",
    "DualConvertJob",
    "DualDenoiseJob",
    "DualEncodeNoiseJob",
    "DualSimulateJob",
    "DualSimulation",
    "DualTrainJob",
    "DualWedgeJob",
    "EvaluateHallucinationJob",
    "EvaluateJob",
    "EvaluatePickingJob",
    "EvaluateRealismJob",
    "EvaluateSegmentationJob",
    "EvaluateWedgeJob",
    "Job",
    "JobError",
    "MlpJob",
    "NmsgJob",
    "NmsgTrainJob",
    "NmsgTraining",
    "Parameter",
    "PhantomJob",
    "PickJob",
    "ReconstructionJob",
    "ResumableJob",
    "RunFolder",
    "SirtJob",
    "TrainingSetJob",
    "WbpJob",
    "default_of",
    "job_from_dict",
    "parameters_of",
    "read_job",
    "read_json",
    "whole_file",
    "write_job",
    "write_json",
]

#: Every job by the name of its system.
SYSTEMS: Dict[str, Type[Job]] = {
    cls.system: cls
    for cls in (
        NmsgJob,
        NmsgTrainJob,
        MlpJob,
        WbpJob,
        SirtJob,
        PickJob,
        EvaluateJob,
        EvaluatePickingJob,
        EvaluateRealismJob,
        EvaluateHallucinationJob,
        EvaluateWedgeJob,
        EvaluateSegmentationJob,
        PhantomJob,
        CleanDomainJob,
        DualTrainJob,
        DualDenoiseJob,
        DualSimulateJob,
        DualConvertJob,
        DualEncodeNoiseJob,
        DualWedgeJob,
        TrainingSetJob,
    )
}


def job_from_dict(content: Any, origin: str = "the job") -> Job:
    """A validated job from its JSON form.

    Raises
    ------
    JobError
        When the form, the schema version, the system or a parameter is wrong; ``origin`` names the file.
    """
    if not isinstance(content, dict) or set(content) != {"schema", "system", "parameters"}:
        raise JobError("%s must hold the three entries schema, system and parameters." % origin)
    if content["schema"] != SCHEMA_VERSION:
        raise JobError(
            "%s has schema %r, this version reads %d; write it again with the same version of cryoden."
            % (origin, content["schema"], SCHEMA_VERSION)
        )
    if not isinstance(content["system"], str) or content["system"] not in SYSTEMS:
        raise JobError(
            "%s asks for the unknown system %r; known are: %s." % (origin, content["system"], ", ".join(SYSTEMS))
        )
    if not isinstance(content["parameters"], dict):
        raise JobError("%s: 'parameters' must be a JSON object." % origin)
    return SYSTEMS[content["system"]].from_parameters(content["parameters"])


def read_job(path: str) -> Job:
    """Read and validate a job file.

    Raises
    ------
    JobError
        When the file is missing, is no JSON or is not a valid job.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except OSError as error:
        raise JobError("cannot read the job file %s: %s." % (path, error.strerror)) from error
    except ValueError as error:
        raise JobError("the job file %s is not valid JSON: %s." % (path, error)) from error
    return job_from_dict(content, "the job file %s" % path)


def write_job(job: Job, path: str) -> None:
    """Write a job file, whole or not at all."""
    write_json(job.to_dict(), path)

"""What a model file says of itself, read without torch, and the object that stands for it in a project.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, which is JSON; CryoDen
keeps what a model is and what it was trained on under ``cryoden`` in the header's metadata.
"""

import json
import os
import struct
from typing import Any, Dict, List, Optional, Sequence

from pyworkflow.object import Set
from tomo.objects import SetOfTomograms

from cryoden_core.jobs import JobError

from .objects import CryodenModel

#: Systems that a model can be of, in words.
SYSTEMS = {"nmsg": "NMSG", "dual": "DUAL", "dual wedge": "DUAL's missing wedge"}

#: A longer header than this is none of ours.
_LONGEST_HEADER = 10**8

#: A model is suspicious where the voxel size differs by more than this share from that of its training.
VOXEL_SIZE_TOLERANCE = 0.05


def read_about(path: str) -> Dict[str, Any]:
    """What a model file says of itself: system, preset, voxel size, what it was trained on.

    Raises
    ------
    JobError
        When the file is missing, is no safetensors file, or was not written by CryoDen.
    """
    try:
        with open(path, "rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if length > min(_LONGEST_HEADER, os.path.getsize(path)):
                raise ValueError("no header")
            header = json.loads(stream.read(length).decode("utf-8"))
    except OSError as error:
        raise JobError("the model %s cannot be read: %s." % (path, error.strerror)) from error
    except (ValueError, struct.error) as error:
        raise JobError("%s is no model file (.safetensors)." % path) from error
    try:
        about = json.loads(header["__metadata__"]["cryoden"])
        system = about["system"]
    except (KeyError, TypeError, ValueError) as error:
        raise JobError("%s is a safetensors file, but not a model that CryoDen wrote." % path) from error
    if system not in SYSTEMS:
        raise JobError("%s is a model of %r, which this version does not know." % (path, system))
    return about


def model_object(path: str, about: Dict[str, Any], **known: Any) -> CryodenModel:
    """The object for a model file; ``known`` goes before what the file says."""
    preset = about.get("preset")
    contrast = about.get("contrast")
    described = {
        "path": path,
        "system": about["system"],
        "preset": preset.get("name", "") if isinstance(preset, dict) else preset,
        "samplingRate": about.get("voxel_size"),
        "steps": about.get("steps"),
        "seed": about.get("seed"),
        "trainedOn": ", ".join(_trained_on(about)),
        "contrast": contrast.get("noisy") if isinstance(contrast, dict) else contrast,
        "coreVersion": about.get("core_version"),
    }
    return CryodenModel(**dict(described, **known))


def _trained_on(about: Dict[str, Any]) -> List[str]:
    """File names of the noisy tomograms that a model was trained on."""
    trained = about.get("trained_on") or []
    if isinstance(trained, dict):
        trained = trained.get("noisy") or []
    return [str(name) for name in trained]


def model_problems(model: Optional[CryodenModel], systems: Sequence[str]) -> List[str]:
    """What is wrong with a model that shall be applied by one of ``systems``."""
    if model is None:
        return ["Choose the model to apply."]
    if model.getSystem() and _family(model.getSystem()) not in systems:
        return [
            "The model %s is one of %s, not of %s."
            % (os.path.basename(model.getPath()), _name(model.getSystem()), _name(systems[0]))
        ]
    if not os.path.exists(model.getPath()):
        return ["The model %s does not exist; run its protocol again." % model.getPath()]
    return []


def _family(system: str) -> str:
    """A model of the job ``nmsg-train`` is one of ``nmsg``."""
    return {"nmsg-train": "nmsg", "dual train": "dual"}.get(system, system)


def _name(system: str) -> str:
    return SYSTEMS.get(_family(system), system)


def model_warnings(model: Optional[CryodenModel], items: Set) -> List[str]:
    """In what the tomograms differ from those that a model was trained on."""
    trained = model.getSamplingRate() if model is not None else None
    given = items.getSamplingRate() if items is not None else None
    if not trained or not given or abs(given - trained) <= VOXEL_SIZE_TOLERANCE * trained:
        return []
    return ["The model was trained at %.2f angstrom per voxel, the tomograms have %.2f." % (trained, given)]


def contrast_of_training(model: CryodenModel, domain: str) -> Optional[str]:
    """dark or bright: protein in the noisy or the clean volumes that a DUAL model was trained on; None if not known."""
    try:
        contrast = read_about(model.getPath()).get("contrast")
    except JobError:
        return None
    return contrast.get(domain) if isinstance(contrast, dict) else None


def ctf_warnings(model: CryodenModel, tomograms: SetOfTomograms) -> List[str]:
    """Whether the CTF was corrected in the tomograms trained on but not in these, or the other way round."""
    if model.ctfCorrected() is None or model.ctfCorrected() == tomograms.ctfCorrected():
        return []
    words = {True: "CTF-corrected", False: "not CTF-corrected"}
    return [
        "The model was trained on tomograms that are %s, these are %s."
        % (words[bool(model.ctfCorrected())], words[bool(tomograms.ctfCorrected())])
    ]

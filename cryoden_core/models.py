"""Trained models as files: weights in safetensors, with what they are and what they were trained on as metadata.

Models are data: reading one executes nothing.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import __version__
from .jobs import JobError, whole_file
from .mrc import errors_of_writing


def save_model(path: str, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write a model, whole or not at all; ``about`` must be JSON, and gets the core's version added.

    Raises
    ------
    JobError
        When the disk is full or refuses the file for another reason.
    """
    metadata = {"cryoden": json.dumps({**about, "core_version": __version__})}
    values = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    try:
        with errors_of_writing(path):
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            with whole_file(path) as temporary:
                save_file(values, temporary, metadata)
                # The library makes private files; colleagues of the same group want to apply the model too.
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(temporary, 0o666 & ~mask)
    except SafetensorError as error:
        raise JobError(f"cannot write the model {path}: {error}.") from error


def load_model(path: str, system: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and metadata of a model of ``system``.

    Raises
    ------
    JobError
        When the file is missing, is no model of CryoDen, or belongs to another system.
    """
    if os.path.isdir(path):
        raise JobError(f"the model {path} is a folder; give the file in it, such as model.safetensors.")
    if not os.path.isfile(path):
        raise JobError(f"the model {path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise JobError(
            f"the model {path} cannot be read: it is damaged, or not a model that a training wrote ({error})."
        ) from error
    try:
        about = json.loads(metadata["cryoden"])
        written_for = about["system"]
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"{path} is not a model that CryoDen wrote.") from error
    if written_for != system:
        raise JobError(f"{path} is a model of {written_for!r}, not of {system!r}.")
    return weights, about

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
from .jobs import JobError


def save_model(path: str, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write a model, whole or not at all; ``about`` must be JSON, and gets the core's version added."""
    metadata = {"cryoden": json.dumps({**about, "core_version": __version__})}
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary, metadata)
        # The library makes private files; colleagues of the same group want to apply the model too.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def load_model(path: str, system: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and metadata of a model of ``system``.

    Raises
    ------
    JobError
        When the file is missing, is no model of CryoDen, or belongs to another system.
    """
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

"""The job that trains DUAL: a model that denoises and simulates, from unpaired noisy and clean volumes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, List, Optional

from .contract import JobError, ResumableJob, parameter
from .files import RunFolder
from .shared import seed_parameter, steps_parameter

DUAL_PRESETS = ("robust", "fast", "paper")
CONTRASTS = ("auto", "dark", "bright")
CLEAN_KINDS = ("density", "tomogram")
NOISE_CODES = ("auto", "map", "vector")


@dataclass
class DualTrainJob(ResumableJob):
    """Train DUAL on noisy tomograms and clean volumes that need not be of the same specimens."""

    system: ClassVar[str] = "dual train"
    carried_out_by: ClassVar[str] = "dual.train:train"

    noisy: List[str] = parameter([], "noisy tomograms, of any sizes (MRC)", required=True)
    clean: List[str] = parameter([], "clean volumes, of any sizes (MRC)", required=True)
    output: str = parameter("", "folder for the model (model.safetensors) and the files of the run", required=True,
                            alias="-o")  # fmt: skip
    preset: str = parameter(
        "robust", "robust, fast for a CPU, or paper for the published equations to the letter", choices=DUAL_PRESETS
    )
    steps: int = steps_parameter()
    seed: int = seed_parameter()
    batch: int = parameter(
        0, "crops of each domain in a step; 0 takes the preset's number", minimum=0, maximum=4096, expert=True
    )
    voxel_size: float = parameter(
        10.0, "voxel size of the model, to which all volumes are resampled", unit="angstrom", minimum=1.0, maximum=100.0
    )
    contrast: str = parameter("auto", "density in the noisy tomograms is dark or bright", choices=CONTRASTS)
    clean_contrast: str = parameter("auto", "density in the clean volumes is dark or bright", choices=CONTRASTS)
    clean_kind: str = parameter(
        "density",
        "what the clean volumes are: density has no missing wedge and may be turned in all ways, tomogram has one",
        choices=CLEAN_KINDS,
    )
    tilt_min: float = parameter(
        -60.0, "lowest tilt angle of the noisy tomograms", unit="degrees", minimum=-90.0, maximum=0.0
    )
    tilt_max: float = parameter(
        60.0, "highest tilt angle of the noisy tomograms", unit="degrees", minimum=0.0, maximum=90.0
    )
    tilt_angles: str = parameter(
        "", "file of the tilt angles (.tlt, .rawtlt), whose smallest and largest are taken for the tilt range"
    )
    noisy_even: List[str] = parameter(
        [], "even halves of the noisy tomograms in their order (MRC); with the odd ones the noise is measured "
        "directly, and the denoiser is also asked to tell one half from the other",
    )  # fmt: skip
    noisy_odd: List[str] = parameter([], "odd halves of the noisy tomograms in their order (MRC)")
    noisy_masks: List[str] = parameter(
        [], "where crops may be taken, 1 inside (MRC), one for each noisy tomogram in their order"
    )
    clean_masks: List[str] = parameter(
        [], "where crops may be taken, 1 inside (MRC), one for each clean volume in their order"
    )
    thickness: float = parameter(
        0.0, "take crops only in a central slab of this thickness along z; 0 for everywhere", unit="angstrom",
        minimum=0.0, maximum=100000.0,
    )  # fmt: skip
    validation_noisy: str = parameter("", "a tomogram whose truth is known, to follow the training (MRC)")
    validation_clean: str = parameter("", "the truth of that tomogram (MRC)")
    noisy_voxel_size: float = parameter(
        0.0, "voxel size of the noisy tomograms; 0 takes it from each file's header", unit="angstrom", minimum=0.0,
        maximum=1000.0,
    )  # fmt: skip
    clean_voxel_size: float = parameter(
        0.0, "voxel size of the clean volumes; 0 takes it from each file's header", unit="angstrom", minimum=0.0,
        maximum=1000.0,
    )  # fmt: skip
    noise_code: str = parameter(
        "auto", "code of the noise: a map, or a vector for each crop as in the paper; auto is the preset's",
        choices=NOISE_CODES, expert=True,
    )  # fmt: skip
    check_every: int = parameter(
        0, "steps between two checks of the training's health; 0 makes 10 in all", minimum=0, maximum=10**6,
        expert=True,
    )  # fmt: skip

    def folder(self) -> Optional[RunFolder]:
        return RunFolder(self.run_folder or self.output)

    @property
    def model(self) -> str:
        """Name of the model file."""
        return RunFolder(self.output).model

    def _validate_together(self) -> None:
        super()._validate_together()
        for name, volumes, masks in (
            ("noisy", self.noisy, self.noisy_masks), ("clean", self.clean, self.clean_masks),
        ):  # fmt: skip
            if len(masks) not in (0, len(volumes)):
                raise JobError(
                    "give one mask for each %s volume, or none: %d volumes, %d masks."
                    % (name, len(volumes), len(masks))
                )
        if (len(self.noisy_even), len(self.noisy_odd)) not in ((0, 0), (len(self.noisy), len(self.noisy))):
            raise JobError(
                "give an even and an odd half for each noisy tomogram, or none: %d tomograms, %d even, %d odd."
                % (len(self.noisy), len(self.noisy_even), len(self.noisy_odd))
            )
        if bool(self.validation_noisy) != bool(self.validation_clean):
            raise JobError(
                "a validation needs a tomogram and its truth: 'validation_noisy' is %r, 'validation_clean' is %r."
                % (self.validation_noisy, self.validation_clean)
            )
        for name, volumes in (("noisy", self.noisy), ("clean", self.clean)):
            twice = [path for path in volumes if volumes.count(path) > 1]
            if twice:
                raise JobError("%s is given twice among the %s volumes; leave one out." % (twice[0], name))
        both = {os.path.abspath(path) for path in self.noisy} & {os.path.abspath(path) for path in self.clean}
        if both:
            raise JobError("%s is given as noisy and as clean; it can only be one of them." % sorted(both)[0])
        if self.tilt_max - self.tilt_min < 10:
            raise JobError("the tilt range %g to %g degrees is too small to be one." % (self.tilt_min, self.tilt_max))

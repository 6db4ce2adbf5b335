"""The jobs of NMSG: denoise one tomogram, or train one model on several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, List, Optional

from .contract import JobError, ResumableJob, parameter, refuse_clashes, refuse_one_half
from .files import RunFolder
from .shared import (
    MODEL_ENDINGS,
    even_parameter,
    model_instead_parameter,
    odd_parameter,
    optional_output,
    output_mode_parameter,
    output_parameter,
    save_model_parameter,
    seed_parameter,
    steps_parameter,
    voxel_size_parameter,
)

#: A smaller crop shows a network nothing of the specimen.
SMALLEST_TILE = 32

NMSG_PRESETS = ("fast", "default", "best", "paper")
NOISE_MODELS = ("auto", "spectral", "gan")


@dataclass
class NmsgTraining(ResumableJob):
    """How NMSG learns the noise and trains its denoiser; shared by the two NMSG jobs."""

    preset: str = parameter(
        "default",
        "fast for a first look, default, best for a longer training, paper for the published recipe",
        choices=NMSG_PRESETS,
    )
    noise_model: str = parameter(
        "auto",
        "how the noise is modelled: spectral, gan, or auto (the GAN only where the spectral model fails its report)",
        choices=NOISE_MODELS,
    )
    steps: int = steps_parameter()
    tile: int = parameter(
        0,
        "edge of the training and inference tiles; 0 chooses it from free memory",
        unit="voxels",
        minimum=0,
        maximum=2048,
    )
    guidance_weight: float = parameter(
        -1.0, "weight of the guidance term; -1 takes the preset's", minimum=-1.0, maximum=100.0, expert=True
    )
    sparsity_weight: float = parameter(
        -1.0, "weight of the sparsity (gradient) term; -1 takes the preset's", minimum=-1.0, maximum=100.0, expert=True
    )
    seed: int = seed_parameter()
    voxel_size: float = voxel_size_parameter()

    output: str = ""

    def folder(self) -> Optional[RunFolder]:
        return RunFolder.beside(self.output, self.run_folder)

    def _validate_together(self) -> None:
        super()._validate_together()
        if 0 < self.tile < SMALLEST_TILE:
            raise JobError("parameter 'tile' must be 0 or at least %d, not %d." % (SMALLEST_TILE, self.tile))


@dataclass
class NmsgJob(NmsgTraining):
    """Denoise one tomogram: train NMSG on it, or apply a model that was trained before."""

    system: ClassVar[str] = "nmsg"
    carried_out_by: ClassVar[str] = "nmsg.denoise:denoise"

    input: str = parameter("", "tomogram to denoise (MRC)", required=True, positional=True)
    output: str = output_parameter("denoised tomogram")
    even: str = even_parameter()
    odd: str = odd_parameter()
    output_even: str = optional_output("the denoised even half")
    output_odd: str = optional_output("the denoised odd half")
    mask: str = parameter("", "mask of the specimen, 1 inside (MRC); training crops are taken there")
    model: str = model_instead_parameter()
    save_model: str = save_model_parameter()
    strength: float = parameter(
        1.0, "share of the denoised volume in the output; the rest is the input", minimum=0.0, maximum=1.0
    )
    keep_wedge: bool = parameter(
        False, "leave nothing in the missing wedge that the tomogram does not hold; needs the tilt range"
    )
    tilt_min: float = parameter(
        0.0, "angle of the first view, for keep_wedge", unit="degrees", minimum=-90.0, maximum=90.0
    )
    tilt_max: float = parameter(
        0.0, "angle of the last view, for keep_wedge", unit="degrees", minimum=-90.0, maximum=90.0
    )
    output_mode: str = output_mode_parameter()

    def _validate_together(self) -> None:
        super()._validate_together()
        refuse_one_half(self.even, self.odd, self.output_even, self.output_odd)
        if self.keep_wedge and self.tilt_min >= self.tilt_max:
            raise JobError(
                "to keep the missing wedge give the tilt range: 'tilt_min' is %g and 'tilt_max' is %g degrees."
                % (self.tilt_min, self.tilt_max)
            )
        refuse_clashes(
            (self.input, self.even, self.odd, self.mask, self.model),
            (self.output, self.output_even, self.output_odd, self.save_model),
        )


@dataclass
class NmsgTrainJob(NmsgTraining):
    """Train one NMSG model on several tomograms, to be applied to a whole set."""

    system: ClassVar[str] = "nmsg-train"
    carried_out_by: ClassVar[str] = "nmsg.denoise:train"

    inputs: List[str] = parameter([], "tomograms to train on (MRC)", required=True, positional=True)
    output: str = parameter("", "model to write (.safetensors)", required=True, endings=MODEL_ENDINGS, alias="-o")
    evens: List[str] = parameter([], "even halves, in the order of the tomograms")
    odds: List[str] = parameter([], "odd halves, in the order of the tomograms")
    masks: List[str] = parameter(
        [], "masks of the specimen, 1 inside (MRC), in the order of the tomograms; training crops are taken there"
    )

    def _validate_together(self) -> None:
        super()._validate_together()
        if len(self.evens) != len(self.odds) or len(self.evens) not in (0, len(self.inputs)):
            raise JobError(
                "give one even and one odd half for each tomogram, or none: %d tomograms, %d even, %d odd."
                % (len(self.inputs), len(self.evens), len(self.odds))
            )
        if len(self.masks) not in (0, len(self.inputs)):
            raise JobError(
                "give one mask for each tomogram, or none: %d tomograms, %d masks."
                % (len(self.inputs), len(self.masks))
            )
        refuse_clashes((*self.inputs, *self.evens, *self.odds, *self.masks), (self.output,))

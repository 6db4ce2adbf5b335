"""The jobs that apply DUAL: denoise, simulate, convert between styles, and fill the missing wedge."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, List, Optional

from .contract import ComputeJob, JobError, ResumableJob, parameter, refuse_clashes, refuse_one_half
from .files import RunFolder
from .shared import (
    VOLUME_ENDINGS,
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

CONTRASTS = ("", "dark", "bright", "auto")
WEDGE_MODES = ("consistent", "cycle")
WEDGE_PRESETS = ("fast", "default")
#: Mirrored copies that are averaged: those of all axes keep a symmetric missing wedge.
FLIPS = 8


def contrast_parameter() -> str:
    """The parameter ``contrast`` of the jobs that apply a model."""
    return parameter(
        "",
        "density in the input: dark, bright or auto to guess it; empty takes what the model was trained on",
        choices=CONTRASTS,
    )


@dataclass
class DualApplication(ComputeJob):
    """What the jobs that apply a trained DUAL model share."""

    contrast: str = contrast_parameter()
    voxel_size: float = voxel_size_parameter()
    tile: int = parameter(
        0, "edge of the tiles; 0 chooses it from free memory", unit="voxels", minimum=0, maximum=2048, expert=True
    )
    output_mode: str = output_mode_parameter()

    input: str = ""
    model: str = ""
    output: str = ""

    def folder(self) -> Optional[RunFolder]:
        return RunFolder.beside(self.output, self.run_folder)


@dataclass
class DualDenoiseJob(DualApplication):
    """Denoise a tomogram with a trained DUAL model, as strongly as you want."""

    system: ClassVar[str] = "dual denoise"
    carried_out_by: ClassVar[str] = "dual.denoise:denoise"

    input: str = parameter("", "tomogram to denoise (MRC)", required=True, positional=True)
    model: str = parameter("", "trained DUAL model (.safetensors)", required=True)
    output: str = output_parameter("denoised tomogram")
    strength: float = parameter(
        1.0, "how strongly to denoise: 0 returns the input, 1 is the full effect", minimum=0.0, maximum=1.0
    )
    hold_data: bool = parameter(
        True, "let no measured frequency depart from the data by more than the noise that was measured there"
    )
    flips: int = parameter(
        4, "mirrored copies to average; a tilt range that is not symmetric allows 4", minimum=1, maximum=FLIPS
    )
    uncertainty: str = optional_output("the spread over the mirrored copies (MRC, at least 4 copies)")
    even: str = even_parameter()
    odd: str = odd_parameter()
    output_even: str = optional_output("the denoised even half")
    output_odd: str = optional_output("the denoised odd half")

    def _validate_together(self) -> None:
        super()._validate_together()
        refuse_one_half(self.even, self.odd, self.output_even, self.output_odd)
        refuse_clashes(
            (self.input, self.even, self.odd, self.model),
            (self.output, self.output_even, self.output_odd, self.uncertainty),
        )


@dataclass
class DualEncodeNoiseJob(DualApplication):
    """Find the noise in a tomogram with a trained DUAL model, in the units in which the model's simulator takes it."""

    system: ClassVar[str] = "dual encode-noise"
    carried_out_by: ClassVar[str] = "dual.noise:encode_noise"

    input: str = parameter("", "tomogram whose noise is wanted (MRC)", required=True, positional=True)
    model: str = parameter("", "trained DUAL model (.safetensors)", required=True)
    output: str = output_parameter("noise")

    def _validate_together(self) -> None:
        super()._validate_together()
        refuse_clashes((self.input, self.model), (self.output,))


@dataclass
class DualSimulation(DualApplication):
    """What the jobs that make noisy tomograms share."""

    noise: float = parameter(
        1.0,
        "amplitude of the noise: 0 none, 1, where it is drawn, as in the tomograms trained on",
        minimum=0.0,
        maximum=10.0,
    )
    noise_from: str = parameter(
        "", "tomogram (MRC) whose own noise is taken, found by the encoder; empty draws new noise"
    )
    seed: int = seed_parameter()


@dataclass
class DualSimulateJob(DualSimulation, ResumableJob):
    """Simulate tomograms of a density map, noisy like those that a DUAL model was trained on."""

    system: ClassVar[str] = "dual simulate"
    carried_out_by: ClassVar[str] = "dual.simulate:simulate"

    input: str = parameter("", "density map to simulate a tomogram of (MRC)", required=True, positional=True)
    model: str = parameter("", "trained DUAL model (.safetensors)", required=True)
    output: str = parameter(
        "",
        "tomogram to write (MRC); with several draws _1, _2 ... is added to its name",
        required=True,
        alias="-o",
        endings=VOLUME_ENDINGS,
    )
    draws: int = parameter(1, "tomograms to draw, each with other noise", minimum=1, maximum=10**4)
    halves: bool = parameter(False, "write the even and odd halves too (_even, _odd)")
    labels: str = parameter("", "labels of the map (MRC), to be copied beside each tomogram (_labels)")
    coordinates: str = parameter("", "particles of the map (STAR), to be written beside each tomogram")

    def outputs(self) -> List[str]:
        """The tomograms that are written, in order."""
        if self.draws == 1:
            return [self.output]
        stem, extension = os.path.splitext(self.output)
        return ["%s_%d%s" % (stem, number + 1, extension) for number in range(self.draws)]

    def halves_of(self, output: str) -> List[str]:
        """The even and the odd half of a tomogram that is written; none when halves are not asked for."""
        stem, extension = os.path.splitext(output)
        return [stem + "_even" + extension, stem + "_odd" + extension] if self.halves else []

    def labels_of(self, output: str) -> str:
        """The labels beside a tomogram that is written; empty without labels."""
        return os.path.splitext(output)[0] + "_labels" + os.path.splitext(self.labels)[1] if self.labels else ""

    def coordinates_of(self, output: str) -> str:
        """The particles beside a tomogram that is written; empty without them."""
        return os.path.splitext(output)[0] + "_particles.star" if self.coordinates else ""

    def files_of(self, output: str) -> List[str]:
        """A tomogram that is written, with all that belongs to it."""
        beside = (self.labels_of(output), self.coordinates_of(output))
        return [output, *self.halves_of(output), *(path for path in beside if path)]

    def _validate_together(self) -> None:
        super()._validate_together()
        beside = [path for output in self.outputs() for path in self.files_of(output)]
        refuse_clashes((self.input, self.model, self.noise_from, self.labels, self.coordinates), beside)


@dataclass
class DualConvertJob(DualSimulation):
    """Convert a tomogram to the style of one of the two sets of volumes that a DUAL model was trained on."""

    system: ClassVar[str] = "dual convert"
    carried_out_by: ClassVar[str] = "dual.simulate:convert"

    input: str = parameter("", "tomogram to convert (MRC)", required=True, positional=True)
    model: str = parameter("", "trained DUAL model (.safetensors)", required=True)
    output: str = output_parameter("converted tomogram")
    to: str = parameter("clean", "the style wanted: of the clean or of the noisy set", choices=("clean", "noisy"))

    def _validate_together(self) -> None:
        super()._validate_together()
        refuse_clashes((self.input, self.model, self.noise_from), (self.output,))


@dataclass
class DualWedgeJob(ResumableJob):
    """Fill the missing wedge of a tomogram without touching what was measured."""

    system: ClassVar[str] = "dual wedge"
    carried_out_by: ClassVar[str] = "dual.compensate:compensate"

    input: str = parameter("", "tomogram to fill (MRC)", required=True, positional=True)
    output: str = output_parameter("filled tomogram")
    tilt_min: float = parameter(-60.0, "angle of the first view", unit="degrees", minimum=-90.0, maximum=90.0)
    tilt_max: float = parameter(60.0, "angle of the last view", unit="degrees", minimum=-90.0, maximum=90.0)
    tilt_angles: str = parameter(
        "", "file of the tilt angles (.tlt, .rawtlt), whose smallest and largest are taken for the tilt range"
    )
    model: str = model_instead_parameter()
    train_with: List[str] = parameter([], "more tomograms of the same kind and tilt range to train on (MRC)")
    mode: str = parameter(
        "consistent",
        "consistent (learns from measured data cut away on purpose) or cycle (translation to exchanged axes, as "
        "published)",
        choices=WEDGE_MODES,
    )
    preset: str = parameter("default", "fast for a first look, or default", choices=WEDGE_PRESETS)
    steps: int = steps_parameter()
    seed: int = seed_parameter()
    adversary: float = parameter(
        -1.0,
        "weight of the critic; -1 takes the mode's: 0 in consistent, where 0.05 may help with little noise, 1 in cycle",
        minimum=-1.0,
        maximum=100.0,
        expert=True,
    )
    signal_only: bool = parameter(
        True,
        "fill in of each frequency the share that is signal in the tomogram; otherwise noise is continued too (mode "
        "consistent)",
    )
    save_model: str = save_model_parameter()
    voxel_size: float = voxel_size_parameter()
    output_mode: str = output_mode_parameter()

    def folder(self) -> Optional[RunFolder]:
        return RunFolder.beside(self.output, self.run_folder)

    def _validate_together(self) -> None:
        super()._validate_together()
        span = self.tilt_max - self.tilt_min
        if span <= 0:
            raise JobError(
                "the tilt range %g to %g degrees is empty; give the smaller angle first."
                % (self.tilt_min, self.tilt_max)
            )
        if span < 60:
            raise JobError("a tilt range of %g degrees measures too little to learn the rest from." % span)
        if span > 175:
            raise JobError("a tilt range of %g degrees leaves no wedge to fill." % span)
        refuse_clashes((self.input, self.model, self.tilt_angles, *self.train_with), (self.output, self.save_model))

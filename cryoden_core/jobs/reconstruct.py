"""The jobs that make a tomogram from a tilt series: coordinate network, weighted back-projection, SIRT."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import ClassVar, List, Optional, Set

from .contract import JobError, ResumableJob, parameter, refuse_clashes
from .files import RunFolder
from .shared import VOLUME_ENDINGS, output_mode_parameter, output_parameter, seed_parameter

MLP_PRESETS = ("fast", "default", "best", "paper")
FIELDS = ("auto", "siren", "lattice", "fourier")
STARTS = ("auto", "sirt", "wbp", "none")
LOSSES = ("auto", "l2", "l1", "charbonnier", "huber")
BEADS = ("mask", "keep")
HALVES = ("none", "stacks", "views")
BACKGROUNDS = ("auto", "median", "zero")


def _background_parameter() -> str:
    """The parameter ``background`` of the methods that compare projections of the tomogram with the images."""
    return parameter(
        "auto",
        "grey value of each image that counts as empty: its median, as in ice, or zero, as in simulated projections; "
        "auto is zero with non_negative, else the median",
        choices=BACKGROUNDS,
        expert=True,
    )


def _non_negative_parameter() -> bool:
    """The parameter ``non_negative`` of the same methods."""
    return parameter(False, "no density below zero; only right without a transfer function and with bright protein")


@dataclass
class ReconstructionJob(ResumableJob):
    """A tilt series, where its images belong, and the tomogram that is wanted; in the terms of IMOD.

    A tilt about x (IMOD's XAXISTILT) and local alignments are not done.
    """

    input: str = parameter("", "tilt series, all images, raw or aligned (MRC stack)", required=True, positional=True)
    output: str = output_parameter("tomogram")
    tilt_angles: str = parameter("", "angle of each image, in the order of the stack (.tlt, .rawtlt)", required=True)
    transforms: str = parameter(
        "", "alignment of each image (.xf), applied in one interpolation; empty takes the stack as aligned"
    )
    exclude: str = parameter("", "images to leave out, counted from 1, as in 5,20 or 1-3,40")
    doses: str = parameter(
        "",
        "accumulated dose of each image, electrons per square angstrom (one a line); images of high dose count less",
    )
    thickness: int = parameter(300, "size along z, the beam", unit="voxels of the input", minimum=8, maximum=4096)
    width: int = parameter(0, "size along x; 0 takes that of the aligned images", unit="voxels of the input",
                           minimum=0, maximum=16384)  # fmt: skip
    binning: int = parameter(
        1, "bin the aligned images this many times first, by Fourier cropping", minimum=1, maximum=32
    )
    angle_offset: float = parameter(
        0.0, "added to every tilt angle (first number of IMOD's OFFSET)", unit="degrees", minimum=-90.0, maximum=90.0
    )
    tilt_axis_shift: float = parameter(
        0.0, "distance of the tilt axis from the centre of the images (second number of IMOD's OFFSET)",
        unit="pixels of the input", minimum=-8192.0, maximum=8192.0, expert=True,
    )  # fmt: skip
    tilt_axis_angle: float = parameter(
        0.0,
        "direction of the tilt axis in the images, from the vertical; without transforms it must be 0 or 180",
        unit="degrees",
        minimum=-360.0,
        maximum=360.0,
        expert=True,
    )
    x_shift: float = parameter(
        0.0, "move the specimen along x (IMOD's SHIFT)", unit="voxels of the input", minimum=-8192.0, maximum=8192.0
    )
    z_shift: float = parameter(
        0.0, "move the specimen along -z (IMOD's SHIFT)", unit="voxels of the input", minimum=-8192.0, maximum=8192.0
    )
    flip_tilt_sign: bool = parameter(False, "change the sign of every tilt angle, which mirrors the tomogram in z")
    halves: str = parameter(
        "none", "also reconstruct two halves: from the stacks even and odd, or from every second view", choices=HALVES
    )
    even: str = parameter("", "tilt series of the even frames, image by image like the input (MRC stack)")
    odd: str = parameter("", "tilt series of the odd frames, image by image like the input (MRC stack)")
    output_even: str = parameter(
        "", "tomogram of the even half; empty puts '_even' after the output's name", endings=VOLUME_ENDINGS
    )
    output_odd: str = parameter(
        "", "tomogram of the odd half; empty puts '_odd' after the output's name", endings=VOLUME_ENDINGS
    )
    reference: str = parameter(
        "", "tomogram of the same field of view (MRC); a mirrored, turned or shifted result is reported"
    )
    voxel_size: float = parameter(
        0.0, "pixel size of the input; 0 takes it from the file's header", unit="angstrom", minimum=0.0, maximum=1000.0
    )
    output_mode: str = output_mode_parameter()

    def folder(self) -> Optional[RunFolder]:
        return RunFolder.beside(self.output, self.run_folder)

    def excluded_images(self) -> List[int]:
        """The numbers in ``exclude``, from 1."""
        return image_numbers(self.exclude)

    def outputs(self) -> List[str]:
        """Names of all volumes that are written."""
        return [self.output, *self.half_outputs()]

    def half_outputs(self) -> List[str]:
        """Names of the even and odd tomogram, or an empty list when no halves are asked for."""
        if self.halves == "none":
            return []
        stem, extension = os.path.splitext(self.output)
        return [self.output_even or stem + "_even" + extension, self.output_odd or stem + "_odd" + extension]

    def _validate_together(self) -> None:
        super()._validate_together()
        image_numbers(self.exclude)
        if self.halves == "stacks" and not (self.even and self.odd):
            raise JobError("halves from stacks need both 'even' and 'odd': 'even' is %r, 'odd' is %r."
                           % (self.even, self.odd))  # fmt: skip
        if self.halves != "stacks" and (self.even or self.odd):
            raise JobError("'even' and 'odd' are only used with halves = stacks, not %r." % self.halves)
        texts = (self.tilt_angles, self.transforms, self.doses)
        refuse_clashes((self.input, self.even, self.odd, self.reference, *texts), self.outputs())


def image_numbers(text: str) -> List[int]:
    """The numbers of a list such as ``1-3,40``, in rising order.

    Raises
    ------
    JobError
        When the text is no such list.
    """
    numbers: Set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.match(r"^(\d+)(?:\s*-\s*(\d+))?$", part)
        if not match or not 1 <= int(match.group(1)) <= int(match.group(2) or match.group(1)) <= 10000:
            raise JobError("parameter 'exclude' must be image numbers from 1 such as 5,20 or 1-3,40, not %r." % text)
        numbers.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return sorted(numbers)


@dataclass
class WbpJob(ReconstructionJob):
    """Reconstruct a tomogram by weighted back-projection, as IMOD does."""

    system: ClassVar[str] = "wbp"
    carried_out_by: ClassVar[str] = "reconstruct:wbp"

    radial_cutoff: float = parameter(
        0.35,
        "where the radial filter begins to fall (IMOD's RADIAL)",
        unit="cycles per pixel",
        minimum=0.01,
        maximum=0.5,
    )
    radial_falloff: float = parameter(
        0.035, "width of its fall (IMOD's RADIAL)", unit="cycles per pixel", minimum=0.0, maximum=0.5
    )


@dataclass
class SirtJob(ReconstructionJob):
    """Reconstruct a tomogram by SIRT, the simultaneous iterative reconstruction technique."""

    system: ClassVar[str] = "sirt"
    carried_out_by: ClassVar[str] = "reconstruct:sirt"

    iterations: int = parameter(20, "iterations; more are sharper and noisier", minimum=1, maximum=10000)
    relaxation: float = parameter(1.0, "length of a step", minimum=0.01, maximum=1.99, expert=True)
    background: str = _background_parameter()
    non_negative: bool = _non_negative_parameter()


@dataclass
class MlpJob(ReconstructionJob):
    """Reconstruct a tomogram by fitting a coordinate network to the tilt series."""

    system: ClassVar[str] = "mlp"
    carried_out_by: ClassVar[str] = "mlp.reconstruct:reconstruct"

    preset: str = parameter(
        "default",
        "fast for a first look, default, best for a longer fit, paper for the published network and start",
        choices=MLP_PRESETS,
    )
    field: str = parameter(
        "auto",
        "network: siren (sines), lattice (grids of features), fourier; auto is the preset's",
        choices=FIELDS,
    )
    start: str = parameter(
        "auto", "reconstruction that the network is first fitted to; auto is the preset's", choices=STARTS
    )
    loss: str = parameter(
        "auto", "how a difference from the projections counts; auto is the preset's", choices=LOSSES, expert=True
    )
    passes: int = parameter(
        0, "times that the whole volume is visited at most; 0 takes the preset's number", minimum=0, maximum=10**5
    )
    held_out: bool = parameter(
        True,
        "find out with views that are held out how many passes and how strong penalties are best, before fitting to "
        "all views",
    )
    crowther_weight: float = parameter(
        -1.0, "weight of the penalty in the missing wedge beyond the Crowther frequency; -1 takes the preset's, "
        "0.05 is light, 0.2 strong", minimum=-1.0, maximum=100.0,
    )  # fmt: skip
    sparsity: float = parameter(
        -1.0, "weight of the magnitude of the density: what is solvent stays at its level; -1 takes the preset's",
        minimum=-1.0, maximum=100.0,
    )  # fmt: skip
    total_variation: float = parameter(
        -1.0, "weight of the total variation, which smooths; -1 takes the preset's", minimum=-1.0, maximum=100.0,
        expert=True,
    )  # fmt: skip
    non_negative: bool = _non_negative_parameter()
    background: str = _background_parameter()
    beads: str = parameter("mask", "mask leaves gold beads out of the fit, keep uses every pixel", choices=BEADS)
    seed: int = seed_parameter()
    fit_views: bool = parameter(True, "fit an offset and a gain for each view", expert=True)
    ensemble: int = parameter(
        1, "networks with different seeds; their mean is the tomogram, their spread a map of its uncertainty",
        minimum=1, maximum=64,
    )  # fmt: skip
    preview_every: int = parameter(10, "passes between two preview volumes and pictures at least; 0 for none",
                                   minimum=0, maximum=10**5, expert=True)  # fmt: skip
    max_memory: float = parameter(
        0.0, "memory that the fit may take; 0 takes what is free", unit="GiB", minimum=0.0, maximum=10000.0
    )
    slices: int = parameter(
        0, "sections along y in a step; 0 takes the preset's number, or an eighth of all", minimum=0, maximum=4096,
        expert=True,
    )  # fmt: skip

    @property
    def spread(self) -> str:
        """Name of the map of standard deviations of an ensemble; empty without one."""
        stem, extension = os.path.splitext(self.output)
        return stem + "_std" + extension if self.ensemble > 1 else ""

    def outputs(self) -> List[str]:
        return [*super().outputs(), *([self.spread] if self.spread else [])]

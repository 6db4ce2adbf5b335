"""The job that picks particles in a tomogram: blobs of one size, without training and without classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Optional

from .contract import Job, parameter, refuse_clashes
from .files import RunFolder
from .shared import clip_parameter, contrast_of_particles, ratio_parameter, voxel_size_parameter


@dataclass
class PickJob(Job):
    """Pick particles in a tomogram as blobs of one size (difference of Gaussians)."""

    system: ClassVar[str] = "pick"
    carried_out_by: ClassVar[str] = "pick:pick_particles"

    input: str = parameter("", "tomogram to pick in, best a denoised one (MRC)", required=True, positional=True)
    output: str = parameter("", "picks to write, coordinates in voxels (STAR)", required=True, alias="-o")
    diameter: float = parameter(280.0, "diameter of the particles", unit="angstrom", minimum=10.0, maximum=5000.0)
    contrast: str = contrast_of_particles()
    threshold: float = parameter(
        3.0, "smallest score of a pick, in standard deviations of the filtered tomogram; 0 takes all",
        minimum=0.0, maximum=1000.0,
    )  # fmt: skip
    count: int = parameter(0, "picks to keep at most, the best; 0 keeps all", minimum=0, maximum=10**6)
    exclusion: float = parameter(
        0.0, "smallest distance between two picks; 0 takes 0.87 of the diameter", unit="angstrom",
        minimum=0.0, maximum=5000.0,
    )  # fmt: skip
    mask: str = parameter("", "where the centres of picks may lie, 1 inside (MRC); empty for everywhere")
    border: float = parameter(
        0.0, "smallest distance of a pick from the faces of the tomogram", unit="angstrom", minimum=0.0, maximum=10000.0
    )
    clip: float = clip_parameter()
    ratio: float = ratio_parameter()
    voxel_size: float = voxel_size_parameter()
    run_folder: str = parameter(
        "", "folder for progress and result; empty puts '<output>_cryoden' beside the output", expert=True
    )

    def folder(self) -> Optional[RunFolder]:
        return RunFolder.beside(self.output, self.run_folder)

    @property
    def sigma(self) -> float:
        """Width of the inner Gaussian, angstrom: a ball of radius r stands out most at r / sqrt(3)."""
        return self.diameter / 2 / math.sqrt(3)

    @property
    def distance(self) -> float:
        """Smallest distance between two picks, angstrom; three widths of the Gaussian when none is given."""
        return self.exclusion or 3 * self.sigma

    def _validate_together(self) -> None:
        refuse_clashes((self.input, self.mask), (self.output,))

"""The job that makes a specimen with known truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from .contract import ComputeJob, JobError, parameter
from .files import RunFolder
from .shared import seed_parameter

PHANTOM_KINDS = ("packed", "spheres")


@dataclass
class PhantomJob(ComputeJob):
    """Make a specimen of which everything is known, its tilt series and its tomograms."""

    system: ClassVar[str] = "phantom"
    carried_out_by: ClassVar[str] = "phantom.create:create"

    kind: str = parameter(
        "packed",
        "packed (macromolecules and vesicles) or spheres (hollow spheres)",
        choices=PHANTOM_KINDS,
        positional=True,
    )
    output: str = parameter("", "folder for everything that is written", required=True, alias="-o")
    depth: int = parameter(64, "size along z, the beam", unit="voxels", minimum=8, maximum=4096)
    height: int = parameter(256, "size along y, the tilt axis", unit="voxels", minimum=16, maximum=8192)
    width: int = parameter(256, "size along x", unit="voxels", minimum=16, maximum=8192)
    voxel_size: float = parameter(10.0, "voxel size", unit="angstrom", minimum=1.0, maximum=100.0)
    particles: int = parameter(200, "macromolecules or hollow spheres to place", minimum=1, maximum=10**6)
    vesicles: int = parameter(2, "membrane vesicles to place", minimum=0, maximum=10**4)
    beads: int = parameter(0, "gold beads to place", minimum=0, maximum=10**4)
    templates: str = parameter("", "folder of density maps (MRC, bright protein); empty takes built-in shapes")
    tilt_limit: float = parameter(60.0, "largest tilt angle, on both sides", unit="degrees", minimum=1.0, maximum=89.0)
    tilt_step: float = parameter(3.0, "tilt increment", unit="degrees", minimum=0.1, maximum=30.0)
    snr: float = parameter(
        0.1, "signal-to-noise ratio of the tomogram: variances inside the specimen", minimum=1e-6, maximum=1e6
    )
    noise: str = parameter("gaussian", "kind of noise in the views", choices=("gaussian", "poisson"))
    ctf: bool = parameter(False, "apply a contrast transfer function")
    defocus: float = parameter(3.0, "underfocus, used with ctf", unit="micrometres", minimum=0.1, maximum=20.0)
    seed: int = seed_parameter()
    sign: str = parameter("dark", "dark or bright protein in every file", choices=("dark", "bright"))

    def folder(self) -> Optional[RunFolder]:
        return RunFolder(self.run_folder or self.output)

    def _validate_together(self) -> None:
        super()._validate_together()
        if self.tilt_step > self.tilt_limit:
            raise JobError(
                "the tilt step of %g degrees is larger than the largest tilt angle of %g; choose a smaller step."
                % (self.tilt_step, self.tilt_limit)
            )

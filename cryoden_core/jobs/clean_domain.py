"""The jobs around DUAL's clean domain: make grand models, and make training sets for segmentation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, List, Optional

from .contract import Job, JobError, parameter
from .files import RunFolder
from .shared import seed_parameter

#: Packing takes 16 bytes for each voxel: 32 GB.
LARGEST_VOXELS = 2 * 10**9


@dataclass
class CleanDomainJob(Job):
    """Make the clean domain: grand models packed with known truth, or brought from elsewhere into the same layout."""

    system: ClassVar[str] = "dual clean-domain"
    carried_out_by: ClassVar[str] = "dual.clean_domain:make_clean_domain"

    output: str = parameter("", "folder for the grand models", required=True, alias="-o")
    volumes: int = parameter(4, "grand models to make", minimum=1, maximum=10**4)
    depth: int = parameter(200, "size along z, the beam", unit="voxels", minimum=32, maximum=4096)
    height: int = parameter(512, "size along y, the tilt axis", unit="voxels", minimum=32, maximum=8192)
    width: int = parameter(512, "size along x", unit="voxels", minimum=32, maximum=8192)
    voxel_size: float = parameter(10.0, "voxel size", unit="angstrom", minimum=2.0, maximum=50.0)
    seed: int = seed_parameter()
    sign: str = parameter("bright", "bright or dark protein in the densities", choices=("bright", "dark"))

    templates: List[str] = parameter(
        [],
        "density maps (MRC, bright protein), atomic models (PDB, mmCIF), or folders of them; empty takes built-in "
        "shapes",
    )
    resolution: float = parameter(
        0.0, "resolution of rendered atomic models; 0 takes two voxels", unit="angstrom", minimum=0.0, maximum=200.0
    )
    particles: int = parameter(0, "macromolecules in each volume; 0 fills to the occupancy", minimum=0, maximum=10**6)
    occupancy_min: float = parameter(
        0.02, "smallest share of the voxels that macromolecules fill", minimum=0.0, maximum=0.5
    )
    # Fields of a few large hollow classes were full at 0.16, mixed ones at 0.24.
    occupancy_max: float = parameter(
        0.15, "largest share of the voxels that macromolecules fill", minimum=0.001, maximum=0.5
    )
    abundance_spread: float = parameter(
        0.5,
        "concentration of the Dirichlet distribution of the classes' abundances; small ones give volumes of few "
        "classes, large ones even numbers",
        minimum=0.05,
        maximum=1000.0,
        expert=True,
    )
    vesicles: int = parameter(4, "vesicles in each volume, at most", minimum=0, maximum=1000)
    tubes: int = parameter(1, "membrane tubes in each volume, at most", minimum=0, maximum=100)
    sheets: int = parameter(1, "curved membrane sheets in each volume, at most", minimum=0, maximum=100)
    membrane_radius_min: float = parameter(
        200.0, "smallest radius of vesicles", unit="angstrom", minimum=100.0, maximum=10000.0, expert=True
    )
    membrane_radius_max: float = parameter(
        1500.0, "largest radius of vesicles", unit="angstrom", minimum=100.0, maximum=10000.0, expert=True
    )
    membrane_proteins: int = parameter(20, "proteins in each membrane, at most", minimum=0, maximum=10**4)
    membrane_templates: List[str] = parameter(
        [],
        "maps or models of membrane proteins, z axis along the outward normal, centre of mass in the middle of the "
        "bilayer; empty takes a built-in channel",
        expert=True,
    )
    actin: int = parameter(6, "actin filaments in each volume, at most", minimum=0, maximum=1000)
    microtubules: int = parameter(2, "microtubules in each volume, at most", minimum=0, maximum=1000)
    clusters: int = parameter(3, "chains of 4 to 12 particles, like polysomes, at most", minimum=0, maximum=1000)
    cluster_template: str = parameter(
        "", "name of the template that forms clusters; empty takes the heaviest", expert=True
    )
    beads: int = parameter(15, "gold beads in each volume, at most", minimum=0, maximum=1000)
    bead_radius_min: float = parameter(
        25.0, "smallest radius of gold beads", unit="angstrom", minimum=5.0, maximum=500.0, expert=True
    )
    bead_radius_max: float = parameter(
        50.0, "largest radius of gold beads", unit="angstrom", minimum=5.0, maximum=500.0, expert=True
    )
    gold_contrast: float = parameter(
        8.0, "density of gold where protein has 1", minimum=0.0, maximum=100.0, expert=True
    )
    crowding: float = parameter(
        0.02,
        "standard deviation of the background of unresolved molecules, where protein has 1",
        minimum=0.0,
        maximum=1.0,
        expert=True,
    )
    ice_thickness_min: float = parameter(
        0.0, "smallest thickness of the ice", unit="angstrom", minimum=0.0, maximum=100000.0, expert=True
    )
    ice_thickness_max: float = parameter(
        0.0,
        "largest thickness of the ice, with vacuum above and below; 0 fills the volume with ice",
        unit="angstrom",
        minimum=0.0,
        maximum=100000.0,
        expert=True,
    )
    gap: float = parameter(1.0, "free space around each object", unit="voxels", minimum=0.0, maximum=20.0, expert=True)
    existing: List[str] = parameter(
        [],
        "grand models to take instead of packing: MRC files, SHREC folders (grandmodel.mrc), PolNet output folders "
        "(tomo_NNN_den.mrc, or tomos_motif_list.csv)",
    )
    existing_voxel_size: float = parameter(
        0.0,
        "voxel size of the existing grand models; 0 takes it from each file's header",
        unit="angstrom",
        minimum=0.0,
        maximum=1000.0,
    )
    existing_sign: str = parameter(
        "bright", "sign of protein in the existing grand models", choices=("bright", "dark"), expert=True
    )
    resume: bool = parameter(False, "keep the volumes that an interrupted run of the same job has finished")
    run_folder: str = parameter("", "folder for progress and result; empty takes the output folder", expert=True)

    def folder(self) -> Optional[RunFolder]:
        return RunFolder(self.run_folder or self.output)

    def _validate_together(self) -> None:
        for low, high in (
            ("occupancy_min", "occupancy_max"),
            ("membrane_radius_min", "membrane_radius_max"),
            ("bead_radius_min", "bead_radius_max"),
            ("ice_thickness_min", "ice_thickness_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise JobError(
                    "parameter '%s' (%g) must not be larger than '%s' (%g)."
                    % (low, getattr(self, low), high, getattr(self, high))
                )
        if self.depth * self.height * self.width > LARGEST_VOXELS:
            raise JobError(
                "a field of %d x %d x %d voxels is too large; at most %g voxels can be packed at once."
                % (self.width, self.height, self.depth, LARGEST_VOXELS)
            )
        if 0 < self.ice_thickness_max < 20 * self.voxel_size:
            raise JobError(
                "ice of %g angstrom is too thin at %g angstrom a voxel; 'ice_thickness_max' must be 0 or at least 20 "
                "voxels." % (self.ice_thickness_max, self.voxel_size)
            )


@dataclass
class TrainingSetJob(Job):
    """Make a training set for segmentation: a tomogram with its class mask, its locations and what they mean."""

    system: ClassVar[str] = "dual make-training-set"
    carried_out_by: ClassVar[str] = "dual.training_set:make_training_set"

    tomogram: str = parameter("", "tomogram to learn from, simulated or not (MRC)", required=True, positional=True)
    labels: str = parameter("", "number of the class of each voxel, 0 is background (MRC)", required=True)
    particles: str = parameter("", "locations and names of the classes (STAR, as written beside grand models)")
    output: str = parameter("", "folder for the training set", required=True, alias="-o")
    classes: List[str] = parameter(
        [], "names or numbers of the classes to keep, in the order of their new numbers; empty keeps all"
    )
    crop: int = parameter(
        0, "edge of the crops to cut around each location too; 0 cuts none", unit="voxels", minimum=0, maximum=512
    )
    run_folder: str = parameter("", "folder for progress and result; empty takes the output folder", expert=True)

    def folder(self) -> Optional[RunFolder]:
        return RunFolder(self.run_folder or self.output)

    def _validate_together(self) -> None:
        for path in (self.tomogram, self.labels, self.particles):
            if path and os.path.dirname(os.path.realpath(path)) == os.path.realpath(self.output):
                raise JobError(
                    "%s lies in the output folder, where it could be overwritten; choose another folder." % path
                )
        if 0 < self.crop < 16:
            raise JobError("parameter 'crop' must be 0 or at least 16, not %d." % self.crop)

"""The jobs that judge: a volume, picking, the realism of simulations, hallucination, the missing wedge, training sets.

They compute figures, which are printed, and written as JSON where ``output`` says.  Only the last trains a network and
has a run folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, List, Optional

from .contract import ComputeJob, Job, JobError, ResumableJob, parameter, refuse_clashes, refuse_one_half
from .files import RunFolder
from .shared import (
    clip_parameter,
    contrast_of_particles,
    exclusion_parameter,
    ratio_parameter,
    seed_parameter,
    sigma_parameter,
    voxel_size_parameter,
)

#: What phantoms hold that has a place and a pose.
KINDS = ("particle", "filament", "membrane protein")


@dataclass
class EvaluationJob(Job):
    """What the jobs that judge share."""

    output: str = parameter("", "JSON file for the figures and curves; empty only prints them", alias="-o")

    def inputs(self) -> List[str]:
        """The files that are read, those that were given."""
        raise NotImplementedError

    def outputs(self) -> List[str]:
        """The files that are written, those that were asked for."""
        return [self.output] if self.output else []

    def _validate_together(self) -> None:
        refuse_clashes(self.inputs(), self.outputs())


@dataclass
class EvaluateJob(EvaluationJob):
    """Compare a volume with the known truth, and its two halves with each other."""

    system: ClassVar[str] = "evaluate volume"
    carried_out_by: ClassVar[str] = "evaluation.volume:evaluate"

    test: str = parameter("", "volume to judge (MRC)", required=True, positional=True)
    reference: str = parameter("", "the truth, on the same grid (MRC)", required=True, positional=True)
    input: str = parameter("", "the volume as it was before (MRC); the gain over it is told as well")
    mask: str = parameter("", "mask with a soft edge, 1 inside (MRC); only what lies inside counts")
    labels: str = parameter(
        "", "class of every voxel, 0 for the background (MRC); adds figures near the specimen and contrast to noise"
    )
    gold_label: int = parameter(
        0, "label of gold beads, which are then left out near the specimen; 0 for none", minimum=0, maximum=32767
    )
    dilation: float = parameter(
        30.0, "how far around the labelled voxels counts as near", unit="angstrom", minimum=0.0, maximum=1000.0
    )
    even: str = parameter("", "even half of the volume; with --odd the halves are compared too")
    odd: str = parameter("", "odd half of the volume")
    voxel_size: float = voxel_size_parameter()

    def inputs(self) -> List[str]:
        return [self.test, self.reference, self.input, self.mask, self.labels, self.even, self.odd]

    def _validate_together(self) -> None:
        refuse_one_half(self.even, self.odd)
        super()._validate_together()


@dataclass
class EvaluatePickingJob(EvaluationJob):
    """Pick particles by difference of Gaussians and compare the picks with where the particles are."""

    system: ClassVar[str] = "evaluate picking"
    carried_out_by: ClassVar[str] = "evaluation.picking:evaluate"

    tomograms: List[str] = parameter([], "tomograms to pick in (MRC)", required=True, positional=True)
    truth: List[str] = parameter(
        [], "true positions (STAR, rlnCoordinateX, Y, Z in voxels), one file for each tomogram"
    )
    kinds: List[str] = parameter(
        ["particle"],
        "kinds of objects that count where the truth tells them (cryodenKind): particle, filament, membrane protein",
    )
    picks: str = parameter("", "folder for the picks, one STAR file for each tomogram")
    contrast: str = contrast_of_particles()
    sigma: float = sigma_parameter()
    ratio: float = ratio_parameter()
    exclusion: float = exclusion_parameter()
    count: int = parameter(
        500, "picks to keep in each tomogram; 0 keeps as many as there are true positions", minimum=0, maximum=10**6
    )
    tolerance: float = parameter(
        80.0, "largest distance of a pick from the particle", unit="angstrom", minimum=1.0, maximum=2000.0
    )
    clip: float = clip_parameter()
    voxel_size: float = voxel_size_parameter()

    def inputs(self) -> List[str]:
        return [*self.tomograms, *self.truth]

    def _validate_together(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise JobError("there is no kind of objects %r; there are: %s." % (unknown[0], ", ".join(KINDS)))
        if self.truth and len(self.truth) != len(self.tomograms):
            raise JobError(
                "give one file of true positions for each tomogram: %d tomograms, %d files."
                % (len(self.tomograms), len(self.truth))
            )
        if not self.truth and not self.picks:
            raise JobError("give 'truth' to compare with, or 'picks' to write, or both.")
        if not self.truth and not self.count:
            raise JobError("a count of 0 takes the number of true positions, and 'truth' is not given.")
        super()._validate_together()


def tilt_parameter(sign: int) -> float:
    """The end of the tilt range on one side."""
    return parameter(
        60.0 * sign, "%s tilt angle of the series" % ("largest" if sign > 0 else "smallest"), unit="degrees",
        minimum=-90.0, maximum=90.0,
    )  # fmt: skip


def check_tilts(tilt_min: float, tilt_max: float) -> None:
    """Refuse a tilt range that is empty."""
    if tilt_min >= tilt_max:
        raise JobError("the tilt range from %g to %g degrees is empty." % (tilt_min, tilt_max))


@dataclass
class EvaluateRealismJob(EvaluationJob):
    """Compare simulated tomograms with real ones: spectra, missing wedge, distributions, and classifiers."""

    system: ClassVar[str] = "evaluate realism"
    carried_out_by: ClassVar[str] = "evaluation.realism:evaluate"

    real: List[str] = parameter([], "real tomograms (MRC)", required=True)
    simulated: List[str] = parameter([], "simulated tomograms (MRC)", required=True)
    clean: List[str] = parameter(
        [], "density maps that the simulated ones were made from, in their order; adds two controls without learning"
    )
    real_clean: List[str] = parameter([], "density maps of the real ones, in their order, where they are known (MRC)")
    draws: List[str] = parameter([], "simulations of one map, the first of 'clean', with different seeds (MRC)")
    tilt_min: float = tilt_parameter(-1)
    tilt_max: float = tilt_parameter(+1)
    edge: int = parameter(32, "edge of the blocks that are compared", unit="voxels", minimum=16, maximum=128)
    signal_share: float = parameter(
        0.1, "share of the variance that is signal in the controls; with 'real_clean' it is measured",
        minimum=0.0, maximum=0.99,
    )  # fmt: skip
    network_steps: int = parameter(
        300, "steps to train the network that tells the sets apart; 0 leaves it out", minimum=0, maximum=10**6
    )
    seed: int = seed_parameter()

    def inputs(self) -> List[str]:
        return [*self.real, *self.simulated, *self.clean, *self.real_clean, *self.draws]

    def _validate_together(self) -> None:
        check_tilts(self.tilt_min, self.tilt_max)
        for given, of, name in ((self.clean, self.simulated, "simulated"), (self.real_clean, self.real, "real")):
            if given and len(given) != len(of):
                raise JobError(
                    "give one density map for each %s tomogram: %d tomograms, %d maps." % (name, len(of), len(given))
                )
        if len(self.draws) == 1:
            raise JobError("one draw cannot be compared with another; give two or more, or none.")
        super()._validate_together()


def job_file_parameter(what: str) -> str:
    """The parameter ``job``: a job file of the method that is judged."""
    help = "job file of the method, as in its run folder (job.json), with which %s; that run's model is applied"
    return parameter("", help % what)


@dataclass
class EvaluateHallucinationJob(EvaluationJob):
    """Count the particles that a denoiser makes of volumes that hold none."""

    system: ClassVar[str] = "evaluate hallucination"
    carried_out_by: ClassVar[str] = "evaluation.hallucination:evaluate"

    tomogram: str = parameter("", "tomogram to make structureless volumes from (MRC)", required=True, positional=True)
    controls: str = parameter("", "folder to write those volumes to, and what 'job' makes of them")
    job: str = job_file_parameter("the tomogram and they are denoised")
    denoised: str = parameter("", "the tomogram, denoised (MRC)")
    denoised_randomised: str = parameter("", "the volume with randomised phases, denoised (MRC)")
    denoised_shuffled: str = parameter("", "the volume with shuffled voxels, denoised (MRC)")
    empty: str = parameter("", "a tomogram of a region without specimen (MRC)")
    denoised_empty: str = parameter("", "the same, denoised (MRC)")
    even: str = parameter("", "even half; with --odd and both denoised, their agreement is compared")
    odd: str = parameter("", "odd half")
    denoised_even: str = parameter("", "even half, denoised")
    denoised_odd: str = parameter("", "odd half, denoised")
    count: int = parameter(100, "particles that a person would pick in the tomogram", minimum=1, maximum=10**6)
    contrast: str = contrast_of_particles()
    sigma: float = sigma_parameter()
    ratio: float = ratio_parameter()
    exclusion: float = exclusion_parameter()
    seed: int = seed_parameter()
    voxel_size: float = voxel_size_parameter()

    def inputs(self) -> List[str]:
        return [
            self.tomogram, self.job, self.denoised, self.denoised_randomised, self.denoised_shuffled, self.empty,
            self.denoised_empty, self.even, self.odd, self.denoised_even, self.denoised_odd,
        ]  # fmt: skip

    def _validate_together(self) -> None:
        denoised = self.denoised and self.denoised_randomised
        if self.job and not self.controls:
            raise JobError("give 'controls', a folder for the volumes that the job file is to denoise.")
        if self.job and (self.denoised or self.denoised_randomised):
            raise JobError("give the job file or the denoised volumes, not both.")
        if not self.controls and not denoised:
            raise JobError(
                "give 'controls' to write the structureless volumes, or 'denoised' and 'denoised_randomised' to judge."
            )
        halves = [self.even, self.odd, self.denoised_even, self.denoised_odd]
        if any(halves) and not all(halves):
            raise JobError("give both halves and both denoised halves, or none of the four.")
        super()._validate_together()


@dataclass
class EvaluateWedgeJob(EvaluationJob):
    """Judge what was filled into the missing wedge, and whether what was measured is unchanged."""

    system: ClassVar[str] = "evaluate wedge"
    carried_out_by: ClassVar[str] = "evaluation.wedge:evaluate"

    compensated: str = parameter("", "volume with the missing wedge filled (MRC)", required=True, positional=True)
    input: str = parameter("", "the volume before (MRC)", required=True, positional=True)
    truth: str = parameter("", "the density, without a missing wedge (MRC)")
    tilt_min: float = tilt_parameter(-1)
    tilt_max: float = tilt_parameter(+1)
    self_test: str = parameter(
        "", "volume to write (MRC): the filled one with x and z exchanged and the wedge cut out again, to be filled"
    )
    self_test_filled: str = parameter("", "that volume, filled again (MRC)")
    job: str = job_file_parameter("the self-test is filled")

    def inputs(self) -> List[str]:
        return [self.compensated, self.input, self.truth, self.self_test_filled, self.job]

    def outputs(self) -> List[str]:
        return [*super().outputs(), *([self.self_test] if self.self_test else [])]

    def _validate_together(self) -> None:
        check_tilts(self.tilt_min, self.tilt_max)
        if self.job and (not self.self_test or self.self_test_filled):
            raise JobError("with a job file give 'self_test', the volume to write and fill, and no filled one.")
        super()._validate_together()


@dataclass
class EvaluateSegmentationJob(EvaluationJob, ResumableJob):
    """Train a small segmentation network on training sets and judge it on tomograms whose labels are known."""

    system: ClassVar[str] = "evaluate segmentation"
    carried_out_by: ClassVar[str] = "evaluation.segmentation:evaluate"

    tomograms: List[str] = parameter([], "tomograms to segment (MRC)", required=True, positional=True)
    labels: List[str] = parameter([], "class of every voxel of each of them, 0 for the background (MRC)", required=True)
    training_sets: List[str] = parameter(
        [], "folders to learn from, as 'dual make-training-set' writes them", required=True
    )
    particles: List[str] = parameter(
        [], "where the particles of each tomogram are (STAR); adds F1 of the regions that were found"
    )
    groups: List[str] = parameter(
        [],
        "classes to be taken as one, NAME=CLASS,CLASS; what is in no group is left out of training and judgement; "
        "empty takes every class by itself",
    )
    smallest: int = parameter(
        1000, "without groups, classes with fewer voxels in all training sets together are joined into one, 'other'",
        minimum=0, maximum=10**9,
    )  # fmt: skip
    segmentations: str = parameter("", "folder for the segmentations, one MRC file for each tomogram")
    steps: int = parameter(2000, "training steps", minimum=1, maximum=10**7)
    seed: int = seed_parameter()
    features: int = parameter(16, "channels of the network at full resolution", minimum=2, maximum=256, expert=True)
    patch: int = parameter(32, "edge of the training crops", unit="voxels", minimum=8, maximum=256, expert=True)
    batch: int = parameter(4, "crops in a training step", minimum=1, maximum=1024, expert=True)

    def folder(self) -> Optional[RunFolder]:
        if not self.output and not self.run_folder:
            return None
        return RunFolder.beside(self.output, self.run_folder)

    def inputs(self) -> List[str]:
        return [*self.tomograms, *self.labels, *self.particles]

    def segmentation_of(self, index: int) -> str:
        """Where the segmentation of a tomogram is written; empty when it is not."""
        return os.path.join(self.segmentations, "segmentation_%d.mrc" % (index + 1)) if self.segmentations else ""

    def outputs(self) -> List[str]:
        written = [self.segmentation_of(index) for index in range(len(self.tomograms))]
        return [*super().outputs(), *(path for path in written if path)]

    def _validate_together(self) -> None:
        super()._validate_together()
        ComputeJob._validate_together(self)
        for given, what in ((self.labels, "labels volume"), (self.particles, "file of particles")):
            if given and len(given) != len(self.tomograms):
                raise JobError(
                    "give one %s for each tomogram: %d tomograms, %d files." % (what, len(self.tomograms), len(given))
                )
        if self.resume and self.folder() is None:
            raise JobError("there is nothing to resume without a run folder; give 'output' or 'run_folder'.")

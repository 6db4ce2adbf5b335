"""Picking by difference of Gaussians: the form and the coordinates that come out."""

import math
from typing import Any, List, Sequence

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import GE, Form, IntParam, PointerParam
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D, SetOfTomograms

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import PickJob
from cryoden_core.progress import DONE, read_progress

from ..constants import IN_MASK, IN_TOMO_SET, OUTPUT_COORDINATES, OUTPUT_FAILED
from ..convert import item_folders
from ..forms import add_job_param, add_job_params, job_settings
from ..picks import pick_job, picked_coordinates, picks_file
from .protocol_tomograms import ProtCryodenTomograms

#: Box over diameter, when no box size is given: room for the particle and some of what is around it.
BOX_OVER_DIAMETER = 1.5


class ProtCryodenPick(ProtCryodenTomograms):
    """
    Picks particles as blobs of one size, by difference of Gaussians. Nothing is trained, and nothing is known of what a
    particle looks like but its diameter: take it to see what is there, on denoised tomograms best.

    What you get: coordinates with their scores, without orientations. A score says by how many standard deviations of
    the filtered tomogram a pick stands out. Noise alone reaches 4 now and then, and vesicles, gold and edges of carbon
    are picked where they are as large as particles: look at the coordinates before you use them.

    To average particles extract them from the original tomograms, not from denoised ones: *Extract* protocols match
    both by tsId.
    """

    _label = "pick particles (DoG)"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D, OUTPUT_FAILED: SetOfTomograms}

    OUTPUT = OUTPUT_COORDINATES
    NOTHING = "No particle was picked: take a smaller threshold, or look at diameter and contrast."

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            IN_TOMO_SET,
            PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Tomograms",
            help="Denoised ones best. The set may still be growing: each one is processed when it arrives.",
        )
        form.addParam(
            IN_MASK,
            PointerParam,
            pointerClass="SetOfTomoMasks",
            allowsNull=True,
            label="Masks (optional)",
            help="Where the centres of particles may lie, matched by tsId. A tomogram without a mask is picked "
            "everywhere.",
        )
        add_job_param(
            form, PickJob, "diameter", "Diameter of the particles", "A ribosome is 250 to 280 wide.", important=True
        )
        add_job_param(form, PickJob, "contrast", "Particles are", "*dark* in most reconstructions.")
        add_job_params(
            form,
            PickJob,
            (("threshold", "Smallest score", "Between 2, where many are false, and 5."),
             ("count", "Picks in each tomogram, at most (0: all)"),
             ("border", "Free border", "Half the diameter leaves out particles that are cut by a face.")),
        )  # fmt: skip
        form.addParam(
            "boxSize",
            IntParam,
            default=0,
            validators=[GE(0)],
            label="Box size (voxels; 0: automatic)",
            help="Of the coordinates, for extraction and for the viewers. 0 takes one and a half diameters, even.",
        )
        for name, label in (
            ("exclusion", "Smallest distance"), ("clip", "Bring densities to within"), ("ratio", "Ratio of the widths"),
        ):  # fmt: skip
            add_job_param(form, PickJob, name, label, expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(threads=2, mpi=0)

    # --------------------------- STEPS functions -----------------------------
    def _jobOf(self, tsId: str) -> PickJob:
        mask = self.fileOf(getattr(self, IN_MASK).get(), tsId)
        return pick_job(self._items[tsId], self._itemFolder(tsId), job_settings(self, PickJob), mask)

    def _outputItems(self, tsId: str) -> List[Any]:
        return list(picked_coordinates(picks_file(self._itemFolder(tsId)), self._items[tsId]))

    def _newOutputSet(self) -> SetOfCoordinates3D:
        picked = self._createSetOfCoordinates3D(self.getInputSet(pointer=True))
        picked.setSamplingRate(self.getInputSet().getSamplingRate())
        picked.setBoxSize(self.boxOfParticles())
        return self._announce(OUTPUT_COORDINATES, picked)

    # --------------------------- INFO functions ------------------------------
    def _methods(self) -> List[str]:
        picked = getattr(self, OUTPUT_COORDINATES, None)
        if picked is None:
            return []
        return [
            "%d particles of %g \u00c5 were picked by difference of Gaussians as implemented in CryoDen %s (smallest "
            "score %g)." % (picked.getSize(), self.diameter.get(), CORE_VERSION, self.threshold.get())
        ]

    def _citations(self) -> Sequence[str]:
        return ["Zeng2024"]

    # --------------------------- UTILS functions -----------------------------
    def boxOfParticles(self) -> int:
        """Box size in voxels: that of the form, or the even one that holds one and a half diameters."""
        if self.boxSize.get():
            return self.boxSize.get()
        return 2 * math.ceil(BOX_OVER_DIAMETER * self.diameter.get() / self.getInputSet().getSamplingRate() / 2)

    def _finishedItems(self) -> int:
        folders = item_folders(self._getExtraPath())
        return sum(read_progress(folder.progress).get("state") == DONE for folder in folders)

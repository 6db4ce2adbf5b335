"""Grand models for DUAL's clean domain (Zeng et al., bioRxiv 2024.03.02.583135): the form and the outputs."""

import os
from typing import Any, Dict, List, Sequence

from pwem.objects import SetOfAtomStructs, SetOfVolumes
from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import GT, EnumParam, Form, IntParam, MultiPointerParam, PathParam, PointerParam
from pyworkflow.utils import Message
from tomo.objects import SetOfCoordinates3D, SetOfTomograms, SetOfTomoMasks

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import CleanDomainJob, JobError
from cryoden_core.phantom.particles import read_star

from ..clean_domain import (
    clean_domain_job,
    coordinates,
    grand_model_tomogram,
    labels_mask,
    model_file,
    template_files,
    volume_problems,
)
from ..constants import OUTPUT_COORDINATES, OUTPUT_LABELS, OUTPUT_TOMOGRAMS
from ..convert import clean_path
from ..forms import add_job_params, at_most, job_settings
from .protocol_one_job import ProtCryodenOneJob

SHAPES, MAPS, STRUCTURES, FILES, EXISTING = range(5)

SIZE = (
    ("volumes", "Number of grand models", "The paper takes ten, four of them to train on."),
    ("width", "Width"),
    ("height", "Height"),
    ("depth", "Thickness"),
    ("voxel_size", "Voxel size", "Take that of the tomograms that the model will be trained on; the wand reads "
     "it."),
    ("sign", "Protein is", "*bright* is usual; training looks at the contrast of each domain."),
    ("seed", "Seed", "The same seed makes the same grand models."),
)  # fmt: skip
CONTENTS = (
    ("occupancy_min", "Smallest share of the volume filled"),
    ("occupancy_max", "Largest share of the volume filled", "Each volume draws its own between the two. The densest "
     "packings of mixed sizes reach about 0.24."),
    ("particles", "Macromolecules (0: by the share filled)"),
    ("vesicles", "Vesicles, at most"),
    ("tubes", "Membrane tubes, at most"),
    ("sheets", "Membrane sheets, at most"),
    ("membrane_proteins", "Proteins in each membrane, at most"),
    ("actin", "Actin filaments, at most"),
    ("microtubules", "Microtubules, at most"),
    ("clusters", "Chains of particles, at most"),
    ("beads", "Gold beads, at most"),
)  # fmt: skip
EXPERT = (
    ("resolution", "Resolution of atomic structures"),
    ("abundance_spread", "Evenness of the classes"),
    ("membrane_radius_min", "Smallest vesicle"),
    ("membrane_radius_max", "Largest vesicle"),
    ("cluster_template", "Template that forms chains"),
    ("bead_radius_min", "Smallest bead"),
    ("bead_radius_max", "Largest bead"),
    ("gold_contrast", "Density of gold"),
    ("crowding", "Crowded background"),
    ("ice_thickness_min", "Thinnest ice"),
    ("ice_thickness_max", "Thickest ice"),
    ("gap", "Free space around objects"),
)


class ProtCryodenDualCleanDomain(ProtCryodenOneJob):
    """
    Makes grand models: noise-free volumes in which macromolecules, membranes, filaments and gold beads are packed at
    known places. They are the clean domain that DUAL is trained with, and what it simulates labelled tomograms of.

    What goes in: nothing (built-in shapes), density maps, atomic structures, files of these, or grand models made
    elsewhere (SHREC folders, PolNet outputs, MRC files), which are brought into the same layout.

    What you get: a set of tomograms, one for each grand model, without noise and without missing wedge; the
    coordinates of all that was placed, with orientations; and the labels, the number of the class of each voxel. That
    number is the coordinate's group, and the name of the class goes along. For each model there are also, in the folder
    of the run, the instances as a volume, the table of particles (STAR), and volume.json with all that was drawn.

    Choose contents like those of the tomograms: what the clean domain does not know, DUAL takes for noise, and what
    only the clean domain knows, it may put into tomograms that do not have it.
    """

    _label = "make clean domain"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_TOMOGRAMS: SetOfTomograms,
        OUTPUT_COORDINATES: SetOfCoordinates3D,
        OUTPUT_LABELS: SetOfTomoMasks,
    }

    FOLDER = "grand_models"

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        form.addSection(label=Message.LABEL_INPUT)
        self._defineTemplateParams(form)
        packed = "templateSource != %d" % EXISTING
        add_job_params(form, CleanDomainJob, SIZE[:4], condition=packed)
        form.addParam(
            "inputLike",
            PointerParam,
            pointerClass="SetOfTomograms",
            allowsNull=True,
            label="Tomograms to be like (optional)",
            help="Those that the model will be trained on: the wand at the voxel size reads it from them. Nothing else "
            "is taken from them; grand models need not have their size.",
        )
        add_job_params(form, CleanDomainJob, SIZE[4:-1])
        add_job_params(form, CleanDomainJob, SIZE[-1:], condition=packed)
        form.addParam(
            "boxSize",
            IntParam,
            default=32,
            validators=[GT(0)],
            label="Box size of the coordinates (voxels)",
            help="For extraction and for the viewers; it changes nothing in the grand models.",
        )
        form.addSection(label="Contents")
        add_job_params(form, CleanDomainJob, CONTENTS, condition=packed)
        form.addParam(
            "inputMembraneProteins",
            PointerParam,
            pointerClass="SetOfVolumes, Volume",
            allowsNull=True,
            condition=packed,
            expertLevel=LEVEL_ADVANCED,
            label="Maps of membrane proteins (optional)",
            help="Maps with bright protein whose z axis is the outward normal of the membrane, with the centre of mass "
            "in the middle of the bilayer. Without them a built-in channel is taken.",
        )
        add_job_params(form, CleanDomainJob, EXPERT, condition=packed, expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(threads=0, mpi=0)

    @staticmethod
    def _defineTemplateParams(form: Form) -> None:
        form.addParam(
            "templateSource",
            EnumParam,
            choices=["built-in shapes", "density maps", "atomic structures", "files or folders", "finished models"],
            default=SHAPES,
            label="Macromolecules from",
            help="*Built-in shapes* need nothing, and teach the texture of a tomogram but not your proteins.\n*Density "
            "maps* and *atomic structures* are taken from the project; *files or folders* from the disk.\n*Finished "
            "models* were made by another program: nothing is packed, they are brought into one layout.",
        )
        form.addParam(
            "inputVolumes",
            PointerParam,
            pointerClass="SetOfVolumes, Volume",
            allowsNull=True,
            condition="templateSource == %d" % MAPS,
            label="Density maps",
            help="Maps with bright protein, one class each, at any sampling rate; they are resampled. A file's name "
            "becomes the name of its class.",
        )
        form.addParam(
            "inputStructures",
            MultiPointerParam,
            pointerClass="AtomStruct, SetOfAtomStructs",
            allowsNull=True,
            condition="templateSource == %d" % STRUCTURES,
            label="Atomic structures",
            help="PDB or mmCIF; their density is computed at the voxel size.",
        )
        form.addParam(
            "templatePath",
            PathParam,
            condition="templateSource == %d" % FILES,
            label="File or folder",
            help="A density map (MRC, bright protein), an atomic model (PDB, mmCIF), or a folder of these.",
        )
        form.addParam(
            "existingPath",
            PathParam,
            condition="templateSource == %d" % EXISTING,
            label="Grand models",
            help="An MRC file, a SHREC folder (grandmodel.mrc), or a PolNet output folder (tomos_motif_list.csv).",
        )
        add_job_params(
            form,
            CleanDomainJob,
            (("existing_sign", "Protein in them is"), ("existing_voxel_size", "Their voxel size")),
            condition="templateSource == %d" % EXISTING,
        )

    # --------------------------- STEPS functions -----------------------------
    def _job(self) -> CleanDomainJob:
        return clean_domain_job(self.folder(), dict(self._jobSettings(), **self._sources()))

    def createOutputStep(self) -> None:
        """Register the grand models and what was placed in them."""
        result = self._result()
        tomograms = self._createSetOfTomograms()
        tomograms.setSamplingRate(result["volumes"][0]["voxel_size"])
        for entry in result["volumes"]:
            tomograms.append(grand_model_tomogram(entry, self.folder()))
        tomograms.write()
        self._defineOutputs(**{OUTPUT_TOMOGRAMS: tomograms})
        placed = self._createSetOfCoordinates3D(Pointer(self, extended=OUTPUT_TOMOGRAMS))
        placed.setSamplingRate(tomograms.getSamplingRate())
        placed.setBoxSize(self.boxSize.get())
        files = {entry["name"]: model_file(entry, self.folder(), "particles") for entry in result["volumes"]}
        for tomogram in [item.clone() for item in tomograms.iterItems()]:
            for coordinate in coordinates(read_star(files[tomogram.getTsId()]), tomogram):
                placed.append(coordinate)
        if placed.getSize():
            self._defineOutputs(**{OUTPUT_COORDINATES: placed})
        self._registerLabels(result, tomograms)
        for pointer in self._inputPointers():
            self._defineSourceRelation(pointer, tomograms)

    def _registerLabels(self, result: Dict[str, Any], tomograms: SetOfTomograms) -> None:
        files = {entry["name"]: model_file(entry, self.folder(), "labels") for entry in result["volumes"]}
        labels = SetOfTomoMasks.create(self._getPath(), template="tomomasks%s.sqlite", suffix="Labels")
        labels.copyInfo(tomograms)
        for tomogram in tomograms.iterItems():
            labels.append(labels_mask(files[tomogram.getTsId()], tomogram))
        self._defineOutputs(**{OUTPUT_LABELS: labels})

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        source = self.templateSource.get()
        missing = {
            MAPS: (not self._volumes(), "Choose the density maps."),
            STRUCTURES: (not self._structures(), "Choose at least one atomic structure."),
            FILES: (not self.templatePath.get(), "Give a file or a folder with templates."),
            EXISTING: (not self.existingPath.get(), "Give the grand models."),
        }
        absent, sentence = missing.get(source, (False, ""))
        if absent:
            return [sentence]
        for path in (self.templatePath, self.existingPath):
            used = source == (FILES if path is self.templatePath else EXISTING)
            if used and not os.path.exists(path.get()):
                return ["%s does not exist." % path.get()]
        maps = self._volumes() if source == MAPS else []
        problems = at_most(volume_problems([*maps, *self._membraneProteins()]), what="maps")
        try:
            clean_domain_job(self.folder(), self._jobSettings())
        except JobError as error:
            problems.append(str(error))
        return problems

    def _describeResult(self, result: Dict[str, Any]) -> List[str]:
        counts: Dict[str, int] = {}
        for entry in result.get("volumes", []):
            for name, count in (entry.get("count_of_class") or {}).items():
                counts[name] = counts.get(name, 0) + count
        lines = ["*%d* grand models." % len(result.get("volumes", []))]
        if counts:
            lines.append("Placed: %s." % ", ".join("%d %s" % (counts[name], name) for name in sorted(counts)))
        return lines

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        if output is None:
            return []
        text = "%d grand models of %g \u00c5 per voxel were made with CryoDen %s (seed %d)"
        return [(text + ".") % (output.getSize(), output.getSamplingRate(), CORE_VERSION, self.seed.get())]

    def _citations(self) -> Sequence[str]:
        return ["Zeng2024"]

    # --------------------------- UTILS functions -----------------------------
    def _jobSettings(self) -> Dict[str, Any]:
        return job_settings(self, CleanDomainJob)

    def _sources(self) -> Dict[str, List[str]]:
        """The files that the grand models are made of, as parameters of the job."""
        source = self.templateSource.get()
        if source == EXISTING:
            return {"existing": [os.path.abspath(self.existingPath.get())]}
        found: Dict[str, List[str]] = {}
        if source == MAPS:
            found["templates"] = template_files(self._volumes(), self._getExtraPath("templates"))
        if source == STRUCTURES:
            found["templates"] = self._structures()
        if source == FILES:
            found["templates"] = [os.path.abspath(self.templatePath.get())]
        membrane = self._membraneProteins()
        if membrane:
            found["membrane_templates"] = template_files(membrane, self._getExtraPath("membrane_templates"))
        return found

    def _volumes(self) -> List[Any]:
        return _volumes_of(self.inputVolumes)

    def _membraneProteins(self) -> List[Any]:
        return _volumes_of(self.inputMembraneProteins) if self.templateSource.get() != EXISTING else []

    def _structures(self) -> List[str]:
        """Files of the atomic structures, of single ones and of sets."""
        given = [pointer.get() for pointer in self.inputStructures]
        single = [item for item in given if item is not None and not isinstance(item, SetOfAtomStructs)]
        listed = [item.clone() for group in given if isinstance(group, SetOfAtomStructs) for item in group.iterItems()]
        return [os.path.abspath(clean_path(item.getFileName())) for item in (*single, *listed)]

    def _inputPointers(self) -> List[Pointer]:
        pointers = {MAPS: [self.inputVolumes], STRUCTURES: list(self.inputStructures)}
        membrane = [self.inputMembraneProteins] if self._membraneProteins() else []
        return [*pointers.get(self.templateSource.get(), []), *membrane]


def _volumes_of(pointer: Pointer) -> List[Any]:
    """The maps that a pointer to one or to a set leads to."""
    found = pointer.get()
    if isinstance(found, SetOfVolumes):
        return [volume.clone() for volume in found.iterItems()]
    return [found] if found is not None else []

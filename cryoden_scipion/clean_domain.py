"""From Scipion's maps and atomic structures to the job that makes grand models, and from its result to Scipion's sets.

Pure functions: they read headers and tables, start nothing and change nothing in the project.
"""

import os
from typing import Any, Dict, Iterable, Iterator, List

import numpy as np
from pwem.objects import Volume
from pyworkflow.object import String
from tomo.constants import BOTTOM_LEFT_CORNER, TR_RELION
from tomo.objects import Coordinate3D, TomoAcquisition, Tomogram, TomoMask

from cryoden_core.jobs import CleanDomainJob, JobError, read_json
from cryoden_core.mrc import read_header, read_volume, write_volume
from cryoden_core.phantom.particles import Particle

from .convert import ItemFolder, clean_path

#: A header's voxel size may differ from Scipion's sampling rate by this share; beyond, a copy is made.
HEADER_TOLERANCE = 0.001


def volume_problems(volumes: Iterable[Volume]) -> List[str]:
    """What is wrong with maps that shall be packed, as far as headers tell."""
    problems = []
    for volume in volumes:
        path = clean_path(volume.getFileName())
        try:
            if (volume.getLocation()[0] or 0) > 1:
                raise JobError("the map %s is one of a stack; extract it as a volume of its own." % path)
            if min(read_header(path).shape) < 2:
                raise JobError("%s is an image, not a map." % path)
        except (JobError, OSError) as error:
            problems.append(str(error))
    return problems


def template_files(volumes: Iterable[Volume], folder: str) -> List[str]:
    """The maps as MRC files that say their own voxel size; where a header is wrong a copy is written in ``folder``."""
    paths = []
    for volume in volumes:
        path, wanted = clean_path(volume.getFileName()), float(volume.getSamplingRate())
        if abs(read_header(path).voxel_size - wanted) > HEADER_TOLERANCE * wanted:
            copy = os.path.join(os.path.abspath(folder), os.path.splitext(os.path.basename(path))[0] + ".mrc")
            if copy in paths:
                raise JobError("two of the maps are called %s; rename one." % os.path.basename(path))
            write_volume(copy, read_volume(path), wanted)
            path = copy
        paths.append(os.path.abspath(path))
    return paths


def clean_domain_job(folder: ItemFolder, settings: Dict[str, Any]) -> CleanDomainJob:
    """The job that fills ``folder`` with grand models.

    Raises
    ------
    JobError
        When a parameter is out of its range, or two of them exclude each other.
    """
    parameters = dict(settings, output=os.path.abspath(folder.path), resume=True)
    job = CleanDomainJob.from_parameters(parameters)
    assert isinstance(job, CleanDomainJob)
    return job


def grand_model_tomogram(entry: Dict[str, Any], folder: ItemFolder) -> Tomogram:
    """The tomogram to register for an entry of ``result.json``; a grand model has no missing wedge."""
    tomogram = Tomogram(tsId=entry["name"])
    tomogram.setLocation(model_file(entry, folder, "density"))
    tomogram.setSamplingRate(entry["voxel_size"])
    tomogram.setAcquisition(TomoAcquisition(angleMin=-90.0, angleMax=90.0))
    tomogram.setOrigin()
    return tomogram


def labels_mask(path: str, tomogram: Tomogram) -> TomoMask:
    """The labels of a tomogram, the number of the class of each voxel, as an object of the project.

    It has the tomogram's id too, for some plugins match coordinates and masks by it.
    """
    mask = TomoMask(tsId=tomogram.getTsId())
    mask.setObjId(tomogram.getObjId())
    mask.copyInfo(tomogram)
    mask.setHalfMaps([])
    mask.setLocation(path)
    mask.setVolName(tomogram.getFileName())
    return mask


def model_file(entry: Dict[str, Any], folder: ItemFolder, role: str) -> str:
    """A file of a grand model (density, labels, particles), named relative to the project."""
    return os.path.join(folder.path, entry["name"], os.path.basename(entry[role]))


def class_names(labels: str) -> Dict[int, str]:
    """Names of the classes by their number, as the file beside a volume of labels says; empty where there is none."""
    for about in ("volume.json", "metadata.json"):
        named = read_json(os.path.join(os.path.dirname(labels), about)).get("class_of_label")
        if named:
            return {int(label): str(name) for label, name in named.items() if int(label)}
    return {}


def coordinates(particles: Iterable[Particle], tomogram: Tomogram) -> Iterator[Coordinate3D]:
    """Coordinates in a tomogram of the size of its grand model; the group is the number of the class."""
    for item in particles:
        coordinate = Coordinate3D(tomoId=tomogram.getTsId())
        coordinate.setVolume(tomogram)
        coordinate.setPosition(*(float(value) for value in item.position), BOTTOM_LEFT_CORNER)
        matrix = np.eye(4)
        matrix[:3, :3] = item.rotation.T  # RELION's matrix leads from the particle to its map
        coordinate.setMatrix(matrix, convention=TR_RELION)
        coordinate.setGroupId(item.label)
        coordinate._className = String(item.name)
        yield coordinate


def particle_of(coordinate: Coordinate3D) -> Particle:
    """What a coordinate, whose volume is set, says as the core has it: the other way round."""
    label = coordinate.getGroupId() or 0
    known = getattr(coordinate, "_className", None)
    position = np.array(coordinate.getPosition(BOTTOM_LEFT_CORNER), float)
    rotation = coordinate.getMatrix(convention=TR_RELION)[:3, :3].T
    return Particle("particle", (known and known.get()) or "class_%d" % label, label, position, rotation)

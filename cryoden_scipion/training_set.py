"""From simulated tomograms and the truth of their grand models to training sets, and back to what a project holds.

A training set is a folder that programs outside of Scipion can take as it is: a tomogram, the number of the class of
each of its voxels, locations (STAR, and XML for DeepFinder) and their meaning (JSON).  Inside of Scipion the same
things are a tomogram, a mask that names it, and coordinates whose group is the number of the class.

Pure functions: they read and write tables, start nothing and change nothing in the project.
"""

import contextlib
import os
from typing import Any, Dict, Iterable, List, Sequence

from cryoden_core.jobs import JobError, TrainingSetJob, read_json
from cryoden_core.phantom.particles import write_star

from .clean_domain import class_names, particle_of
from .convert import ItemFolder


def chosen_classes(text: str) -> List[str]:
    """Names or numbers of classes from the text of a form, where commas part them."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def class_problems(labels: Sequence[str], classes: Sequence[str]) -> List[str]:
    """What is wrong with the classes that were chosen for the volumes ``labels`` (files); none chosen are all."""
    tables = [class_names(path) for path in labels]
    names = {label: name for table in tables for label, name in table.items()}
    if not classes and len(tables) > 1 and (not names or any(table != tables[0] for table in tables)):
        return [
            "The labels do not say that their numbers mean the same in all volumes: give the numbers of the classes "
            "to keep."
        ]
    unknown = [name for name in classes if names and name not in names.values() and name not in map(str, names)]
    listed = ", ".join(names[label] for label in sorted(names))
    return ["There is no class '%s' in the labels; there are: %s." % (name, listed) for name in unknown]


def write_locations(coordinates: Iterable[Any], path: str, name: str) -> str:
    """Write coordinates, whose volumes are set, as the table of particles of a grand model; returns ``path``."""
    write_star([particle_of(coordinate) for coordinate in coordinates], path, name)
    return path


def training_set_job(
    tomogram: str, labels: str, particles: str, folder: ItemFolder, classes: Sequence[str], crop: int
) -> TrainingSetJob:
    """The job that makes the training set ``folder`` of a tomogram, its labels and, if any, its particles (files).

    Raises
    ------
    JobError
        When a parameter is out of its range.
    """
    parameters = {
        "tomogram": os.path.abspath(tomogram),
        "labels": labels,
        "particles": os.path.abspath(particles) if particles else "",
        "output": os.path.abspath(folder.path),
        "classes": list(classes),
        "crop": crop,
    }
    job = TrainingSetJob.from_parameters(parameters)
    assert isinstance(job, TrainingSetJob)
    return job


def share_tomogram(folder: ItemFolder, tomogram: str) -> None:
    """Make the tomogram in a training set a link to the one it was made of, so that it takes no room twice.

    On a disk that has no links the copy stays.
    """
    copy = os.path.join(folder.path, _result(folder)["tomogram"])
    with contextlib.suppress(OSError):
        os.symlink(os.path.relpath(tomogram, folder.path), copy + ".link")
        os.replace(copy + ".link", copy)


def class_mask(folder: ItemFolder) -> str:
    """The volume with the new numbers of the classes."""
    return os.path.join(folder.path, _result(folder)["class_mask"])


def new_numbers(folder: ItemFolder) -> Dict[int, int]:
    """New number of each class that was kept, by its number in the labels."""
    return {int(old): int(new) for new, old in _result(folder)["label_in_source"].items()}


def describe_sets(folders: Sequence[ItemFolder]) -> List[str]:
    """Lines for a summary: the classes with their numbers and locations."""
    results = [result for result in (read_json(folder.result) for folder in folders) if result]
    if not results:
        return []
    counts: Dict[str, int] = {}
    for result in results:
        for name, count in result["count_of_class"].items():
            counts[name] = counts.get(name, 0) + count
    named = [
        "%s %s%s" % (label, name, " (%d locations)" % counts[name] if name in counts else "")
        for label, name in results[0]["class_of_label"].items()
        if label != "0"
    ]
    return ["*Classes*: %s." % ", ".join(named)]


def warnings_of(folders: Sequence[ItemFolder]) -> List[str]:
    """What was warned of in the training sets."""
    return [warning for folder in folders for warning in read_json(folder.result).get("warnings") or []]


def _result(folder: ItemFolder) -> Dict[str, Any]:
    result = read_json(folder.result)
    if not result:
        raise JobError("the training set %s is not finished." % folder.path)
    return result

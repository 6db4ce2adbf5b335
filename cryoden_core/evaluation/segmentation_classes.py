"""Which classes a segmentation is asked for: groups of those that the training sets have.

Training sets and labels of other origin number their classes differently, so classes are matched by name; one that is
known by its number alone (``class_N``) is that of the number in the labels that the training set was made of.  Classes
that are left out are neither background nor a mistake: their voxels teach nothing and are not judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dual.segmentation import LEFT_OUT, LabelledTomogram
from ..jobs import JobError

#: The class of all that are too small to be learned by themselves.
OTHER = "other"


@dataclass(frozen=True)
class Groups:
    """Classes to be told apart.

    Attributes
    ----------
    members
        Names of the classes that are one, by the group's name, in the order of the labels (from 1 on).
    left_out
        Classes that are in no group and have voxels to learn from.
    numbers
        Names of classes by their numbers in the labels that the training sets were made of.
    """

    members: dict[str, list[str]]
    left_out: list[str]
    numbers: dict[int, str]

    @property
    def names(self) -> dict[int, str]:
        """The groups by label."""
        return {index + 1: name for index, name in enumerate(self.members)}

    def known_as(self, name: str, number: int) -> str:
        """The training sets' name of a class with a name and a number in the labels it comes from; empty for none."""
        known, by_number = self.numbers.values(), f"class_{number}"
        if name in known:
            return name
        if by_number in known:
            return by_number
        return self.numbers.get(number, "") if name == by_number else ""

    def label(self, name: str, number: int) -> int:
        """The label of such a class; LEFT_OUT without one."""
        known = self.known_as(name, number)
        return next((label for label, group in self.names.items() if known in self.members[group]), LEFT_OUT)

    def apply(self, volume: LabelledTomogram) -> LabelledTomogram:
        """The same volume with the groups as its classes."""
        labels = {old: self.label(name, volume.source_labels.get(old, old)) for old, name in volume.class_names.items()}
        table = np.full(max(labels) + 1, LEFT_OUT, np.int16)
        table[0] = 0
        table[list(labels)] = list(labels.values())
        mask = table[np.asarray(volume.mask)]
        particles = [dataclasses.replace(item, label=labels[item.label]) for item in volume.particles]
        return dataclasses.replace(volume, mask=mask, class_names=self.names, particles=particles)


def choose_groups(sets: Sequence[LabelledTomogram], asked: Sequence[str], smallest: int) -> Groups:
    """Groups as asked for, or every class by itself, of which small ones are joined.

    Parameters
    ----------
    sets
        What is learned from.
    asked
        ``NAME=CLASS,CLASS`` for each group; empty takes every class.
    smallest
        Without groups, classes with fewer voxels in all sets together become :data:`OTHER`; classes without any, and
        ``other`` while it is as small, are left out.

    Raises
    ------
    JobError
        When a group is not understood, has a class that is not there or in two groups, or no voxel to learn from; or
        when no class is large enough.
    """
    voxels = _voxels_by_class(sets)
    numbers = {
        volume.source_labels.get(label, label): name for volume in sets for label, name in volume.class_names.items()
    }
    members = _asked_for(asked, voxels) if asked else _by_size(voxels, smallest)
    kept = {name for names in members.values() for name in names}
    return Groups(members, [name for name, count in voxels.items() if count and name not in kept], numbers)


def _voxels_by_class(sets: Sequence[LabelledTomogram]) -> dict[str, int]:
    voxels: dict[str, int] = {}
    for volume in sets:
        counts = np.bincount(np.asarray(volume.mask).ravel(), minlength=max(volume.class_names) + 1)
        for label, name in volume.class_names.items():
            voxels[name] = voxels.get(name, 0) + int(counts[label])
    return voxels


def _asked_for(asked: Sequence[str], voxels: dict[str, int]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for text in asked:
        group, _, listed = text.partition("=")
        names = [name for name in listed.split(",") if name]
        if not group or not names:
            raise JobError(f"the group {text!r} is not understood; write NAME=CLASS,CLASS.")
        for name in names:
            if name not in voxels:
                raise JobError(f"there is no class {name!r} in the training sets; there are: {', '.join(voxels)}.")
            if any(name in others for others in members.values()) or names.count(name) > 1:
                raise JobError(f"class {name!r} is in two groups, or twice in one; it can be in one only.")
        if group in members:
            raise JobError(f"there are two groups with the name {group!r}; give each its own.")
        if not sum(voxels[name] for name in names):
            raise JobError(f"no voxel of the training sets belongs to the group {group!r}; leave it out.")
        members[group] = names
    return members


def _by_size(voxels: dict[str, int], smallest: int) -> dict[str, list[str]]:
    members = {name: [name] for name, count in voxels.items() if count and count >= smallest}
    small = [name for name, count in voxels.items() if 0 < count < smallest]
    if small and sum(voxels[name] for name in small) >= smallest:
        members[OTHER] = small
    if not members:
        raise JobError(
            f"the training sets have {sum(voxels.values())} voxels with a class, and no class has {smallest}; give "
            "more training sets, or a lower 'smallest'."
        )
    return members

"""From Scipion objects to job files and back.

Pure functions: they read headers and names, start nothing and change nothing in the project, so that each can be
tested without one.  The files of one tomogram all live in one folder, ``extra/<tsId>``, that also is the run folder
of its job.
"""

import glob
import hashlib
import itertools
import os
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from tomo.objects import Tomogram

from cryoden_core.jobs import JobError, NmsgJob, NmsgTrainJob, RunFolder
from cryoden_core.mrc import open_volume

Size = Tuple[int, int, int]


class ItemFolder(RunFolder):
    """Names of everything that belongs to one tomogram, below a protocol's ``extra``."""

    @classmethod
    def of(cls, extra: str, ts_id: str) -> "ItemFolder":
        """The folder of ``ts_id``."""
        return cls(os.path.join(extra, safe_name(ts_id)))

    @property
    def name(self) -> str:
        """The tsId in letters that are safe in file names."""
        return os.path.basename(self.path)

    @property
    def request(self) -> str:
        """The job file that the plugin writes; the core writes ``job.json`` beside it."""
        return os.path.join(self.path, "request.json")

    @property
    def output(self) -> str:
        """The denoised tomogram."""
        return os.path.join(self.path, self.name + ".mrc")

    @property
    def halves(self) -> Tuple[str, str]:
        """The denoised even and odd tomograms."""
        return (os.path.join(self.path, self.name + "_even.mrc"), os.path.join(self.path, self.name + "_odd.mrc"))


def safe_name(ts_id: str) -> str:
    """``ts_id`` with only letters, digits, dot, dash and underscore.

    A name that had to be changed gets a short digest of the original, so that two tsIds never share a folder.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", ts_id)
    if name.startswith((".", "-")) or not name:
        name = "_" + name
    if name == ts_id:
        return name
    return "%s_%s" % (name, hashlib.sha1(ts_id.encode("utf-8")).hexdigest()[:6])


def clean_path(path: str) -> str:
    """A file name without Scipion's ``:mrc`` suffix."""
    return path[:-4] if path.endswith(":mrc") else path


def volume_size(path: str) -> Size:
    """The size in voxels (x, y, z) of an MRC volume; no grey value is read.

    Raises
    ------
    JobError
        When the file is missing, is no MRC volume, or is shorter than its header promises.
    """
    z, y, x = open_volume(path).shape
    return x, y, z


def half_map_paths(tomogram: Tomogram) -> List[str]:
    """The two half maps of a tomogram in the order in which they are stored, or an empty list.

    Scipion keeps them in one text separated by a comma, which falls apart when a path itself holds a comma; then the
    split whose two parts exist is taken.
    """
    if not tomogram.hasHalfMaps():
        return []
    stored = tomogram.getHalfMaps()
    pieces = stored.split(",") if isinstance(stored, str) else list(stored)
    return two_paths(pieces, tomogram.getTsId())


def two_paths(pieces: Sequence[str], owner: str) -> List[str]:
    """The two files of a pair whose names were stored with a comma between them, which a path may hold too.

    A place in the stack before a name, as in ``1@stack.mrc``, is left out.

    Raises
    ------
    JobError
        When there is no cut at which both files exist.
    """
    pieces = [str(piece) for piece in pieces]
    for cut in [1] if len(pieces) == 2 else range(1, len(pieces)):
        pair = [clean_path(",".join(part).split("@")[-1]) for part in (pieces[:cut], pieces[cut:])]
        if len(pieces) == 2 or all(os.path.exists(path) for path in pair):
            return pair
    raise JobError("the halves of %s are not two files: %s." % (owner, ",".join(pieces)))


def match_half_maps(paths: Sequence[str]) -> Tuple[str, str]:
    """The two paths as (even, odd), told apart by the part in which they differ.

    Programs list halves in both orders; where the names do not say which is which (half1, half2) the order is kept.
    """
    first, second = paths
    differing = [_differing_part(first, second), _differing_part(second, first)]
    if "odd" in differing[0] and "odd" not in differing[1]:
        return second, first
    if "ev" in differing[1] and "ev" not in differing[0]:
        return second, first
    return first, second


def _differing_part(path: str, other: str) -> str:
    start = _common_letters(path, other)
    end = _common_letters(path[start:][::-1], other[start:][::-1])
    return path[start : len(path) - end].lower()


def _common_letters(first: str, second: str) -> int:
    """How many letters the two texts share at their beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))


def even_and_odd(tomogram: Tomogram) -> Optional[Tuple[str, str]]:
    """The even and odd half of a tomogram, or None when it has none."""
    paths = half_map_paths(tomogram)
    return match_half_maps(paths) if paths else None


def input_problems(tomogram: Tomogram, use_halves: bool) -> List[str]:
    """What is wrong with one tomogram and its halves, as far as headers can tell."""
    try:
        size = volume_size(clean_path(tomogram.getFileName()))
        halves = even_and_odd(tomogram) if use_halves else None
        if halves and os.path.realpath(halves[0]) == os.path.realpath(halves[1]):
            raise JobError("both half maps are the same file, %s." % halves[0])
        for half in halves or ():
            found = volume_size(half)
            if found != size:
                raise JobError("the half map %s has size %s, the tomogram %s." % (half, _times(found), _times(size)))
    except JobError as error:
        return ["*%s*: %s" % (tomogram.getTsId(), error)]
    return []


def mask_problem(tomogram: Tomogram, mask: str) -> Optional[str]:
    """What is wrong with the mask of a tomogram, or None."""
    try:
        found = volume_size(mask)
        size = volume_size(clean_path(tomogram.getFileName()))
    except JobError as error:
        return str(error)
    if found != size:
        return "the mask %s has size %s, the tomogram %s has %s." % (
            mask,
            _times(found),
            tomogram.getTsId(),
            _times(size),
        )
    return None


def _times(size: Iterable[int]) -> str:
    return " x ".join(str(edge) for edge in size)


def nmsg_job(
    tomogram: Tomogram,
    folder: ItemFolder,
    settings: Dict[str, Any],
    use_halves: bool = True,
    output_halves: bool = True,
    mask: str = "",
    model: str = "",
) -> NmsgJob:
    """The job that denoises one tomogram.

    Parameters
    ----------
    settings
        Parameters of :class:`NmsgJob` that do not depend on the tomogram.
    mask, model
        Files, or empty.

    Raises
    ------
    JobError
        When a parameter is out of its range.
    """
    halves = even_and_odd(tomogram) if use_halves else None
    parameters = dict(settings)
    parameters.update(
        input=os.path.abspath(clean_path(tomogram.getFileName())),
        output=os.path.abspath(folder.output),
        run_folder=os.path.abspath(folder.path),
        voxel_size=float(tomogram.getSamplingRate()),
        mask=os.path.abspath(mask) if mask else "",
        model=os.path.abspath(model) if model else "",
    )
    if halves:
        parameters.update(even=os.path.abspath(halves[0]), odd=os.path.abspath(halves[1]))
        if output_halves:
            even, odd = folder.halves
            parameters.update(output_even=os.path.abspath(even), output_odd=os.path.abspath(odd))
    return NmsgJob.from_parameters(parameters)


def nmsg_train_job(
    tomograms: Sequence[Tomogram], folder: ItemFolder, settings: Dict[str, Any], use_halves: bool = True
) -> NmsgTrainJob:
    """The job that trains one model on several tomograms; halves are used when every tomogram has them."""
    halves = [even_and_odd(tomogram) for tomogram in tomograms] if use_halves else []
    pairs = [pair for pair in halves if pair]
    if len(pairs) != len(tomograms):
        pairs = []
    parameters = dict(settings)
    parameters.update(
        inputs=[os.path.abspath(clean_path(tomogram.getFileName())) for tomogram in tomograms],
        evens=[os.path.abspath(even) for even, _ in pairs],
        odds=[os.path.abspath(odd) for _, odd in pairs],
        output=os.path.abspath(folder.model),
        run_folder=os.path.abspath(folder.path),
        voxel_size=float(tomograms[0].getSamplingRate()),
    )
    return NmsgTrainJob.from_parameters(parameters)


def output_tomogram(tomogram: Tomogram, folder: ItemFolder) -> Tomogram:
    """The tomogram to register: everything of the input but the file, with the denoised halves or without any."""
    result = tomogram.clone()
    result.cleanObjId()
    result.setLocation(folder.output)
    # The halves of the input are still noisy; the result must not point to them.
    result.setHalfMaps(list(folder.halves) if all(os.path.exists(half) for half in folder.halves) else [])
    return result


def item_folders(extra: str) -> List[ItemFolder]:
    """The folders of all tomograms that were started, in the order of their names."""
    return [ItemFolder(os.path.dirname(path)) for path in sorted(glob.glob(os.path.join(extra, "*", "request.json")))]

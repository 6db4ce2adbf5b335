"""The files of a run: written whole or not at all, JSON among them, and the names in a run folder."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """A temporary name to write to within the block, which becomes ``path`` when the block ends.

    What was written is on the disk before the name changes: whoever reads ``path`` finds the old file or the whole new
    one, even after a power cut.  When the block ends with an exception nothing is left, and ``path`` is as it was.
    """
    temporary = "%s.tmp%d" % (path, os.getpid())
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


#: A list of numbers as :mod:`json` indents it; no text can look like this, as its line breaks are escaped.
_NUMBERS = re.compile(r'\[\n\s*([^\[\]{}"]+?)\s*\]')


def write_json(content: Any, path: str) -> None:
    """Write JSON, whole or not at all; each list of numbers is one line."""
    text = _NUMBERS.sub(lambda found: "[%s]" % " ".join(found[1].split()), json.dumps(content, indent=1))
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")


def read_json(path: str) -> Dict[str, Any]:
    """The object in a JSON file, or an empty one while the file is not there."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class RunFolder:
    """Names of the files that a run leaves beside its output; the plugin and the core both read them from here."""

    path: str

    @classmethod
    def beside(cls, output: str, given: str = "") -> RunFolder:
        """The folder of a job: ``given``, or ``<output without extension>_cryoden``."""
        return cls(given or os.path.splitext(output)[0] + "_cryoden")

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def job(self) -> str:
        """What was asked, resolved."""
        return self._file("job.json")

    @property
    def progress(self) -> str:
        """Stage, step, loss, time left; see :mod:`cryoden_core.progress`."""
        return self._file("progress.json")

    @property
    def metrics(self) -> str:
        """Every logged value, one row a step."""
        return self._file("metrics.csv")

    @property
    def report(self) -> str:
        """Picture: slices before, after and difference, loss, power spectrum."""
        return self._file("report.png")

    @property
    def montage(self) -> str:
        """Picture: the six volumes of a DUAL training and their spectra."""
        return self._file("montage.png")

    @property
    def noise_report(self) -> str:
        """The table of checks of the noise model."""
        return self._file("noise_report.json")

    @property
    def result(self) -> str:
        """Figures of the finished run: files written, times, noise before and after."""
        return self._file("result.json")

    @property
    def model(self) -> str:
        """The trained model."""
        return self._file("model.safetensors")

    @property
    def checkpoint(self) -> str:
        """The training's state, for ``resume``."""
        return self._file("checkpoint.pt")

    def checkpoints(self) -> List[str]:
        """All checkpoints that are there: the training's, and those of its parts (halves, members, noise models)."""
        return [
            path for state in (self.checkpoint, self.noise_checkpoint) for path in glob.glob(glob.escape(state) + "*")
        ]

    def aligned(self, which: str = "") -> str:
        """The tilt series as it is reconstructed, aligned and binned; ``which`` is empty, even or odd.  Temporary."""
        return self._file("aligned%s.mrc" % ("_" + which if which else ""))

    @property
    def comparison(self) -> str:
        """The weighted back-projection beside which a reconstruction is shown."""
        return self._file("wbp.mrc")

    @property
    def finished(self) -> str:
        """Which of several outputs are finished, for ``resume``."""
        return self._file("finished.json")

    @property
    def lock(self) -> str:
        """Held by the process that works in the folder."""
        return self._file("run.lock")

    @property
    def noise_checkpoint(self) -> str:
        """The state of the noise model's training, for ``resume``."""
        return self._file("noise_checkpoint.pt")

"""The job that judges a volume against the truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from .contract import Job, JobError, parameter, voxel_size_parameter


@dataclass
class EvaluateJob(Job):
    """Compare a volume with the known truth, and its two halves with each other."""

    system: ClassVar[str] = "evaluate volume"
    carried_out_by: ClassVar[str] = "evaluate:evaluate"

    test: str = parameter("", "volume to judge (MRC)", required=True, positional=True)
    reference: str = parameter("", "the truth, on the same grid (MRC)", required=True, positional=True)
    output: str = parameter("", "JSON file for the figures and curves; empty only prints them", alias="-o")
    mask: str = parameter("", "mask with a soft edge, 1 inside (MRC); only what lies inside counts")
    even: str = parameter("", "even half of the volume; with --odd the halves are compared too")
    odd: str = parameter("", "odd half of the volume")
    voxel_size: float = voxel_size_parameter()

    def _validate_together(self) -> None:
        if bool(self.even) != bool(self.odd):
            raise JobError("give both halves or none: 'even' is %r, 'odd' is %r." % (self.even, self.odd))
        inputs = [os.path.abspath(p) for p in (self.test, self.reference, self.mask, self.even, self.odd) if p]
        if self.output and os.path.abspath(self.output) in inputs:
            raise JobError("the output %s is also an input; choose another name." % self.output)

"""Which noise a protocol of DUAL puts into volumes, and how much of it: part of a form, and the answer for each volume.

New noise is drawn for each volume, or the noise of one real tomogram is taken for all.  The core finds that noise by
itself, so that nothing has to be extracted before.
"""

from typing import Any, Dict, Type

from pyworkflow.protocol.params import Form, PointerParam

from cryoden_core.jobs import Job

from ..dual import files_of, seed_of
from ..forms import add_job_param


class NoiseChoice:
    """The choice of noise, for protocols."""

    @staticmethod
    def _defineNoiseParams(form: Form, job: Type[Job], **options: Any) -> None:
        add_job_param(form, job, "noise", "Amplitude of the noise", **options)
        form.addParam(
            "inputNoise",
            PointerParam,
            pointerClass="Tomogram",
            allowsNull=True,
            label="Take the noise of (optional)",
            help="A tomogram whose own noise is taken for all; without one, new noise is drawn for each. To choose one "
            "tomogram of a set, open the set in the list.",
            **options,
        )

    def noiseSettings(self, tsId: str) -> Dict[str, Any]:
        """Parameters of the job of one volume: two volumes do not get the same noise."""
        source = self.inputNoise.get()
        return {
            "seed": seed_of(self.seed.get(), tsId),
            "noise_from": files_of([source])[0] if source is not None else "",
        }

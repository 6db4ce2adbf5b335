"""Where a protocol of DUAL takes the tilt range from: part of a form, and the answer for each tomogram.

The acquisition of the tomograms says it in most projects.  Their tilt series say it exactly, with excluded views left
out; a person may also know it better than the project does.
"""

from typing import Any, Iterable, List, Type

from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import EnumParam, Form, PointerParam
from tomo.objects import TiltSeries, Tomogram

from cryoden_core.jobs import Job, JobError

from ..constants import IN_TS_SET
from ..dual import TiltRange, acquisition_range, tilt_series_range
from ..forms import add_job_params

OF_TOMOGRAMS, OF_TILT_SERIES, GIVEN = range(3)


class TiltRangeChoice:
    """The choice of a tilt range, for protocols."""

    @staticmethod
    def _defineTiltRangeParams(form: Form, job: Type[Job]) -> None:
        form.addParam(
            "tiltRangeFrom",
            EnumParam,
            choices=["the tomograms", "their tilt series", "this form"],
            default=OF_TOMOGRAMS,
            expertLevel=LEVEL_ADVANCED,
            label="Tilt range from",
            help="The tilt range says where the missing wedge is.\n*The tomograms*: as their acquisition says, which "
            "the reconstruction or the import wrote.\n*Their tilt series*: the views that are really there, without "
            "excluded ones.\n*This form*: one range for all, where you know better.",
        )
        form.addParam(
            IN_TS_SET,
            PointerParam,
            pointerClass="SetOfTiltSeries",
            allowsNull=True,
            expertLevel=LEVEL_ADVANCED,
            condition="tiltRangeFrom == %d" % OF_TILT_SERIES,
            label="Tilt series",
            help="Those that the tomograms were reconstructed from, matched by tsId.",
        )
        add_job_params(
            form,
            job,
            (("tilt_min", "Lowest tilt angle"), ("tilt_max", "Highest tilt angle")),
            condition="tiltRangeFrom == %d" % GIVEN,
            expertLevel=LEVEL_ADVANCED,
        )

    def tiltRangeOf(self, tomogram: Tomogram) -> TiltRange:
        """Lowest and highest tilt angle of a tomogram, degrees.

        Raises
        ------
        JobError
            When it is not known.
        """
        source = self.tiltRangeFrom.get()
        if source == GIVEN:
            return self.tiltMin.get(), self.tiltMax.get()
        if source == OF_TILT_SERIES:
            return self._rangeOfTiltSeries(tomogram.getTsId())
        known = acquisition_range(tomogram)
        if known is None:
            raise JobError(
                "the tilt range of %s is not known: with Expert Level 'Advanced', choose another source at 'Tilt range "
                "from'." % tomogram.getTsId()
            )
        return known

    def _rangeOfTiltSeries(self, tsId: str) -> TiltRange:
        known = getattr(self, IN_TS_SET).get()
        if known is None:
            raise JobError("choose the tilt series, or another source of the tilt range.")
        with self._lock:
            if tsId not in known.getTSIds():
                raise JobError("there is no tilt series %s; choose another source of the tilt range." % tsId)
            return tilt_series_range(known.getItem(TiltSeries.TS_ID_FIELD, tsId))

    def tiltRangeProblems(self, tomograms: Iterable[Any]) -> List[str]:
        """What is wrong with the choice, each sentence once."""
        problems: List[str] = []
        for tomogram in tomograms:
            try:
                self.tiltRangeOf(tomogram)
            except JobError as error:
                said = str(error)
                problems.append(said[:1].upper() + said[1:])
        return list(dict.fromkeys(problems))

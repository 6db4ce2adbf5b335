"""Form parameters made from the definitions of the core's jobs: default, range and choices have one source.

A form adds what a person at the GUI needs beside that: a label with units, and help that says what to choose when.
"""

from typing import Any, Dict, List, Sequence, Tuple, Type

from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import GE, LE, BooleanParam, EnumParam, FloatParam, Form, IntParam, StringParam

from cryoden_core.jobs import Job, default_of, parameters_of

#: Job parameters whose form name differs from what :func:`form_name` makes of them.
Names = Dict[str, str]


def form_name(parameter: str) -> str:
    """The attribute of a protocol that holds a job's parameter: ``tilt_axis_shift`` is ``tiltAxisShift``."""
    first, *rest = parameter.split("_")
    return first + "".join(word.capitalize() for word in rest)


def sentence(text: str) -> str:
    """A line of help from the job's definition, as a sentence."""
    return text[:1].upper() + text[1:] + "."


def add_job_param(form: Form, job: Type[Job], name: str, label: str, help: str = "", **options: Any) -> None:
    """Add the parameter ``name`` of a job to a form.

    Parameters
    ----------
    label
        What stands before the field; the unit of the definition is put behind it.
    help
        Follows the definition's own line of help.
    options
        For pyworkflow's parameter: ``condition``, ``important``, ``default`` where the GUI's must differ; ``shown``
        names the choices whose own name says nothing.
    """
    about = parameters_of(job)[name]
    shown = options.pop("shown", {})
    default = options.pop("default", default_of(job, name))
    if about.expert:
        options.setdefault("expertLevel", LEVEL_ADVANCED)
    if about.unit:
        label = "%s (%s)" % (label, about.unit)
    text = " ".join(part for part in (sentence(about.help), help) if part)
    if about.choices:
        choices = list(about.choices)
        form.addParam(
            form_name(name),
            EnumParam,
            choices=[shown.get(choice, choice) for choice in choices],
            default=choices.index(default),
            label=label,
            help=text,
            **options,
        )
        return
    kinds = {bool: BooleanParam, int: IntParam, float: FloatParam, str: StringParam}
    limits = []
    if not isinstance(default, (bool, str)):
        limits = [check(limit) for check, limit in ((GE, about.minimum), (LE, about.maximum)) if limit is not None]
    form.addParam(
        form_name(name), kinds[type(default)], default=default, validators=limits, label=label, help=text, **options
    )


def add_job_params(form: Form, job: Type[Job], rows: Sequence[Tuple[str, ...]], **options: Any) -> None:
    """Add several parameters: rows of name, label and, if any, further help."""
    for name, label, *more in rows:
        add_job_param(form, job, name, label, *more, **options)


def job_settings(protocol: Any, job: Type[Job], left_out: Sequence[str] = ()) -> Dict[str, Any]:
    """The form's values as parameters of ``job``: every parameter that the form has."""
    settings: Dict[str, Any] = {}
    for name, about in parameters_of(job).items():
        attribute = form_name(name)
        if name in left_out or not protocol.hasAttribute(attribute):
            continue
        value = protocol.getAttributeValue(attribute)
        settings[name] = about.choices[value] if about.choices else value
    return settings


def at_most(problems: List[str], listed: int = 5, what: str = "items") -> List[str]:
    """The first problems, and how many more there are."""
    if len(problems) <= listed:
        return problems
    return [*problems[:listed], "... and %d more %s." % (len(problems) - listed, what)]

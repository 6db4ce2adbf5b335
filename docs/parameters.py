"""The page of parameter tables, made from the definitions in ``cryoden_core/jobs``.

``python docs/parameters.py`` writes ``docs/parameters.rst``; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from cryoden_core.jobs import SYSTEMS, Job, Parameter, default_of
from cryoden_core.jobs.contract import shown

PAGE = Path(__file__).resolve().with_suffix(".rst")
HEAD = """\
.. Written by docs/parameters.py from cryoden_core/jobs.

==========
Parameters
==========

The names are those of the job files and of the Python calls; on the command line an underscore becomes a dash
(``--noise-model``), in Scipion they are the entries of the form.

"""


def all_tables() -> str:
    """One table for each class that defines parameters: what several jobs share comes first, and once."""
    classes: list[type[Job]] = []
    for system in SYSTEMS.values():
        for owner in reversed(system.__mro__):
            if owner not in classes and own_parameters(owner):
                classes.append(owner)
    return "\n".join(table(owner) for owner in classes)


def own_parameters(owner: type) -> dict[str, Parameter]:
    """The parameters that a class adds to those of its bases."""
    if not dataclasses.is_dataclass(owner):
        return {}
    names = vars(owner).get("__annotations__", {})
    return {
        field.name: field.metadata["parameter"]
        for field in dataclasses.fields(owner)
        if field.name in names and "parameter" in field.metadata
    }


def table(owner: type[Job]) -> str:
    """The table of one class, headed by its docstring."""
    about = inspect.getdoc(owner).split("\n\n")[0].replace("\n", " ").rstrip(".")
    heading = f"``{owner.system}``: {about[0].lower()}{about[1:]}." if owner.system else f"{about}."
    if not owner.system:
        # What several jobs share: say which.
        heading += " For " + ", ".join(f"``{job.system}``" for job in SYSTEMS.values() if issubclass(job, owner))
        heading += "."
    lines = [heading, "", ".. list-table::", "   :header-rows: 1", "   :widths: 20 12 68", ""]
    lines += row("Parameter", "Default", "Meaning")
    for name, parameter in own_parameters(owner).items():
        default = "required" if parameter.required else shown(default_of(owner, name))
        lines += row(f"``{name}``", default, escaped(parameter.describe()))
    return "\n".join(lines) + "\n"


def row(*cells: str) -> list[str]:
    """The lines of one row of a list table."""
    return [
        f"   {'* -' if first else '  -'} {cell}".rstrip()
        for first, cell in zip([True, False, False], cells, strict=True)
    ]


def escaped(text: str) -> str:
    """Text without what reStructuredText would read as markup."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`").replace("|", "\\|")


def page() -> str:
    """The whole page."""
    return HEAD + all_tables()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

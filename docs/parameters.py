"""The parameter tables of the README, made from the definitions in ``cryoden_core/jobs``.

``python docs/parameters.py`` writes them into README.rst, between its two marks; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from cryoden_core.jobs import SYSTEMS, Job, Parameter, default_of

README = Path(__file__).resolve().parent.parent / "README.rst"
BEGIN = ".. The tables below are written by docs/parameters.py from cryoden_core/jobs.\n"
END = ".. End of the tables.\n"


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


def shown(value: object) -> str:
    """A default as one types it; empty texts and lists are shown as nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in ("", []):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def escaped(text: str) -> str:
    """Text without what reStructuredText would read as markup."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`").replace("|", "\\|")


def with_tables(readme: str) -> str:
    """The README's text with the tables as they must be."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{all_tables()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")

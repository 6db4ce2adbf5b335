"""STAR files with one table: particles, picks and tomograms, in the columns of RELION and some of our own.

Reading and writing is done by ``emtable``; here is what it leaves to its users.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .jobs import whole_file
from .mrc import errors_of_writing


def star_word(text: str) -> str:
    """A name as STAR files can hold it: without blanks, which would end the column."""
    return "_".join(text.split())


def write_table(path: str | Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write one table, whole or not at all.

    Parameters
    ----------
    path
        File to write.
    name
        Of the table.
    columns, rows
        Names, and values in their order; texts must be words (:func:`star_word`).

    Raises
    ------
    JobError
        When the file cannot be written.
    """
    from emtable import Table

    table = Table(columns=list(columns))
    for row in rows:
        table.addRow(*row)
    with errors_of_writing(os.fspath(path)), whole_file(os.fspath(path)) as temporary:
        table.write(temporary, tableName=name)


def read_table(path: str | Path, name: str) -> Any:
    """Read the table ``name``, or the only one, as an ``emtable.Table`` of texts.

    The types of numbers are not guessed, for the first row misleads the guess: a class called 4e10 there would make
    numbers of all classes.  A file that is no STAR file, or holds a table without rows, raises what emtable raises.
    """
    from emtable import Table

    table = Table()
    try:
        table.read(str(path), name, guessType=False)
    except Exception:
        table.read(str(path), None, guessType=False)
    return table


def read_rows(path: str | Path, name: str) -> list[Any]:
    """The rows of a table, see :func:`read_table`; none of one without rows, which emtable writes but cannot read."""
    try:
        return list(read_table(path, name))
    except IndexError:  # it is written as its name alone
        return []

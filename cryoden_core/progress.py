"""How a run tells the world where it is: ``progress.json``, ``metrics.csv`` and a bar in the terminal.

The Scipion plugin reads ``progress.json`` while the job runs, so this module too is standard library only (tqdm is
loaded when a bar is first shown) and Python 3.8 syntax.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import sys
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from .jobs import RunFolder, read_json, whole_file, write_json

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"


def read_progress(path: str) -> Dict[str, Any]:
    """The content of a ``progress.json``, or an empty dict while there is none.

    Keys: ``state`` (running, done, failed, interrupted), ``stage``, ``step``, ``total``, ``loss`` (or None),
    ``eta_seconds`` (or None), ``elapsed_seconds``, ``message``, ``warnings``.
    """
    return read_json(path)


def read_metrics(path: str) -> Dict[str, List[float]]:
    """The columns of numbers of a ``metrics.csv``; empty cells are NaN, a missing file is an empty dict."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError:
        return {}
    names = [name for name in rows[0] if name != "stage"] if rows else []
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(text: Optional[str]) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def _header(path: str) -> List[str]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return next(csv.reader(stream), [])
    except OSError:
        return []


def _rewrite(path: str, names: List[str], keep: Callable[[Dict[str, str]], bool]) -> None:
    """Write a table again with other columns or fewer rows, whole or not at all; rows cut short are dropped."""
    rows: List[Dict[str, str]] = []
    if os.path.exists(path):
        with open(path, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if None not in row and None not in row.values() and keep(row)]
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


class Progress:
    """Reports one run.

    That nothing can be written (the disk is full, say) is an error when the run begins.  Later it is said once in the
    terminal, and the run goes on: work must not be lost for want of its report, nor the reason why a run failed.

    Parameters
    ----------
    folder
        Where ``progress.json`` and ``metrics.csv`` go; None reports to the terminal only.
    quiet
        Show warnings only.
    interval
        Seconds between two writes of ``progress.json``.
    """

    def __init__(self, folder: Optional[RunFolder] = None, quiet: bool = False, interval: float = 1.0) -> None:
        self._folder = folder
        self._quiet = quiet
        self._interval = interval
        self._start = time.monotonic()
        self._written = -math.inf
        self._bar: Any = None
        self._silenced = False
        self._stage_start = self._start
        self._stage_first = 0
        self._state: Dict[str, Any] = {
            "state": RUNNING, "stage": "starting", "step": 0, "total": 0, "loss": None,
            "eta_seconds": None, "elapsed_seconds": 0.0, "message": "", "warnings": [],
        }  # fmt: skip
        if folder is not None:
            os.makedirs(folder.path, exist_ok=True)
            write_json(self._state, folder.progress)

    @property
    def warnings(self) -> List[str]:
        """The warnings given so far."""
        return list(self._state["warnings"])

    def stage(self, name: str, total: int = 0, first: int = 0) -> None:
        """Begin a stage of ``total`` steps (0: unknown), ``first`` of which are already done."""
        self._close_bar()
        self._stage_start, self._stage_first = time.monotonic(), first
        self._state.update(stage=name, step=first, total=total, loss=None, eta_seconds=None)
        self._write(force=True)
        if not self._quiet and total > 1:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=first, desc=name, file=sys.stderr, mininterval=1.0, dynamic_ncols=True,
                leave=True, ascii=True,
            )  # fmt: skip
        elif not self._quiet:
            print("%s ..." % name, file=sys.stderr, flush=True)

    def advance(self, count: int = 1, loss: Optional[float] = None) -> None:
        """Count ``count`` more steps of the stage as done."""
        state = self._state
        state["step"] += count
        if loss is not None and math.isfinite(loss):
            state["loss"] = loss
        done = state["step"] - self._stage_first
        if state["total"] and done > 0:
            elapsed = time.monotonic() - self._stage_start
            state["eta_seconds"] = max(0.0, elapsed / done * (state["total"] - state["step"]))
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix_str("loss %.4f" % loss, refresh=False)
            self._bar.update(count)
        self._write()

    def track(self, items: Iterable[Any], name: str, total: int) -> Iterator[Any]:
        """Iterate over ``items`` as one stage."""
        self.stage(name, total)
        for item in items:
            yield item
            self.advance()

    def say(self, text: str) -> None:
        """One line for the log, unless the run is quiet."""
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line for the log that is also kept in ``progress.json``."""
        if text not in self._state["warnings"]:
            self._state["warnings"].append(text)
            self._print("WARNING: " + text)
            self._write(force=True)

    def log(self, step: int, values: Dict[str, float]) -> None:
        """Add a row to ``metrics.csv``; a column that is new is added to the rows before, empty."""
        if self._folder is None:
            return
        row = {"step": str(step), "stage": self._state["stage"]}
        row.update({name: "%.7g" % value for name, value in values.items()})
        path = self._folder.metrics
        names = _header(path)
        with self._not_at_any_price():
            if not set(row) <= set(names):
                names += [name for name in row if name not in names]
                _rewrite(path, names, lambda _: True)
            with open(path, "a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, fieldnames=names).writerow(row)

    def rewind(self, step: int) -> None:
        """Drop the rows of this stage after ``step``, before an interrupted training goes on from there."""
        if self._folder is not None and os.path.exists(self._folder.metrics):
            path = self._folder.metrics
            _rewrite(path, _header(path), lambda row: row["stage"] != self._state["stage"] or int(row["step"]) <= step)

    def finish(self, state: str = DONE, message: str = "") -> None:
        """End the run as done, failed or interrupted."""
        self._close_bar()
        self._state.update(state=state, message=message, eta_seconds=None)
        self._write(force=True)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._folder is None or (not force and now - self._written < self._interval):
            return
        self._written = now
        self._state["elapsed_seconds"] = round(now - self._start, 1)
        with self._not_at_any_price():
            os.makedirs(self._folder.path, exist_ok=True)
            write_json(self._state, self._folder.progress)

    @contextlib.contextmanager
    def _not_at_any_price(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._silenced:
                self._silenced = True
                self._print("WARNING: the progress of the run cannot be written: %s." % (error.strerror or error))

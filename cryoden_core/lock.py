"""One process at a time in a run folder.

A run that was left behind (its parent died, its queue lost it) and the run that continues it would write the same
checkpoint, metrics and output.  The lock is the operating system's (``flock``) on a file of the folder: it ends with
the process that holds it, however that ends, so it is never stale.  Where a file system or system knows no such lock,
the run goes on without.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from .jobs import JobError, RunFolder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


#: A run that was told to stop finishes its step and writes its checkpoint; its successor waits this long for it.
PATIENCE_SECONDS = 10.0


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def sole_use(folder: RunFolder | None) -> Iterator[None]:
    """Hold a run folder within the block; None, and all but the first process under ``torchrun``, hold nothing.

    Raises
    ------
    JobError
        When another process holds it.
    OSError
        When the folder cannot be made or written to.
    """
    if folder is None or fcntl is None or not is_first_process():
        yield
        return
    os.makedirs(folder.path, exist_ok=True)
    # Open for writing: network file systems refuse an exclusive lock on what is open for reading only.
    with open(folder.lock, "a+", encoding="utf-8") as stream:
        try:
            _take(stream)
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise JobError(
                f"{holder} is at work in the run folder {folder.path}; wait until it ends, or stop it first."
            ) from error
        except OSError:
            # No such lock here: the run goes on without.
            pass
        yield


def _take(stream: TextIO) -> None:
    """Lock an open file; raises BlockingIOError when another process keeps it."""
    last = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last:
                raise
            time.sleep(0.1)

"""Stand-ins for IMOD's programs, for tests of what comes before and after them.

IMOD cannot be installed by a package manager.  scipion-em-imod's protocols look for its programs before they run, so
shell scripts take their place below an ``IMOD_HOME`` of the test's own; ``trimvol`` delivers a file that the real
programs wrote.
"""

import os
import stat
import tempfile

SCRIPTS = {
    "tilt": 'while [ $# -gt 0 ]; do if [ "$1" = -OutputFile ]; then echo stand-in > "$2"; fi; shift; done',
    "newstack": "echo 'the stand-in for newstack should not have been called' >&2; exit 1",
    "trimvol": 'for last; do :; done; cp "%(reconstruction)s" "$last"; chmod u+w "$last"',
    "3dmod": "exit 0",
    "etomo": "exit 0",
}


def install(reconstruction: str) -> None:
    """Write the programs, and let ``IMOD_HOME`` point to them."""
    home = tempfile.mkdtemp(prefix="standin_imod_")
    programs = os.path.join(home, "bin")
    os.makedirs(programs)
    for name, script in SCRIPTS.items():
        path = os.path.join(programs, name)
        with open(path, "w", encoding="utf-8") as stream:
            text = script % {"reconstruction": reconstruction}
            stream.write("#!/bin/sh\n# Stand-in for IMOD's %s, for tests only.\n%s\n" % (name, text))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    with open(os.path.join(home, "IMOD-linux.sh"), "w", encoding="utf-8") as stream:
        stream.write("# Stand-in for IMOD's settings, for tests only.\n")
    os.environ["IMOD_HOME"] = home


def remove() -> None:
    """Let nothing point to the stand-ins any more."""
    os.environ.pop("IMOD_HOME", None)

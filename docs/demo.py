"""The demonstration behind ``make demo``: one tomogram, imported and denoised by NMSG in a real Scipion project.

The project is made without the graphical interface, by the same calls that the interface makes, and can be opened in
it afterwards.  Without a tomogram of one's own a synthetic one is made.  Everything is written below one folder; a
second demonstration adds its runs to the same project.  It needs the extra ``demo`` (the core and scipion-app), and it
is a script outside the plugin's package because Scipion reads its environment when the package is first imported.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from cryoden_core.jobs import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, JobError, RunFolder
from cryoden_core.progress import RUNNING, read_progress

PROJECT = "cryoden_demo"
PHANTOM_FOLDER = "synthetic"

#: Small enough for two cores without a GPU.
PHANTOM_OPTIONS = ["--depth", "64", "--height", "192", "--width", "192", "--particles", "150"]

#: Seconds between two lines about a running denoising.
REPORT_INTERVAL = 10.0


class DemoError(Exception):
    """Something else than the input went wrong; the message is one sentence."""


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the demonstration; returns the exit code."""
    given = _parser().parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # in a pipe too, what the programs print must not overtake our lines
    start = time.monotonic()
    folder = os.path.abspath(given.folder)
    try:
        tomogram, voxel_size = _tomogram(given, folder)
        _prepare_scipion(folder)
        results = _run_workflow(folder, tomogram, voxel_size, given.preset, given.steps)
    except JobError as error:
        print("ERROR: %s" % error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except DemoError as error:
        print("ERROR: %s" % error, file=sys.stderr)
        return EXIT_FAILED
    print("\nDone in %d s." % (time.monotonic() - start))
    if not given.tomogram:
        print(_gain(folder, tomogram, results["denoised tomogram"]))
    for what, path in results.items():
        print("  %-20s %s" % (what, path))
    print(
        "To open the project in Scipion's graphical interface (view: Tomography):\n  %s"
        % shlex.quote(_write_opener(folder))
    )
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python docs/demo.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tomogram", default="", help="tomogram to denoise (MRC); without it one is made")
    parser.add_argument("--voxel-size", type=float, default=0.0, help="angstrom; needed when the header has none")
    parser.add_argument("--folder", default="demo", help="where everything is written")
    parser.add_argument("--preset", default="fast", help="NMSG's preset")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0 takes the preset's number")
    return parser


# ----------------------------------------------------------------------------------------------------- the tomogram
def _tomogram(given: argparse.Namespace, folder: str) -> Tuple[str, float]:
    """Path (below ``folder``, with a name that Scipion takes) and voxel size in angstrom of what will be denoised."""
    if given.tomogram:
        source = os.path.abspath(os.path.expanduser(given.tomogram))
        name = re.sub(r"[^A-Za-z0-9]+", "_", os.path.splitext(os.path.basename(source))[0]).strip("_") or "tomogram"
    else:
        source, name = _make_phantom(folder), PHANTOM_FOLDER
    voxel_size = _checked_voxel_size(source, given.voxel_size)
    link = os.path.join(folder, "input", name + ".mrc")
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if os.path.realpath(link) != os.path.realpath(source):
        if os.path.lexists(link):
            os.remove(link)
        os.symlink(source, link)
    return link, voxel_size


def _checked_voxel_size(path: str, given: float) -> float:
    """Refuse what cannot be denoised before Scipion starts; the voxel size that was given wins over the header's."""
    from cryoden_core.mrc import check_finite_and_varying, open_volume, read_header

    if given < 0:
        raise JobError("the voxel size must be a positive number of angstrom, not %g." % given)
    header = read_header(path)
    check_finite_and_varying(open_volume(path), path)
    if not given and not header.voxel_size:
        raise JobError("%s has no voxel size in its header; give it in angstrom, for example VOXEL=10." % path)
    return given or header.voxel_size


def _make_phantom(folder: str) -> str:
    """Make the synthetic tomogram, once; ``phantom.json`` is the last file that is written."""
    phantom = os.path.join(folder, PHANTOM_FOLDER)
    tomogram = os.path.join(phantom, "tomogram.mrc")
    if os.path.exists(os.path.join(phantom, "phantom.json")):
        print("Taking the synthetic tomogram of the last time.")
        return tomogram
    print("Making a synthetic tomogram: macromolecules and vesicles, tilt series from -60 to +60 degrees, with noise.")
    command = [sys.executable, "-m", "cryoden_core", "phantom", "packed", "-o", phantom, *PHANTOM_OPTIONS]
    if subprocess.run(command).returncode:
        raise DemoError("the synthetic tomogram could not be made; what happened stands above.")
    return tomogram


# ---------------------------------------------------------------------------------------------------------- Scipion
def _scipion_variables(folder: str) -> Dict[str, str]:
    """What tells Scipion to stay below ``folder`` and to find this interpreter."""
    home = os.path.join(folder, "scipion")
    return {
        "SCIPION_HOME": home,
        "SCIPION_USER_DATA": os.path.join(home, "data"),
        "SCIPION_LOCAL_CONFIG": os.path.join(home, "config", "scipion.conf"),
        "SCIPION_DOMAIN": "pwem",
        "SCIPION_NOTIFY": "False",
        "SCIPION_PRIORITY_PACKAGE_LIST": "pwem tomo",
    }


def _prepare_scipion(folder: str) -> None:
    """Set the variables for this process and write Scipion's configuration, once."""
    variables = _scipion_variables(folder)
    for name in [name for name in os.environ if name.startswith(("SCIPION_", "CRYODEN_"))]:
        del os.environ[name]
    os.environ.update(variables)
    # Protocols are started as "python3 ..." found on PATH.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    os.makedirs(variables["SCIPION_USER_DATA"], exist_ok=True)
    if os.path.exists(variables["SCIPION_LOCAL_CONFIG"]):
        return
    print("Preparing Scipion in %s." % variables["SCIPION_HOME"])
    command = [sys.executable, "-m", "scipion", "config", "--unattended", "--overwrite"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise DemoError("Scipion could not be configured: %s" % done.stdout.strip())


def _write_opener(folder: str) -> str:
    """A script that opens the project in the graphical interface."""
    path = os.path.join(folder, "open-project.sh")
    lines = ["#!/bin/sh", "# Opens the project of the demonstration in Scipion's graphical interface."]
    lines += ["export %s=%s" % (name, shlex.quote(value)) for name, value in _scipion_variables(folder).items()]
    lines += [
        "unset PYTHONPATH PYTHONHOME",
        'export PATH=%s:"$PATH"' % shlex.quote(os.path.dirname(sys.executable)),
        "python -c 'import tkinter' || { echo 'Install tkinter first (Debian and Ubuntu: python3-tk).'; exit 1; }",
        "exec python -m scipion project %s" % PROJECT,
    ]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    os.chmod(path, 0o755)
    return path


def _run_workflow(folder: str, tomogram: str, voxel_size: float, preset: str, steps: int) -> Dict[str, str]:
    """Import, denoise; returns what was made and where it is."""
    import pwem
    from pyworkflow.project import Manager

    pwem.Domain.getPlugins()
    from tomo.protocols import ProtImportTomograms

    from cryoden_scipion.protocols import ProtCryodenNmsgDenoise

    manager = Manager()
    project = manager.loadProject(PROJECT) if manager.hasProject(PROJECT) else manager.createProject(PROJECT)
    os.chdir(project.path)

    print("Importing %s (%g angstrom per voxel) into the project." % (tomogram, voxel_size))
    importing = project.newProtocol(
        ProtImportTomograms,
        filesPath=os.path.dirname(tomogram),
        filesPattern=os.path.basename(tomogram),
        samplingRate=voxel_size,
        importAcquisitionFrom=ProtImportTomograms.MANUAL_IMPORT,
    )
    importing.setObjLabel("import %s" % os.path.basename(tomogram))
    _launch(project, importing)

    print("Denoising it with NMSG, preset %s.  The missing wedge is not restored by this method." % preset)
    denoising = project.newProtocol(ProtCryodenNmsgDenoise, **_denoising_parameters(preset, steps))
    denoising.setObjLabel("denoise (NMSG, %s)" % preset)
    denoising.inputSetOfTomograms.set(importing)
    denoising.inputSetOfTomograms.setExtended("Tomograms")
    _launch(project, denoising)
    return _results(folder, project, denoising)


def _denoising_parameters(preset: str, steps: int) -> Dict[str, Any]:
    from cryoden_core.jobs import NMSG_PRESETS

    return {
        "preset": NMSG_PRESETS.index(preset),
        "steps": steps,
        "useGpu": _gpu_is_usable(),
    }


def _gpu_is_usable() -> bool:
    """Asked of torch in a process of its own, because nothing of the plugin imports torch."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], stderr=subprocess.DEVNULL).returncode == 0


def _launch(project: Any, protocol: Any) -> None:
    """Run one protocol to its end, telling where it is."""
    problems = protocol.validate()
    if problems:
        raise JobError(" ".join(problems))
    with _progress_lines(os.path.join(project.path, "Runs")):
        project.launchProtocol(protocol, wait=True)
    if protocol.isFailed():
        raise DemoError(_reason(project, protocol))


def _reason(project: Any, protocol: Any) -> str:
    """What the core said, or else what Scipion says."""
    for path in _files(project.path, protocol, os.path.basename(RunFolder("").progress)):
        message = read_progress(path).get("message")
        if message:
            return message
    said = re.sub(r"\x1b\[\d*m", "", str(protocol.getErrorMessage())).rstrip(".")
    return "%s; the log is %s." % (said, os.path.join(project.path, protocol.getStdoutLog()))


def _files(project_path: str, protocol: Any, name: str) -> List[str]:
    extra = os.path.join(project_path, protocol._getExtraPath())
    return sorted(glob.glob(os.path.join(glob.escape(extra), "**", name), recursive=True))


@contextlib.contextmanager
def _progress_lines(runs: str) -> Iterator[None]:
    """Print a line about the running job every few seconds, when there is something new."""
    finished = threading.Event()
    started = time.time()

    def tell() -> None:
        pattern = os.path.join(glob.escape(runs), "**", os.path.basename(RunFolder("").progress))
        last = ""
        while not finished.wait(REPORT_INTERVAL):
            for path in glob.glob(pattern, recursive=True):
                line = _progress_line(read_progress(path))
                if line not in ("", last) and os.path.getmtime(path) > started:
                    print("  " + line, flush=True)
                    last = line

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        finished.set()
        teller.join()


def _progress_line(progress: Dict[str, Any]) -> str:
    if progress.get("state") != RUNNING:
        return ""
    line = progress["stage"]
    if progress["total"] > 1:
        line += ": %d of %d" % (progress["step"], progress["total"])
    if progress.get("eta_seconds"):
        line += ", %d s left" % progress["eta_seconds"]
    return line


def _results(folder: str, project: Any, denoising: Any) -> Dict[str, str]:
    """The files that a person wants to look at; the picture is copied out of the project."""
    output = getattr(denoising, "Tomograms", None)
    if output is None:
        raise DemoError("no denoised tomogram was made: %s" % _reason(project, denoising))
    tomogram = os.path.join(project.path, output.getFirstItem().getFileName())
    results = {"denoised tomogram": tomogram}
    pictures = _files(project.path, denoising, os.path.basename(RunFolder("").report))
    if pictures:
        results["picture"] = shutil.copy(pictures[-1], os.path.join(folder, "report.png"))
    results["Scipion project"] = project.path
    return results


def _gain(folder: str, noisy: str, denoised: str) -> str:
    """How much nearer to the truth the synthetic tomogram has come."""
    from cryoden_core.metrics import correlation
    from cryoden_core.mrc import read_volume

    truth = read_volume(os.path.join(folder, PHANTOM_FOLDER, "noise_free.mrc"))
    before, after = (correlation(read_volume(path), truth) for path in (noisy, denoised))
    return "Correlation with the same tomogram without noise: %.3f before, %.3f after." % (before, after)


if __name__ == "__main__":
    sys.exit(main())

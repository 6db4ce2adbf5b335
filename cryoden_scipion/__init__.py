"""CryoDen in Scipion: protocols, objects and viewers for the restoration of cryo-electron tomograms.

The plugin writes job files and starts ``python -m cryoden_core run JOB.json`` in an environment that has torch; this
module decides which environment that is and how it is installed.  Nothing here imports torch: Scipion's own
environment is often older than what torch needs, and :meth:`Plugin.validateInstallation` is asked for every protocol
each time that the tree is drawn.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import pwem
from pyworkflow import TOMO, VarTypes
from pyworkflow.utils import Environ

from cryoden_core import __version__

from .constants import (
    CRYODEN_ENV_ACTIVATION,
    CRYODEN_HOME,
    CRYODEN_LOADER,
    CRYODEN_PYTHON,
    ENVIRONMENT_NAME,
    INSTALLED_FLAG,
)

__all__ = ["Plugin", "__version__"]

_logo = "icon.png"
_references = ["Yang2024", "VanVeen2024", "Zeng2024"]

_DISTRIBUTION = "scipion-em-cryoden"


class Plugin(pwem.Plugin):
    """Where CryoDen's core runs, and how it is installed.

    The first of these that applies is used: ``CRYODEN_LOADER`` (a ``module load`` line), ``CRYODEN_PYTHON`` (an
    interpreter), the interpreter that runs Scipion when it has torch, the environment of ``scipion3 installb cryoden``.
    """

    _homeVar = CRYODEN_HOME
    _url = "https://github.com/scipion-em/scipion-em-cryoden"
    _processingField = [TOMO]
    _supportedVersions = [__version__]
    _problems = None

    @classmethod
    def _defineVariables(cls):
        cls._defineVar(
            CRYODEN_LOADER,
            "",
            description="Command that makes a python with CryoDen's core available, for example "
            "'module load cryoden'. Used before everything else; leave it empty where there are no modules.",
            var_type=VarTypes.STRING,
        )
        cls._defineVar(
            CRYODEN_PYTHON,
            "",
            description="Python interpreter that has CryoDen's core (scipion-em-cryoden[core]). Empty takes the one "
            "that runs Scipion when it has torch, and the environment built by 'scipion3 installb cryoden' otherwise.",
            var_type=VarTypes.PATH,
        )
        cls._defineEmVar(
            CRYODEN_HOME,
            ENVIRONMENT_NAME,
            description="Folder of the environment that 'scipion3 installb cryoden' builds.",
            var_type=VarTypes.FOLDER,
        )
        cls._defineVar(
            CRYODEN_ENV_ACTIVATION,
            "conda activate %s" % ENVIRONMENT_NAME,
            description="Command that activates the conda environment built by 'scipion3 installb cryoden'. Not used "
            "where that environment was built with venv.",
            var_type=VarTypes.STRING,
        )

    @classmethod
    def getEnviron(cls):
        """The variables of the worker: nothing of Scipion's own Python, nor of ``~/.local``, may leak into it."""
        environ = Environ(os.environ)
        environ.pop("PYTHONPATH", None)
        environ["PYTHONNOUSERSITE"] = "1"
        return environ

    # ------------------------------ which environment ------------------------------

    @classmethod
    def ownInterpreterHasTorch(cls):
        """True when the interpreter that runs Scipion has torch; torch is looked for, not imported."""
        return importlib.util.find_spec("torch") is not None

    @classmethod
    def getVenvPython(cls):
        """The interpreter of the environment that was built without conda."""
        return cls.getHome("env", "bin", "python")

    @classmethod
    def getCoreProgram(cls):
        """The shell command that starts the core, up to and including ``-m cryoden_core``."""
        core = "-m cryoden_core"
        python = cls.getVar(CRYODEN_PYTHON)
        loader = cls.getVar(CRYODEN_LOADER)
        if loader:
            return "%s && %s %s" % (loader.rstrip(" ;&"), shlex.quote(python) if python else "python", core)
        if python:
            return "%s %s" % (shlex.quote(python), core)
        if cls.ownInterpreterHasTorch():
            return "%s %s" % (shlex.quote(sys.executable), core)
        if os.path.exists(cls.getVenvPython()):
            return "%s %s" % (shlex.quote(os.path.abspath(cls.getVenvPython())), core)
        return "%s %s && python %s" % (cls.condaHook(), cls.getVar(CRYODEN_ENV_ACTIVATION), core)

    @classmethod
    def runCore(cls, protocol, arguments):
        """Run the core from a step; ``arguments`` is the rest of the command line."""
        protocol.runJob(cls.getCoreProgram(), arguments, env=cls.getEnviron(), numberOfMpi=1)

    @classmethod
    def validateInstallation(cls):
        """The sentences that say what is missing and how to get it; empty when all is there."""
        if cls._problems is None:
            cls._problems = cls._findProblems()
        return cls._problems

    @classmethod
    def _findProblems(cls):
        python = cls.getVar(CRYODEN_PYTHON)
        if cls.getVar(CRYODEN_LOADER):
            return []  # what a module brings can only be known by loading it
        if python:
            if shutil.which(python):
                return []
            return ["%s is %s, which is no program: correct it in Scipion's configuration." % (CRYODEN_PYTHON, python)]
        if cls.ownInterpreterHasTorch():
            return []
        if os.path.exists(cls.getVenvPython()) or os.path.exists(cls.getHome(INSTALLED_FLAG)):
            return []
        return [
            "CryoDen's core is not installed. Run:  scipion3 installb %s" % ENVIRONMENT_NAME,
            "or set %s to an interpreter in which you ran:  pip install '%s[core]'" % (CRYODEN_PYTHON, _DISTRIBUTION),
        ]

    # ------------------------------ installation ------------------------------

    @classmethod
    def getDependencies(cls):
        return []

    @classmethod
    def defineBinaries(cls, env):
        """Build the core's environment, with conda where there is one and with venv where there is none."""
        if cls.hasConda():
            python = "python"
            create = "%s conda create -y -n %s python=3.11 pip && conda activate %s" % (
                cls.condaHook(),
                ENVIRONMENT_NAME,
                ENVIRONMENT_NAME,
            )
        else:
            python = "env/bin/python"
            create = cls.venvCommand()
        requirements = " ".join(shlex.quote(requirement) for requirement in cls.coreRequirements())
        commands = [
            # Else pip takes packages of Scipion or of ~/.local for those of the environment, which will not see them.
            "unset PYTHONPATH PYTHONHOME && export PYTHONNOUSERSITE=1",
            create,
            "%s -m pip install %s" % (python, requirements),
            "%s -m pip install --no-deps %s" % (python, shlex.quote(cls.coreSource())),
            "%s -m cryoden_core doctor" % python,
            "touch %s" % INSTALLED_FLAG,
        ]
        env.addPackage(
            "cryoden",
            version=__version__,
            tar="void.tgz",
            commands=[(" && ".join(commands), INSTALLED_FLAG)],
            neededProgs=cls.getDependencies(),
            vars={"PATH": os.environ.get("PATH", "")},  # conda is often only found there
            default=not cls.ownInterpreterHasTorch(),
        )

    @classmethod
    def hasConda(cls):
        """True when Scipion was told how to activate conda, or when conda is on the PATH."""
        return bool(cls.getCondaActivationCmd()) or shutil.which("conda") is not None

    @classmethod
    def condaHook(cls):
        """What comes before ``conda activate``, with ``&&`` at its end: as Scipion was told, else conda's own."""
        return cls.getCondaActivationCmd() or 'eval "$(conda shell.posix hook)" &&'

    @classmethod
    def venvCommand(cls):
        """The command that makes the environment without conda, or says what is missing for it."""
        python = cls.findPythonForVenv()
        if python:
            return "%s -m venv --clear env" % shlex.quote(python)
        return "echo '%s' >&2 && false" % (
            "CryoDen needs conda, or a Python 3.11 or newer with its venv module on the PATH "
            "(Debian and Ubuntu: apt-get install python3.11-venv)."
        )

    @staticmethod
    def findPythonForVenv():
        """The newest interpreter that the core can use and that makes environments; empty when there is none.

        Each one is tried: a name on the PATH can be a stand-in for something that was never installed.
        """
        fits = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
        for name in ("python3.13", "python3.12", "python3.11", "python3", sys.executable):
            found = shutil.which(name)
            if found and subprocess.run([found, "-c", fits], capture_output=True, check=False).returncode == 0:
                return found
        return ""

    @staticmethod
    def coreRequirements():
        """What the core needs, as the distribution declares it, without the packages of Scipion."""
        from importlib.metadata import requires

        chosen = []
        for line in requires(_DISTRIBUTION) or []:
            requirement, _, marker = line.partition(";")
            wanted = not marker.strip() or re.search(r"extra\s*==\s*['\"]core['\"]", marker)
            if wanted and not requirement.strip().startswith("scipion"):
                chosen.append(requirement.strip())
        return chosen

    @staticmethod
    def coreSource():
        """What pip installs: this checkout in development, the released distribution otherwise."""
        checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if os.path.exists(os.path.join(checkout, "setup.py")):
            return checkout
        return "%s==%s" % (_DISTRIBUTION, __version__)

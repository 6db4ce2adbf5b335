"""Names that are stored in projects and configuration files, and therefore stay as they are."""

from cryoden_core import __version__ as CORE_VERSION

#: Environment built by ``scipion3 installb cryoden``, and the folder (below EM_ROOT) that holds it.
ENVIRONMENT_NAME = "cryoden-%s" % CORE_VERSION

#: Configuration variables.
CRYODEN_HOME = "CRYODEN_HOME"
CRYODEN_PYTHON = "CRYODEN_PYTHON"
CRYODEN_LOADER = "CRYODEN_LOADER"
CRYODEN_ENV_ACTIVATION = "CRYODEN_ENV_ACTIVATION"

#: Flag file that marks a finished installation.
INSTALLED_FLAG = "cryoden_installed"

#: Outputs.
OUTPUT_TOMOGRAMS = "Tomograms"
OUTPUT_FAILED = "FailedTomograms"
OUTPUT_MODEL = "model"
OUTPUT_COORDINATES = "Coordinates"
OUTPUT_LABELS = "Labels"

#: Form parameters that more than one file needs.
IN_TOMO_SET = "inputSetOfTomograms"
IN_TS_SET = "inputSetOfTiltSeries"
IN_MASK = "inputMask"
IN_MODEL = "inputModel"

"""CryoDen's core: restoration of cryo-electron tomograms, without Scipion.

Every system is a command (``cryoden --help``) and a function of :mod:`cryoden_core.api`.  Importing the package costs
milliseconds: torch is loaded by the modules that compute, never here.
"""

__version__ = "0.1.0"

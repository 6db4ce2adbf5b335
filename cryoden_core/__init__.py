"""CryoDen's core: restoration of cryo-electron tomograms, without Scipion.

Importing the package costs milliseconds: torch is loaded by the modules that compute, never here.
"""

__version__ = "0.1.0"

"""Scipion objects of CryoDen."""

from pwem.objects import EMObject
from pyworkflow.object import Boolean, Float, Integer, String


class CryodenModel(EMObject):
    """A trained network together with what it was trained on.

    The weights are a safetensors file, named relative to the project; the other attributes are its provenance, so
    that a form can warn when the model is about to be applied to tomograms of another kind.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._path = String(kwargs.get("path"))
        self._system = String(kwargs.get("system"))
        self._preset = String(kwargs.get("preset"))
        self._noiseModel = String(kwargs.get("noiseModel"))
        self._samplingRate = Float(kwargs.get("samplingRate"))
        self._steps = Integer(kwargs.get("steps"))
        self._seed = Integer(kwargs.get("seed"))
        self._trainedOn = String(kwargs.get("trainedOn"))
        self._usedHalves = Boolean(kwargs.get("usedHalves", False))
        self._ctfCorrected = Boolean(kwargs.get("ctfCorrected", False))
        self._contrast = String(kwargs.get("contrast"))
        self._coreVersion = String(kwargs.get("coreVersion"))

    def getPath(self):
        """The weights (.safetensors), relative to the project."""
        return self._path.get()

    def getSystem(self):
        """Which of CryoDen's systems trained it."""
        return self._system.get()

    def getSamplingRate(self):
        """Voxel size of the tomograms that it was trained on, in angstrom."""
        return self._samplingRate.get()

    def getTrainedOn(self):
        """The tsIds that it was trained on, separated by ', '."""
        return self._trainedOn.get()

    def ctfCorrected(self):
        """True when the tomograms that it was trained on were CTF corrected; None when that is not known."""
        return self._ctfCorrected.get()

    def getContrast(self):
        """Density in the tomograms that it was trained on: dark or bright; None where that plays no part."""
        return self._contrast.get()

    def getFiles(self):
        return {self.getPath()}

    def __str__(self):
        return "CryodenModel (%s, %s, %0.2f \u00c5/px, trained on %s)" % (
            self._system.get(""),
            self._preset.get(""),
            self._samplingRate.get(0.0),
            self._trainedOn.get("?"),
        )

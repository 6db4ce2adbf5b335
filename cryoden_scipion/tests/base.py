"""What the tests of the plugin share: a project, imports, a quick run, and stand-ins for the core."""

import os
import tempfile

from pyworkflow.tests import setupTestProject
from pyworkflow.utils import magentaStr
from tomo.protocols import ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

from cryoden_core.jobs import NMSG_PRESETS

from ..protocols import ProtCryodenNmsgDenoise
from . import synthetic

#: Form values of a run that takes seconds.
QUICK = {"useGpu": False, "preset": NMSG_PRESETS.index("fast"), "steps": 4}


class CryodenTest(TestBaseCentralizedLayer):
    """A test project and a folder for data whose name holds a space and a comma."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.data = os.path.join(tempfile.mkdtemp(prefix="cryoden_test_"), "my data, raw")
        os.makedirs(cls.data)

    @classmethod
    def importTomograms(cls, folder, pattern="{TS}.mrc"):
        print(magentaStr("\n==> Importing tomograms:"))
        protocol = cls.newProtocol(
            ProtImportTomograms,
            filesPath=folder,
            filesPattern=pattern,
            samplingRate=synthetic.SAMPLING_RATE,
            importAcquisitionFrom=0,
        )
        cls.launchProtocol(protocol)
        return protocol.Tomograms

    @classmethod
    def newDenoise(cls, tomograms, **values):
        return cls.newProtocol(ProtCryodenNmsgDenoise, **dict(QUICK, inputSetOfTomograms=tomograms, **values))

    @classmethod
    def denoise(cls, tomograms, **values):
        print(magentaStr("\n==> Denoising with NMSG:"))
        protocol = cls.newDenoise(tomograms, **values)
        cls.launchProtocol(protocol)
        return protocol

    @classmethod
    def launchExpectingFailure(cls, protocol):
        """Launch a protocol that must fail, and return what it says."""
        try:
            cls.launchProtocol(protocol)
        except Exception as error:
            return "%s %s" % (error, protocol.getErrorMessage())
        raise AssertionError("the protocol should have failed")

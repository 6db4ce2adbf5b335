"""What the tests of the plugin share: a project, imports, a quick run, and the stand-in for the core."""

import os
import tempfile
import time

from pyworkflow.protocol import MODE_RESUME
from pyworkflow.tests import setupTestProject
from pyworkflow.utils import magentaStr
from tomo.protocols import ProtImportTomograms
from tomo.tests.test_base_centralized_layer import TestBaseCentralizedLayer

from cryoden_core.jobs import NMSG_PRESETS

from ..constants import CRYODEN_PYTHON
from ..protocols import ProtCryodenNmsgDenoise
from . import standin_core, synthetic

#: Form values of a run that takes seconds.
QUICK = {"useGpu": False, "preset": NMSG_PRESETS.index("fast"), "steps": 4}


class CryodenTest(TestBaseCentralizedLayer):
    """A test project and a folder for data whose name holds a space and a comma."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.makeDataFolder()

    @classmethod
    def makeDataFolder(cls):
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
    def editTomograms(cls, tomograms, change):
        """Apply ``change`` to each tomogram of a set, for descriptions that no import protocol makes."""
        for tomogram in [tomogram.clone() for tomogram in tomograms.iterItems()]:
            change(tomogram)
            tomograms.update(tomogram)
        tomograms.write()
        cls.proj._storeProtocol(cls.proj.getProtocol(tomograms.getObjParentId()))

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
    def continueProtocol(cls, protocol):
        """What the button *Continue* does."""
        print(magentaStr("\n==> Continue:"))
        protocol.runMode.set(MODE_RESUME)
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

    @classmethod
    def waitFor(cls, condition, seconds, what):
        """Wait until ``condition()`` holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError("waited %d s in vain for %s" % (seconds, what))
            time.sleep(0.5)


class StandInTest(CryodenTest):
    """The core replaced by its stand-in, and its environment variables put back after each test."""

    def setUp(self):
        self._environment = dict(os.environ)
        self.log = os.path.join(tempfile.mkdtemp(prefix="cryoden_standin_"), "runs.txt")
        os.environ["CRYODEN_STANDIN_LOG"] = self.log
        os.environ[CRYODEN_PYTHON] = standin_core.install(os.path.dirname(self.log))

    def tearDown(self):
        os.environ.clear()
        os.environ.update(self._environment)

    def runs(self):
        """What the stand-in was asked, in the order in which the runs ended."""
        return standin_core.read_log(self.log)

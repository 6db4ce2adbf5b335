"""What a person does: import a misaligned tilt series, import IMOD's alignment, exclude bad images, reconstruct.

The tilt series is the golden one with a known truth; the protocols before ours are those of scipion-em-tomo and
scipion-em-imod.
"""

import os
import shutil
import unittest

import mrcfile
import numpy as np
from pwem import Domain
from tomo.objects import TiltSeries
from tomo.protocols import ProtImportTs

from cryoden_core.jobs import MLP_PRESETS

from ..protocols import ProtCryodenMlpReconstruct
from . import standin_imod
from .base import CryodenTest
from .test_after_imod import test_data as data_folder

#: Images of the golden series that hold garbage.
GARBAGE = (5, 20)


class TestMlpAfterImod(CryodenTest):
    """Tilt series, IMOD's alignment, MLP."""

    @classmethod
    def setUpClass(cls):
        cls.golden = os.path.join(data_folder(), "imod_golden")
        if not os.path.isdir(cls.golden):
            raise unittest.SkipTest("no test data in %s; set CRYODEN_TEST_DATA" % data_folder())
        standin_imod.install("")
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        standin_imod.remove()

    def importTiltSeries(self):
        folder = os.path.join(self.data, "tilt series")
        os.makedirs(folder)
        for source, name in (("TS_B.mrc", "TS_B.mrc"), ("TS_B.rawtlt", "TS_B.tlt"), ("TS_B.xf", "TS_B.xf")):
            shutil.copy(os.path.join(self.golden, "B", source), os.path.join(folder, name))
            os.chmod(os.path.join(folder, name), 0o644)
        protocol = self.newProtocol(
            ProtImportTs,
            filesPath=folder,
            filesPattern="{TS}.mrc",
            anglesFrom=2,
            voltage=300,
            magnification=10000,
            samplingRate=10.0,
            tiltAxisAngle=4.0,
            dosePerFrame=1.0,
        )
        self.launchProtocol(protocol)
        return folder, protocol.outputTiltSeries

    def importAlignment(self, folder, tilt_series):
        transforms_class = Domain.importFromPlugin("imod.protocols", "ProtImodImportTransformationMatrix", doRaise=True)
        protocol = self.newProtocol(
            transforms_class, filesPath=folder, filesPattern="*.xf", inputSetOfTiltSeries=tilt_series
        )
        self.launchProtocol(protocol)
        return protocol.TiltSeries

    @staticmethod
    def exclude(tilt_series):
        """What unticking images in Scipion's viewer of tilt series does."""
        ts = tilt_series.getItem(TiltSeries.TS_ID_FIELD, "TS_B")
        for image in [image.clone() for image in ts.iterItems()]:
            if image.getIndex() in GARBAGE:
                image.setEnabled(False)
                ts.update(image)
        ts.write()

    def test_the_tomogram_shows_the_phantom_upright_and_in_its_place(self):
        folder, tilt_series = self.importTiltSeries()
        refused = self.newProtocol(
            ProtCryodenMlpReconstruct, inputSetOfTiltSeries=tilt_series, useGpu=False, thickness=64
        )
        self.assertIn("align it first", "".join(refused._validate()))
        aligned = self.importAlignment(folder, tilt_series)
        self.exclude(aligned)
        protocol = self.newProtocol(
            ProtCryodenMlpReconstruct,
            inputSetOfTiltSeries=aligned,
            useGpu=False,
            thickness=64,
            preset=MLP_PRESETS.index("fast"),
            heldOut=False,
        )
        self.launchProtocol(protocol)
        with mrcfile.open(os.path.join(self.golden, "phantom.mrc"), permissive=True) as volume:
            phantom = np.asarray(volume.data, np.float32)
        z, y, x = phantom.shape
        self.checkTomograms(
            protocol.Tomograms,
            expectedSetSize=1,
            expectedSRate=10.0,
            expectedDimensions=[x, y, z],
            expectedOriginShifts=[-edge / 2.0 * 10.0 for edge in (x, y, z)],
        )
        with mrcfile.open(protocol.Tomograms.getFirstItem().getFileName()) as volume:
            tomogram = np.asarray(volume.data, np.float32)
        self.assertGreater(np.corrcoef(tomogram.ravel(), phantom.ravel())[0, 1], 0.8)
        self.assertLess(np.corrcoef(tomogram[::-1].ravel(), phantom.ravel())[0, 1], 0.2)

"""NMSG on what IMOD's own Scipion protocol outputs.

The protocol is scipion-em-imod's; IMOD's programs are stand-ins that deliver the file that the real ones wrote for this
tilt series.  The volume is IMOD's: 16-bit integers, in the form of an image stack.
"""

import os
import shutil
import unittest

import mrcfile
from pwem import Domain
from tomo.protocols import ProtImportTs

from .. import __file__ as plugin_file
from . import standin_imod
from .base import CryodenTest


def test_data():
    """The folder of the golden data."""
    beside = os.path.join(os.path.dirname(os.path.abspath(plugin_file)), "..", "..", "shared", "data")
    return os.path.abspath(os.environ.get("CRYODEN_TEST_DATA") or beside)


class TestAfterImod(CryodenTest):
    """Tilt series, IMOD's reconstruction protocol, NMSG."""

    @classmethod
    def setUpClass(cls):
        cls.golden = os.path.join(test_data(), "imod_golden", "A")
        if not os.path.isdir(cls.golden):
            raise unittest.SkipTest("no test data in %s; set CRYODEN_TEST_DATA" % test_data())
        standin_imod.install(os.path.join(cls.golden, "rec_A_int16.mrc"))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        standin_imod.remove()

    def importTiltSeries(self):
        folder = os.path.join(self.data, "tilt series")
        os.makedirs(folder)
        shutil.copy(os.path.join(self.golden, "TS_A.mrc"), folder)
        shutil.copy(os.path.join(self.golden, "TS_A.rawtlt"), os.path.join(folder, "TS_A.tlt"))
        with mrcfile.open(os.path.join(folder, "TS_A.mrc"), header_only=True, permissive=True) as stack:
            sampling_rate = float(stack.voxel_size.x) or 10.0
        protocol = self.newProtocol(
            ProtImportTs,
            filesPath=folder,
            filesPattern="{TS}.mrc",
            anglesFrom=2,
            voltage=300,
            magnification=10000,
            samplingRate=sampling_rate,
            tiltAxisAngle=0.0,
            dosePerFrame=1.0,
        )
        self.launchProtocol(protocol)
        return protocol.outputTiltSeries, sampling_rate

    def test_the_reconstruction_of_imods_protocol_is_denoised(self):
        reconstruct_class = Domain.importFromPlugin("imod.protocols", "ProtImodTomoReconstruction", doRaise=True)
        tilt_series, sampling_rate = self.importTiltSeries()
        with mrcfile.open(os.path.join(self.golden, "rec_A_int16.mrc"), permissive=True) as golden:
            z, y, x = golden.data.shape
            self.assertTrue(golden.is_image_stack())
        reconstruct = self.newProtocol(
            reconstruct_class, inputSetOfTiltSeries=tilt_series, tomoThickness=z, useGpu=False, numberOfThreads=2
        )
        self.launchProtocol(reconstruct)
        denoised = self.denoise(reconstruct.Tomograms, steps=2)
        self.checkTomograms(
            denoised.Tomograms,
            expectedSetSize=1,
            expectedSRate=sampling_rate,
            expectedDimensions=[x, y, z],
            expectedOriginShifts=[-edge / 2.0 * sampling_rate for edge in (x, y, z)],
            testSetAcqObj=reconstruct.Tomograms.getAcquisition(),
        )
        with mrcfile.open(denoised.Tomograms.getFirstItem().getFileName()) as volume:
            self.assertEqual((volume.header.mode, volume.header.ispg), (2, 1))
            self.assertGreater(volume.data.std(), 0)

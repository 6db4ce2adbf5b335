"""NMSG on what IMOD's own Scipion protocol outputs.

IMOD cannot be installed by a package manager, so its programs are replaced by stand-ins below an ``IMOD_HOME`` of the
test's own: shell scripts that deliver the file that the real programs wrote for this tilt series.  The protocol that
calls them is scipion-em-imod's, and the volume is IMOD's: 16-bit integers, in the form of an image stack.
"""

import os
import shutil
import stat
import tempfile
import unittest

import mrcfile
from pwem import Domain
from tomo.protocols import ProtImportTs

from .. import __file__ as plugin_file
from .base import CryodenTest

#: Stand-ins for IMOD's programs: ``tilt`` writes a marker, ``trimvol`` the reconstruction that IMOD made.
STAND_INS = {
    "tilt": 'while [ $# -gt 0 ]; do if [ "$1" = -OutputFile ]; then echo stand-in > "$2"; fi; shift; done',
    "newstack": "echo 'the stand-in for newstack should not have been called' >&2; exit 1",
    "trimvol": 'for last; do :; done; cp "%(reconstruction)s" "$last"; chmod u+w "$last"',
    "3dmod": "exit 0",
    "etomo": "exit 0",
}


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
        cls.imod_home = tempfile.mkdtemp(prefix="standin_imod_")
        cls.writeStandIns()
        os.environ["IMOD_HOME"] = cls.imod_home
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        os.environ.pop("IMOD_HOME", None)

    @classmethod
    def writeStandIns(cls):
        programs = os.path.join(cls.imod_home, "bin")
        os.makedirs(programs)
        paths = {"reconstruction": os.path.join(cls.golden, "rec_A_int16.mrc")}
        for name, script in STAND_INS.items():
            path = os.path.join(programs, name)
            with open(path, "w", encoding="utf-8") as stream:
                stream.write("#!/bin/sh\n# Stand-in for IMOD's %s, for tests only.\n%s\n" % (name, script % paths))
            os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        with open(os.path.join(cls.imod_home, "IMOD-linux.sh"), "w", encoding="utf-8") as stream:
            stream.write("# Stand-in for IMOD's settings, for tests only.\n")

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

"""Import, denoise, check: one tomogram and sets of them."""

import os

from ..constants import OUTPUT_FAILED
from . import synthetic
from .base import CryodenTest

X, Y, Z = synthetic.SHAPE[::-1]


def origin_of(x, y, z):
    """Scipion's default origin, in angstrom."""
    return [-edge / 2.0 * synthetic.SAMPLING_RATE for edge in (x, y, z)]


class TestNmsgDenoise(CryodenTest):
    """What a person sees who imports tomograms and denoises them."""

    def test_every_tomogram_is_denoised_and_keeps_its_description(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "plain"), ["TS_01", "TS_02"])
        tomograms = self.importTomograms(folder)
        protocol = self.denoise(tomograms)
        self.checkTomograms(
            protocol.Tomograms,
            expectedSetSize=2,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[X, Y, Z],
            expectedOriginShifts=origin_of(X, Y, Z),
            testSetAcqObj=tomograms.getAcquisition(),
            isHeterogeneousSet=False,
        )
        self.assertIsNone(getattr(protocol, OUTPUT_FAILED, None))
        self.assertIn("2* tomograms finished", "".join(protocol._summary()))
        self.assertIn("[Yang2024]", "".join(protocol._methods()))

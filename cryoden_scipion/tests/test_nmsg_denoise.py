"""Import, denoise, check: what a person does, with the real core."""

import os

import mrcfile
import numpy as np

from cryoden_core.jobs import read_json

from ..constants import OUTPUT_FAILED
from ..convert import ItemFolder, safe_name
from . import synthetic
from .base import CryodenTest

X, Y, Z = synthetic.SHAPE[::-1]


def default_origin(x, y, z):
    """Scipion's default origin, in angstrom."""
    return [-edge / 2.0 * synthetic.SAMPLING_RATE for edge in (x, y, z)]


def read(path):
    with mrcfile.open(path, permissive=True) as volume:
        return np.array(volume.data, np.float32)


class TestNmsgDenoise(CryodenTest):
    """Sets of tomograms in, sets of denoised tomograms out."""

    def test_every_tomogram_is_denoised_and_keeps_its_description(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "plain"), ["TS_01", "TS_02"])
        tomograms = self.importTomograms(folder)
        protocol = self.denoise(tomograms)
        self.checkTomograms(
            protocol.Tomograms,
            expectedSetSize=2,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[X, Y, Z],
            expectedOriginShifts=default_origin(X, Y, Z),
            testSetAcqObj=tomograms.getAcquisition(),
            isHeterogeneousSet=False,
        )
        for tomogram in protocol.Tomograms:
            noisy = read(os.path.join(folder, tomogram.getTsId() + ".mrc"))
            self.assertLess(read(tomogram.getFileName()).std(), noisy.std())
        self.assertIsNone(getattr(protocol, OUTPUT_FAILED, None))
        self.assertIn("2* tomograms finished", "".join(protocol._summary()))
        self.assertIn("[Yang2024]", "".join(protocol._methods()))

    def test_halves_odd_names_sizes_and_flags_arrive_in_the_output(self):
        """One run over everything that makes descriptions differ: halves, tsIds, sizes, origin, CTF flag."""
        tomograms, names, shapes = self._unusualTomograms()
        protocol = self.denoise(tomograms)
        output = protocol.Tomograms
        self.checkTomograms(
            output,
            expectedSetSize=2,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions={name: list(shape[::-1]) for name, shape in zip(names, shapes)},
            expectedOriginShifts=[-11.0, 22.0, -33.0],
            hasOddEven=True,
            hasHalves=True,
            ctfCorrected=True,
            isHeterogeneousSet=True,
        )
        for tomogram in output:
            even, odd = tomogram.getHalfMaps(asList=True)
            name = safe_name(tomogram.getTsId())
            self.assertEqual(os.path.basename(tomogram.getFileName()), name + ".mrc")
            self.assertEqual([os.path.basename(even), os.path.basename(odd)], [name + "_even.mrc", name + "_odd.mrc"])
            # The even half is listed second in the input: it is told from the odd one by its name.
            job = read_json(ItemFolder.of(protocol._getExtraPath(), tomogram.getTsId()).request)
            self.assertTrue(job["parameters"]["even"].endswith("_even.mrc"))
            self.assertFalse(np.array_equal(read(even), read(odd)))

    def _unusualTomograms(self):
        names, shapes = ["Pos 1 (a) 100%", "seven_01"], [(24, 48, 48), (20, 40, 56)]
        folder = os.path.join(self.data, "halves")
        files = ["a", "seven"]
        for seed, (name, shape) in enumerate(zip(files, shapes)):
            even, odd = synthetic.halves(shape, seed)
            synthetic.write_mrc(os.path.join(folder, name + ".mrc"), (even + odd) / 2)
            synthetic.write_mrc(os.path.join(folder, "halves", name + "_even.mrc"), even)
            synthetic.write_mrc(os.path.join(folder, "halves", name + "_odd.mrc"), odd)
        tomograms = self.importTomograms(folder)

        def describe(tomogram):
            name = tomogram.getTsId()
            tomogram.setTsId(names[files.index(name)])
            tomogram.setHalfMaps(
                [os.path.join(folder, "halves", "%s_%s.mrc" % (name, half)) for half in ("odd", "even")]
            )
            tomogram.setShiftsInOrigin(-11.0, 22.0, -33.0)
            tomogram.setCtfCorrected(True)

        self.editTomograms(tomograms, describe)
        return tomograms, names, shapes

    def test_one_model_for_the_set_is_an_output_that_can_be_applied(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "set"), ["TS_A", "TS_B", "TS_C"])
        tomograms = self.importTomograms(folder)
        trained = self.denoise(tomograms, trainingMode=1, trainingTomograms=2)
        self.assertEqual(trained.Tomograms.getSize(), 3)
        model = trained.model
        self.assertTrue(os.path.exists(model.getPath()))
        self.assertFalse(os.path.isabs(model.getPath()))
        self.assertEqual(model.getTrainedOn(), "TS_A, TS_B")
        self.assertEqual(model.getSamplingRate(), synthetic.SAMPLING_RATE)
        applied = self.denoise(tomograms, trainingMode=2, inputModel=model)
        self.assertEqual(applied.Tomograms.getSize(), 3)
        for ours, theirs in zip(applied.Tomograms, trained.Tomograms.iterItems()):
            self.assertTrue(np.allclose(read(ours.getFileName()), read(theirs.getFileName()), atol=1e-4))

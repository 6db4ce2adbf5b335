"""Input that cannot be processed: caught before the run where headers tell, put aside where only the data do."""

import os

import numpy as np

from cryoden_core.jobs import read_json

from ..constants import OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from . import synthetic
from .base import CryodenTest


class TestFailures(CryodenTest):
    """Bad tomograms among good ones, and forms that make no sense."""

    def test_bad_tomograms_are_put_aside_with_the_reason_and_the_others_go_on(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "mixed"), ["good"])
        synthetic.write_mrc(os.path.join(folder, "flat.mrc"), np.full(synthetic.SHAPE, 3, np.float32))
        broken = synthetic.tomogram()
        broken[10, 20, 20] = np.nan
        synthetic.write_mrc(os.path.join(folder, "nan.mrc"), broken)
        protocol = self.denoise(self.importTomograms(folder))
        self.checkTomograms(protocol.Tomograms, expectedSetSize=1, expectedSRate=synthetic.SAMPLING_RATE)
        failed = getattr(protocol, OUTPUT_FAILED)
        self.assertEqual(sorted(failed.getTSIds()), ["flat", "nan"])
        self.assertFalse(failed.isStreamOpen())
        reasons = read_json(protocol._getExtraPath("failed.json"))
        self.assertEqual(sorted(reasons), ["flat", "nan"])
        summary = "\n".join(protocol._summary())
        for ts_id, reason in reasons.items():
            self.assertIn("*%s* failed: %s" % (ts_id, reason), summary)
            self.assertIn(ts_id, reason)  # the sentence names the file
        self.continueAfterRepair(protocol, os.path.join(folder, "nan.mrc"))

    def continueAfterRepair(self, protocol, path):
        """Once the file is repaired, Continue processes it and the failed set shrinks."""
        synthetic.write_mrc(path, synthetic.tomogram(seed=5))
        getattr(protocol, OUTPUT_FAILED).close()  # its file is made anew
        self.continueProtocol(protocol)
        self.assertEqual(sorted(protocol.Tomograms.getTSIds()), ["good", "nan"])
        self.assertEqual(getattr(protocol, OUTPUT_FAILED).getTSIds(), ["flat"])

    def test_the_run_fails_when_every_tomogram_fails(self):
        folder = os.path.join(self.data, "flat")
        synthetic.write_mrc(os.path.join(folder, "flat.mrc"), np.zeros(synthetic.SHAPE, np.float32))
        protocol = self.newDenoise(self.importTomograms(folder))
        said = self.launchExpectingFailure(protocol)
        self.assertIn("No tomogram could be made", said)
        self.assertIsNone(getattr(protocol, OUTPUT_TOMOGRAMS, None))

    def test_a_form_that_cannot_work_is_refused_with_a_sentence(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "form"), ["TS_1", "TS_2"])
        half = synthetic.write_mrc(os.path.join(self.data, "halves", "a_even.mrc"), synthetic.tomogram())
        other = synthetic.write_mrc(os.path.join(self.data, "halves", "a_odd.mrc"), synthetic.tomogram((24, 40, 48)))
        tomograms = self.importTomograms(folder)

        def problems(**values):
            return "\n".join(self.newDenoise(tomograms, **values)._validate())

        self.assertEqual(problems(), "")
        self.assertIn("Choose the model to apply", problems(trainingMode=2))
        self.assertIn("At least 2 threads", problems(numberOfThreads=1))
        self.assertIn("must be numbers", problems(useGpu=True, gpuList="first"))
        self.assertIn("at least one GPU", problems(useGpu=True, gpuList="99"))
        path = os.environ["PATH"]
        try:
            os.environ["PATH"] = ""
            self.assertIn("there is no nvidia-smi", problems(useGpu=True))
            self.assertEqual(problems(useGpu=True, cpuFallback=True), "")
        finally:
            os.environ["PATH"] = path

        self.editTomograms(tomograms, lambda tomogram: tomogram.setHalfMaps([half, other]))
        self.assertIn("has size 48 x 40 x 24, the tomogram 48 x 48 x 24", problems())
        self.assertEqual(problems(useHalfMaps=False), "")
        self.editTomograms(tomograms, lambda tomogram: tomogram.setHalfMaps([half, half]))
        self.assertIn("both half maps are the same file", problems())
        os.remove(os.path.join(folder, "TS_2.mrc"))
        self.assertIn("TS_2", problems(useHalfMaps=False))

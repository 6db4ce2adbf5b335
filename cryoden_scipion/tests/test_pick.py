"""Picking with the real core: coordinates where the particles are, and what becomes of tomograms without any."""

import os

import numpy as np
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfTomoMasks

from cryoden_core.jobs import PickJob, default_of, read_json

from ..clean_domain import labels_mask
from ..constants import OUTPUT_FAILED
from ..forms import job_settings
from ..protocols import ProtCryodenPick
from ..viewers import CryodenPickViewer
from . import synthetic
from .base import CryodenTest

SHAPE = (40, 64, 80)
#: Centres (x, y, z) of dark balls of 14 voxels.
CENTRES = {"TS_1": [(20, 18, 20), (60, 44, 18)], "TS_2": [(40, 32, 19)]}
DIAMETER = 14 * synthetic.SAMPLING_RATE


def balls(centres, seed):
    """A noisy tomogram with dark balls."""
    z, y, x = np.indices(SHAPE)
    volume = 0.4 * synthetic.noise(SHAPE, seed)
    for cx, cy, cz in centres:
        volume[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 7**2] -= 1
    return volume.astype(np.float32)


class TestPick(CryodenTest):
    """One run over tomograms with two particles, with one, with none, and over one that is broken."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = os.path.join(cls.data, "balls")
        for seed, (ts_id, centres) in enumerate({**CENTRES, "TS_empty": []}.items()):
            synthetic.write_mrc(os.path.join(folder, ts_id + ".mrc"), balls(centres, seed))
        synthetic.write_mrc(os.path.join(folder, "TS_flat.mrc"), np.zeros(SHAPE, np.float32))
        cls.tomograms = cls.importTomograms(folder)
        cls.protocol = cls.newProtocol(
            ProtCryodenPick, inputSetOfTomograms=cls.tomograms, diameter=DIAMETER, threshold=6.0, border=50.0,
            numberOfThreads=5,
        )  # fmt: skip
        cls.launchProtocol(cls.protocol)

    def test_each_particle_is_picked_within_a_voxel_and_nothing_else(self):
        picked = self.protocol.Coordinates
        self.assertEqual(picked.getSize(), 3)
        self.assertEqual((picked.getSamplingRate(), picked.getBoxSize()), (synthetic.SAMPLING_RATE, 22))
        for tomogram in [item.clone() for item in self.tomograms.iterItems()]:
            found = [item.clone() for item in picked.iterCoordinates(volume=tomogram)]
            for coordinate in found:
                coordinate.setVolume(tomogram)
                self.assertGreaterEqual(coordinate.getScore(), 6)
            positions = sorted(coordinate.getPosition(BOTTOM_LEFT_CORNER) for coordinate in found)
            expected = sorted(CENTRES.get(tomogram.getTsId(), []))
            self.assertEqual(len(positions), len(expected), tomogram.getTsId())
            if expected:
                np.testing.assert_allclose(positions, expected, atol=1)

    def test_a_tomogram_without_particles_is_no_failure_and_a_broken_one_is(self):
        self.assertEqual(getattr(self.protocol, OUTPUT_FAILED).getTSIds(), ["TS_flat"])
        summary = "\n".join(self.protocol._summary())
        self.assertIn("*3* tomograms finished, *1* failed", summary)
        self.assertIn("*TS_1*: 2 particles", summary)
        self.assertIn("*TS_empty*: 0 particles", summary)
        self.assertIn("3 particles of 140", self.protocol._methods()[0])

    def test_the_viewer_draws_a_circle_for_each_pick_of_the_chosen_tomogram(self):
        viewer = CryodenPickViewer(project=self.proj)
        viewer.setProtocol(self.protocol)
        for ts_id, count in (("TS_1", 2), ("TS_2", 1), ("TS_empty", 0)):
            viewer.tomogram.set(viewer.tsIds().index(ts_id))
            (view,) = viewer._getVisualizeDict()["showPicks"]("showPicks")
            self.assertEqual(len(view.figure.get_axes()[0].patches), count, ts_id)

    def test_no_set_is_made_before_there_is_a_pick(self):
        protocol = self.newProtocol(ProtCryodenPick, inputSetOfTomograms=self.tomograms)
        protocol._outputItems = lambda tsId: []
        protocol._registerItem("TS_empty")
        self.assertIsNone(getattr(protocol, "Coordinates", None))

    def test_the_mask_of_a_tomogram_reaches_the_core(self):
        masks = SetOfTomoMasks.create(self.protocol._getPath(), template="tomomasks%s.sqlite", suffix="Test")
        masks.setSamplingRate(synthetic.SAMPLING_RATE)
        first = self.tomograms.getFirstItem().clone()
        path = synthetic.write_mrc(os.path.join(self.data, "mask.mrc"), np.ones(SHAPE, np.float32))
        masks.append(labels_mask(path, first))
        protocol = self.newProtocol(ProtCryodenPick, inputSetOfTomograms=self.tomograms, inputMask=masks)
        protocol._items = {item.getTsId(): item.clone() for item in self.tomograms.iterItems()}
        self.assertEqual(protocol._jobOf(first.getTsId()).mask, path)
        self.assertEqual(protocol._jobOf("TS_2").mask, "")

    def test_the_forms_defaults_are_those_of_the_job_and_reach_it(self):
        for name, value in job_settings(self.newProtocol(ProtCryodenPick), PickJob).items():
            self.assertEqual(value, default_of(PickJob, name), name)
        job = read_json(self.protocol._itemFolder("TS_1").request)["parameters"]
        self.assertEqual((job["diameter"], job["threshold"], job["border"]), (DIAMETER, 6.0, 50.0))
        self.assertEqual((job["contrast"], job["voxel_size"], job["mask"]), ("dark", synthetic.SAMPLING_RATE, ""))

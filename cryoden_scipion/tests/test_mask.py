"""The mask of the form: which file each tomogram's job gets."""

import os

import numpy as np
from pwem.objects import VolumeMask
from tomo.objects import SetOfTomoMasks, TomoMask

from cryoden_core.jobs import read_json

from ..convert import ItemFolder
from . import synthetic
from .base import StandInTest


class TestMask(StandInTest):
    """A set of masks is matched by tsId; one volume mask serves every tomogram."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = synthetic.write_tomograms(os.path.join(cls.data, "masked"), ["TS_1", "TS_2"])
        cls.tomograms = cls.importTomograms(folder)

    def writeMask(self, name, shape=synthetic.SHAPE):
        mask = np.zeros(shape, np.float32)
        mask[4:-4, 8:-8, 8:-8] = 1
        return synthetic.write_mrc(os.path.join(self.data, name), mask)

    def setOfMasks(self, **files):
        """A set of masks, as one more output of the import; given are tsIds and files."""
        protocol = self.proj.getProtocol(self.tomograms.getObjParentId())
        masks = SetOfTomoMasks(filename=protocol._getPath("masks_%d.sqlite" % len(files)))
        masks.setSamplingRate(synthetic.SAMPLING_RATE)
        for ts_id, path in files.items():
            mask = TomoMask()
            mask.setLocation(path)
            mask.setTsId(ts_id)
            mask.setSamplingRate(synthetic.SAMPLING_RATE)
            masks.append(mask)
        masks.write()
        protocol._defineOutputs(masks=masks)
        self.proj._storeProtocol(protocol)
        return protocol.masks

    def volumeMask(self, path):
        protocol = self.proj.getProtocol(self.tomograms.getObjParentId())
        mask = VolumeMask()
        mask.setLocation(path)
        mask.setSamplingRate(synthetic.SAMPLING_RATE)
        protocol._defineOutputs(mask=mask)
        self.proj._storeProtocol(protocol)
        return protocol.mask

    def masksOfJobs(self, protocol):
        """The mask in the job of each tomogram."""
        extra = protocol._getExtraPath()
        return [
            read_json(ItemFolder.of(extra, ts_id).request)["parameters"]["mask"]
            for ts_id in protocol.Tomograms.getTSIds()
        ]

    def test_a_set_of_masks_is_matched_by_tsid_in_whatever_order(self):
        first, second = self.writeMask("first.mrc"), self.writeMask("second.mrc")
        protocol = self.denoise(self.tomograms, inputMask=self.setOfMasks(TS_2=second, TS_1=first))
        self.assertEqual(protocol.Tomograms.getTSIds(), ["TS_1", "TS_2"])
        self.assertEqual(self.masksOfJobs(protocol), [first, second])

    def test_a_tomogram_without_a_mask_in_the_set_is_named_and_used_whole(self):
        first = self.writeMask("only.mrc")
        protocol = self.newDenoise(self.tomograms, inputMask=self.setOfMasks(TS_1=first))
        self.assertIn("There is no mask for TS_2", "".join(protocol._warnings()))
        self.launchProtocol(protocol)
        self.assertEqual(self.masksOfJobs(protocol), [first, ""])

    def test_one_volume_mask_serves_every_tomogram_of_its_size(self):
        path = self.writeMask("one.mrc")
        importing = self.proj.getProtocol(self.volumeMask(path).getObjParentId())
        protocol = self.newDenoise(self.tomograms)
        protocol.inputMask.set(importing)  # the pointer that the form makes
        protocol.inputMask.setExtended("mask")
        self.launchProtocol(protocol)
        self.assertEqual(self.masksOfJobs(protocol), [path, path])
        small = self.volumeMask(self.writeMask("small.mrc", (24, 40, 48)))
        self.assertIn("48 x 40 x 24", "".join(self.newDenoise(self.tomograms, inputMask=small)._validate()))

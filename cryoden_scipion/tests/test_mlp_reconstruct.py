"""Tilt series to tomograms: what reaches the core, what comes back, and the chain on to NMSG with the real core."""

import os

import mrcfile
import numpy as np
from pwem.objects import Transform
from pyworkflow.utils import magentaStr
from tomo.objects import SetOfTiltSeries, TiltImage, TiltSeries

from cryoden_core.jobs import MLP_PRESETS, MlpJob, default_of, read_json

from ..constants import OUTPUT_FAILED
from ..convert import ItemFolder
from ..forms import form_name, job_settings
from ..protocols import ProtCryodenMlpReconstruct
from ..tilt_series import off_vertical
from ..viewers import CryodenMlpViewer
from ..viewers.figure_view import FigureView
from . import synthetic
from .base import CryodenTest, StandInTest

Z, Y, X = synthetic.SHAPE

#: Form values of a run that takes seconds.
QUICK = {"useGpu": False, "preset": MLP_PRESETS.index("fast"), "thickness": Z, "passes": 2, "held_out": False}


class MlpTest:
    """Tilt series in a project, made as an alignment protocol would leave them, and the protocol under test."""

    @classmethod
    def makeTiltSeries(cls, name, describe=None, ts_ids=("TS_1",), axis=0.0):
        """Register a set of tilt series; ``describe(ts, image)`` may change each image before it is stored."""
        holder = cls.newProtocol(ProtCryodenMlpReconstruct, objLabel=name, **cls.quick())
        cls.proj.saveProtocol(holder)
        holder.makePathsAndClean()
        folder = os.path.join(cls.data, name)
        tilt_series = SetOfTiltSeries.create(holder.getPath(), template="tiltseries")
        tilt_series.setSamplingRate(synthetic.SAMPLING_RATE)
        tilt_series.getAcquisition().setTiltAxisAngle(axis)
        for seed, ts_id in enumerate(ts_ids):
            path = synthetic.write_tilt_series(folder, ts_id, synthetic.tilt_series(seed=seed))
            ts = TiltSeries(tsId=ts_id)
            ts.setSamplingRate(synthetic.SAMPLING_RATE)
            ts.getAcquisition().setTiltAxisAngle(axis)
            ts.setAnglesCount(len(synthetic.TILTS))
            tilt_series.append(ts)
            for number, angle in enumerate(synthetic.TILTS, start=1):
                image = TiltImage(location=(number, path), tsId=ts_id, tiltAngle=float(angle))
                image.setSamplingRate(synthetic.SAMPLING_RATE)
                image.setAcquisitionOrder(number)
                if describe is not None:
                    describe(ts, image)
                ts.append(image)
            ts.write()
            tilt_series.update(ts)
        tilt_series.write()
        holder._defineOutputs(TiltSeries=tilt_series)
        holder._store()
        return tilt_series

    @classmethod
    def quick(cls):
        return {form_name(name): value for name, value in QUICK.items()}

    @classmethod
    def reconstruct(cls, tilt_series, **values):
        print(magentaStr("\n==> Reconstructing with MLP:"))
        protocol = cls.newProtocol(
            ProtCryodenMlpReconstruct, **dict(cls.quick(), inputSetOfTiltSeries=tilt_series, **values)
        )
        cls.launchProtocol(protocol)
        return protocol

    @staticmethod
    def job(protocol, ts_id="TS_1"):
        """The parameters that the core was given."""
        return read_json(ItemFolder.of(protocol._getExtraPath(), ts_id).request)["parameters"]


class TestMlpJobs(MlpTest, StandInTest):
    """What the core is told of each image."""

    def test_angles_and_excluded_images_are_taken_by_index_from_an_unsorted_stack(self):
        def exclude(ts, image):
            image.setEnabled(image.getIndex() != 5)

        protocol = self.reconstruct(self.makeTiltSeries("unsorted", exclude))
        job = self.job(protocol)
        self.assertEqual(np.loadtxt(job["tilt_angles"]).tolist(), [float(angle) for angle in synthetic.TILTS])
        self.assertEqual(job["exclude"], "5")
        self.assertEqual((job["transforms"], job["voxel_size"]), ("", synthetic.SAMPLING_RATE))

    def test_an_alignment_is_written_as_imod_writes_it_and_the_axis_is_then_of_no_concern(self):
        turn = np.array([[0.0, -1.0, 3.5], [1.0, 0.0, -2.0], [0.0, 0.0, 1.0]])

        def align(ts, image):
            image.setTransform(Transform(turn))
            ts.setAlignment2D()

        protocol = self.reconstruct(self.makeTiltSeries("turned", align, axis=85.0))
        job = self.job(protocol)
        self.assertEqual(np.loadtxt(job["transforms"])[3].tolist(), [0.0, -1.0, 1.0, 0.0, 3.5, -2.0])
        self.assertEqual(job["tilt_axis_angle"], 0.0)

    def test_a_long_reconstruction_is_announced_and_a_short_one_is_not(self):
        tilt_series = self.makeTiltSeries("long")
        for thickness, announced in ((4096, True), (16, False)):
            values = dict(self.quick(), inputSetOfTiltSeries=tilt_series, thickness=thickness)
            values["preset"] = MLP_PRESETS.index("best")
            said = " ".join(self.newProtocol(ProtCryodenMlpReconstruct, **values)._warnings())
            self.assertEqual("Expect about" in said, announced, said)

    def test_a_slanting_axis_without_alignment_is_refused_before_the_run(self):
        tilt_series = self.makeTiltSeries("slanting", axis=85.3)
        protocol = self.newProtocol(ProtCryodenMlpReconstruct, **dict(self.quick(), inputSetOfTiltSeries=tilt_series))
        said = "".join(protocol._validate())
        self.assertIn("85.3 degrees", said)
        self.assertIn("align it first", said)
        self.assertEqual([off_vertical(angle) for angle in (0, 180, -180, 90, 85, -95)], [0, 0, 0, 90, 85, 85])

    def test_too_few_enabled_images_and_missing_halves_are_refused_before_the_run(self):
        def few(ts, image):
            image.setEnabled(image.getIndex() < 6)

        protocol = self.newProtocol(
            ProtCryodenMlpReconstruct, **dict(self.quick(), inputSetOfTiltSeries=self.makeTiltSeries("few", few))
        )
        self.assertIn("only 5 images are enabled", "".join(protocol._validate()))
        protocol.inputSetOfTiltSeries.set(self.makeTiltSeries("whole"))
        protocol.halves.set(1)
        self.assertIn("no stacks of even and odd frames", "".join(protocol._validate()))

    def test_stacks_of_halves_are_found_whatever_form_their_names_have(self):
        halves = {}
        for name in ("odd", "even"):
            images = synthetic.tilt_series(seed=7)
            halves[name] = synthetic.write_tilt_series(os.path.join(self.data, "frames"), "TS_1_" + name, images)

        def pair(ts, image):
            image.setOddEven(["%d@%s" % (image.getIndex(), halves[name]) for name in ("odd", "even")])

        protocol = self.reconstruct(self.makeTiltSeries("stacks", pair), halves=1)
        job = self.job(protocol)
        self.assertEqual((job["even"], job["odd"]), (halves["even"], halves["odd"]))
        even, odd = protocol.Tomograms.getFirstItem().getHalfMaps(asList=True)
        self.assertEqual([os.path.basename(even), os.path.basename(odd)], ["TS_1_even.mrc", "TS_1_odd.mrc"])

    def test_the_forms_defaults_are_those_of_the_job(self):
        protocol = self.newProtocol(ProtCryodenMlpReconstruct)
        settings = job_settings(protocol, MlpJob)
        self.assertIn("thickness", settings)
        self.assertGreater(len(settings), 20)
        for name, value in settings.items():
            self.assertEqual(value, default_of(MlpJob, name), name)


class TestMlpReconstruct(MlpTest, CryodenTest):
    """With the real core."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tilt_series = cls.makeTiltSeries("series", ts_ids=("TS_1", "TS_2"))
        # The second stack holds nothing: it must fail, the first must not.
        with mrcfile.open(os.path.join(cls.data, "series", "TS_2.mrc"), mode="r+") as stack:
            stack.data[:] = 0
        cls.protocol = cls.reconstruct(cls.tilt_series, halves=2, shiftX=0)

    def test_a_tomogram_with_halves_comes_out_and_the_failed_series_is_put_aside(self):
        output = self.protocol.Tomograms
        self.checkTomograms(
            output,
            expectedSetSize=1,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[X, Y, Z],
            expectedOriginShifts=[-edge / 2.0 * synthetic.SAMPLING_RATE for edge in (X, Y, Z)],
            hasOddEven=True,
            hasHalves=True,
            isHeterogeneousSet=False,
        )
        failed = getattr(self.protocol, OUTPUT_FAILED)
        self.assertEqual(failed.getTSIds(), ["TS_2"])
        self.assertEqual(failed.getFirstItem().getSize(), len(synthetic.TILTS))
        summary = "".join(self.protocol._summary())
        self.assertIn("residual per view", summary)
        self.assertIn("*TS_2* failed: ", summary)
        self.assertIn("[VanVeen2024]", "".join(self.protocol._methods()))

    def test_every_button_of_the_viewer_opens_a_figure(self):
        viewer = CryodenMlpViewer(project=self.proj)
        viewer.setProtocol(self.protocol)
        viewer.tomogram.set(viewer.tsIds().index("TS_1"))
        for name, show in viewer._getVisualizeDict().items():
            (view,) = show(name)
            self.assertIsInstance(view, FigureView, name)
            self.assertGreater(len(view.figure.get_axes()), 0)

    def test_nmsg_takes_the_tomogram_and_its_halves(self):
        denoised = self.denoise(self.protocol.Tomograms, steps=2)
        self.checkTomograms(
            denoised.Tomograms,
            expectedSetSize=1,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[X, Y, Z],
            hasOddEven=True,
            hasHalves=True,
        )

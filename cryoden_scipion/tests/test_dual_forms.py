"""What the protocols of DUAL tell the core, and what they refuse or warn of; the core is the stand-in."""

import os
import tempfile
import unittest

import numpy as np
from tomo.objects import SetOfTiltSeries, TiltImage, TiltSeries, TomoAcquisition, Tomogram

from cryoden_core.jobs import (
    CleanDomainJob,
    DualConvertJob,
    DualDenoiseJob,
    DualSimulateJob,
    DualTrainJob,
    DualWedgeJob,
    JobError,
    NmsgJob,
    default_of,
    parameters_of,
    read_json,
)

from ..constants import OUTPUT_FAILED
from ..dual import acquisition_range, ranges_differ, seed_of, tilt_series_range, widest_range
from ..forms import form_name, job_settings
from ..model_file import model_object, model_problems, read_about
from ..objects import CryodenModel
from ..protocols import (
    ProtCryodenDualCleanDomain,
    ProtCryodenDualConvert,
    ProtCryodenDualDenoise,
    ProtCryodenDualSimulate,
    ProtCryodenDualTrain,
    ProtCryodenDualWedge,
    ProtCryodenImportModel,
    ProtCryodenNmsgDenoise,
)
from ..protocols.texts import condensed
from ..protocols.tilt_range import GIVEN, OF_TILT_SERIES
from ..viewers import CryodenDualViewer
from ..viewers.figure_view import FigureView
from ..wizards.wizard_contrast import guessed_contrast
from ..wizards.wizard_thickness import voxels_of
from . import standin_core, synthetic
from .base import QUICK, StandInTest

APPLIED = (ProtCryodenDualConvert, ProtCryodenDualDenoise, ProtCryodenDualSimulate, ProtCryodenDualWedge)
ABOUT = {
    "system": "dual", "voxel_size": 8.0, "contrast": {"noisy": "dark", "clean": "bright"}, "tilt_range": [-54.0, 51.0],
    "trained_on": {"noisy": ["a.mrc"], "clean": ["b.mrc"]}, "preset": {"name": "fast"}, "steps": 7, "seed": 3,
}  # fmt: skip


#: What a protocol fills in by itself, whatever the job: files, how it is run, and what the project knows.
EVERYWHERE = {"input", "output", "model", "run_folder", "resume", "device", "threads", "voxel_size"}
#: Each job with its protocol and what else that fills in, from inputs and switches of the form.
FORMS = (
    (CleanDomainJob, ProtCryodenDualCleanDomain, {"templates", "membrane_templates", "existing"}),
    (DualTrainJob, ProtCryodenDualTrain,
     {"noisy", "clean", "noisy_even", "noisy_odd", "noisy_masks", "clean_masks", "validation_noisy", "validation_clean",
      "noisy_voxel_size", "clean_voxel_size", "tilt_angles"}),
    (DualDenoiseJob, ProtCryodenDualDenoise, {"even", "odd", "output_even", "output_odd", "uncertainty"}),
    (DualSimulateJob, ProtCryodenDualSimulate, {"noise_from", "labels", "coordinates"}),
    (DualConvertJob, ProtCryodenDualConvert, {"noise_from"}),
    (DualWedgeJob, ProtCryodenDualWedge, {"tilt_angles", "train_with", "save_model"}),
)  # fmt: skip


class TestForms(unittest.TestCase):
    """Forms, without a project."""

    def test_the_forms_defaults_are_those_of_the_jobs(self):
        for job, protocol in [(found.JOB, found()) for found in APPLIED] + [(DualTrainJob, ProtCryodenDualTrain())]:
            settings = job_settings(protocol, job)
            self.assertGreater(len(settings), 4, job.system)
            for name, value in settings.items():
                self.assertEqual(value, default_of(job, name), "%s: %s" % (job.system, name))

    def test_every_parameter_of_the_jobs_is_in_the_form_or_filled_in_from_the_project(self):
        for job, protocol_class, filled_in in FORMS:
            protocol, known = protocol_class(), set(parameters_of(job))
            missing = {name for name in known if not protocol.hasAttribute(form_name(name))}
            self.assertEqual(missing - EVERYWHERE, set(filled_in), job.system)

    def test_every_parameter_has_a_label_and_a_help_text(self):
        for protocol in [found() for found in (*APPLIED, ProtCryodenDualTrain, ProtCryodenImportModel)]:
            own = [name for name, _ in protocol.iterDefinitionAttributes() if not name.startswith("_")]
            own = [name for name in own if name not in ("hostName", "numberOfThreads", "numberOfMpi", "runMode")]
            self.assertTrue(own)
            for name in own:
                help_text = protocol.getParam(name).help.get() or ""
                self.assertGreater(len(help_text), 10, "%s.%s" % (protocol._label, name))


class TestPure(unittest.TestCase):
    """Functions that need no project."""

    def tomogram(self, low, high):
        tomogram = Tomogram(tsId="t")
        tomogram.setAcquisition(TomoAcquisition(angleMin=low, angleMax=high))
        return tomogram

    def test_the_tilt_range_is_the_acquisitions_where_it_says_one(self):
        self.assertEqual(acquisition_range(self.tomogram(-55, 48)), (-55, 48))
        self.assertIsNone(acquisition_range(self.tomogram(None, None)))
        self.assertIsNone(acquisition_range(self.tomogram(0, 0)))
        self.assertEqual(widest_range([(-55, 48), (-50, 60)]), (-55, 60))
        self.assertTrue(ranges_differ([(-55, 48), (-50, 60)]))
        self.assertFalse(ranges_differ([(-55, 48), (-54, 50)]))

    def test_excluded_views_do_not_count_for_the_tilt_range(self):
        images = []
        for angle, is_enabled in ((-60, False), (-51, True), (0, True), (48, True), (60, False)):
            image = TiltImage(tiltAngle=angle)
            image.setEnabled(is_enabled)
            images.append(image)
        tilt_series = TiltSeries(tsId="t")
        tilt_series.iterItems = lambda: iter(images)
        self.assertEqual(tilt_series_range(tilt_series), (-51, 48))
        images[:] = [images[0], images[-1]]
        with self.assertRaisesRegex(JobError, "no view that is not excluded"):
            tilt_series_range(tilt_series)

    def test_two_items_get_different_noise_and_the_same_one_the_same(self):
        self.assertEqual(seed_of(1, "a"), seed_of(1, "a"))
        self.assertNotEqual(seed_of(1, "a"), seed_of(1, "b"))
        self.assertLess(seed_of(2**31 - 1, "b"), 2**31)

    def test_what_a_model_says_of_itself_is_read_without_torch(self):
        path = standin_core.write_model(os.path.join(tempfile.mkdtemp(), "m.safetensors"), ABOUT)
        model = model_object(path, read_about(path))
        self.assertEqual(
            (model.getSystem(), model.getSamplingRate(), model.getContrast(), model.getTrainedOn()),
            ("dual", 8.0, "dark", "a.mrc"),
        )
        self.assertEqual((model._preset.get(), model._steps.get(), model._seed.get()), ("fast", 7, 3))

    def test_each_wrong_file_gets_a_sentence_of_its_own(self):
        folder = tempfile.mkdtemp()
        text, foreign = os.path.join(folder, "text.safetensors"), os.path.join(folder, "foreign.safetensors")
        with open(text, "w", encoding="utf-8") as stream:
            stream.write("no model at all, but long enough")
        with open(foreign, "wb") as stream:
            stream.write((2).to_bytes(8, "little") + b"{}")
        empty = os.path.join(folder, "empty.safetensors")
        open(empty, "w").close()
        future = standin_core.write_model(os.path.join(folder, "future.safetensors"), {"system": "triple"})
        for path, sentence in (
            (os.path.join(folder, "absent"), "cannot be read"),
            (text, "is no model file"),
            (empty, "is no model file"),
            (foreign, "not a model that CryoDen wrote"),
            (future, "a model of 'triple'"),
        ):
            with self.assertRaisesRegex(JobError, sentence):
                read_about(path)

    def test_a_model_of_another_system_is_refused_by_name(self):
        path = standin_core.write_model(os.path.join(tempfile.mkdtemp(), "m.safetensors"), ABOUT)
        for system, asked, fits in (
            ("nmsg-train", "nmsg", True), ("nmsg", "nmsg", True), ("dual", "dual", True), ("dual", "nmsg", False),
            ("nmsg-train", "dual", False), ("dual wedge", "dual", False),
        ):  # fmt: skip
            problems = model_problems(CryodenModel(path=path, system=system), [asked])
            self.assertEqual(problems == [], fits, "%s for %s: %s" % (system, asked, problems))

    def test_warnings_that_differ_in_the_volume_only_are_one_in_a_summary(self):
        said = "density looks dark in /a/b/Runs/1/extra/%s.mrc and is taken as that."
        self.assertEqual(
            condensed([said % "TS_1", said % "TS_2", said % "TS_2", "the noise died."]),
            ["density looks dark in TS_1.mrc and is taken as that. (The same for 1 more.)", "the noise died."],
        )

    def test_nanometres_become_an_even_number_of_voxels(self):
        self.assertEqual(voxels_of(200, 10), 200)
        self.assertEqual(voxels_of(150.5, 13.68), 110)
        self.assertEqual(voxels_of(0.1, 10), 2)

    def test_the_contrast_wizard_tells_dark_from_bright_and_says_when_it_cannot(self):
        volume = synthetic.blobs((48, 64, 64))
        self.assertEqual(guessed_contrast(volume)[0], "dark")
        self.assertEqual(guessed_contrast(-volume)[0], "bright")
        self.assertEqual(guessed_contrast(synthetic.noise((48, 64, 64), 3))[0], "auto")


class TestDualJobs(StandInTest):
    """What reaches the core, and what becomes of what comes back."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = os.path.join(cls.data, "mixed")
        even, odd = synthetic.halves()
        synthetic.write_mrc(os.path.join(folder, "TS_1.mrc"), (even + odd) / 2)
        # The second tomogram holds nothing: it must fail, the first must not.
        synthetic.write_mrc(os.path.join(folder, "TS_2.mrc"), np.zeros(synthetic.SHAPE, np.float32))
        halves = [synthetic.write_mrc(os.path.join(folder, "half", "TS_1_odd.mrc"), odd)]
        halves.append(synthetic.write_mrc(os.path.join(folder, "half", "TS_1_even.mrc"), even))
        cls.tomograms = cls.importTomograms(folder)

        def describe(tomogram):
            tomogram.setAcquisition(TomoAcquisition(angleMin=-51.0, angleMax=47.0))
            if tomogram.getTsId() == "TS_1":
                tomogram.setHalfMaps(halves)

        cls.editTomograms(cls.tomograms, describe)
        importing = cls.newProtocol(
            ProtCryodenImportModel,
            modelPath=standin_core.write_model(os.path.join(cls.data, "dual.safetensors"), ABOUT),
        )
        cls.launchProtocol(importing)
        cls.model = importing.model

    def new(self, protocol_class, **values):
        return self.newProtocol(
            protocol_class, useGpu=False, inputSetOfTomograms=self.tomograms, inputModel=self.model, **values
        )

    def test_halves_model_and_voxel_size_reach_the_core_and_a_failure_is_put_aside(self):
        protocol = self.new(ProtCryodenDualDenoise, strength=0.7, flips=4, writeUncertainty=True)
        self.launchProtocol(protocol)
        job = read_json(protocol._itemFolder("TS_1").request)["parameters"]
        self.assertTrue(job["even"].endswith("_even.mrc") and job["odd"].endswith("_odd.mrc"))
        self.assertEqual((job["voxel_size"], job["strength"], job["contrast"]), (synthetic.SAMPLING_RATE, 0.7, ""))
        self.assertEqual(job["model"], os.path.abspath(self.model.getPath()))
        self.assertTrue(os.path.exists(job["uncertainty"]))
        (tomogram,) = [item.clone() for item in protocol.Tomograms]
        even, odd = tomogram.getHalfMaps(asList=True)
        self.assertEqual([os.path.basename(even), os.path.basename(odd)], ["TS_1_even.mrc", "TS_1_odd.mrc"])
        self.assertEqual(getattr(protocol, OUTPUT_FAILED).getTSIds(), ["TS_2"])
        self.assertIn("*TS_2* failed: ", "".join(protocol._summary()))
        viewer = self.viewer(protocol)
        (view,) = viewer._getVisualizeDict()["showFsc"]("showFsc")
        self.assertIsInstance(view, FigureView)

    def viewer(self, protocol):
        viewer = CryodenDualViewer(project=self.proj)
        viewer.setProtocol(protocol)
        return viewer

    def test_simulated_tomograms_get_noise_of_their_own_and_the_models_tilt_range(self):
        protocol = self.new(ProtCryodenDualSimulate, draws=3)
        self.launchProtocol(protocol)
        jobs = [read_json(protocol._itemFolder(name).request)["parameters"] for name in ("TS_1", "TS_2")]
        self.assertNotEqual(jobs[0]["seed"], jobs[1]["seed"])
        self.assertEqual(sorted(protocol.Tomograms.getTSIds()), ["TS_1_1", "TS_1_2", "TS_1_3"])
        for tomogram in protocol.Tomograms:
            acquisition = tomogram.getAcquisition()
            self.assertEqual((acquisition.getAngleMin(), acquisition.getAngleMax()), (-54, 51))
            self.assertFalse(tomogram.hasHalfMaps())
        self.assertEqual(protocol._registeredIds(), {"TS_1"})

    def test_the_tilt_range_is_that_of_the_source_that_was_chosen(self):
        protocol = self.newProtocol(
            ProtCryodenDualWedge, useGpu=False, inputSetOfTomograms=self.tomograms, tiltMin=-30.0,
            inputTrainWith=self.tomograms,
        )  # fmt: skip
        self.launchProtocol(protocol)
        job = read_json(protocol._itemFolder("TS_1").request)["parameters"]
        self.assertEqual((job["tilt_min"], job["tilt_max"], job["model"]), (-51, 47, ""))
        self.assertEqual([os.path.basename(path) for path in job["train_with"]], ["TS_2.mrc"])
        (view,) = self.viewer(protocol)._getVisualizeDict()["showLoss"]("showLoss")
        self.assertIn("Nothing was trained on TS_1", view.getMessage())  # by the stand-in
        tomogram = self.tomograms.getFirstItem().clone()
        protocol.tiltRangeFrom.set(GIVEN)
        self.assertEqual(protocol.tiltRangeOf(tomogram), (-30, 60))
        protocol.tiltRangeFrom.set(OF_TILT_SERIES)
        self.assertEqual(protocol._validate(), ["Choose the tilt series, or another source of the tilt range."])
        protocol.inputSetOfTiltSeries.set(self.tiltSeries("TS_1", (-57.0, 0.0, 42.0)))
        self.assertEqual(protocol.tiltRangeOf(tomogram), (-57, 42))
        (problem,) = protocol._validate()
        self.assertIn("There is no tilt series TS_2", problem)

    def tiltSeries(self, ts_id, angles):
        tilt_series = SetOfTiltSeries.create(tempfile.mkdtemp())
        item = TiltSeries(tsId=ts_id)
        tilt_series.append(item)
        for index, angle in enumerate(angles):
            image = TiltImage(tiltAngle=angle)
            image.setLocation(index + 1, "stack.mrc")
            item.append(image)
        item.write()
        tilt_series.update(item)
        tilt_series.write()
        return tilt_series

    def test_without_a_tilt_range_nothing_is_guessed(self):
        bare = self.tomograms.getFirstItem().clone()
        bare.setAcquisition(TomoAcquisition())
        for protocol_class in (ProtCryodenDualTrain, ProtCryodenDualWedge):
            with self.assertRaisesRegex(JobError, "the tilt range of TS_1 is not known"):
                protocol_class().tiltRangeOf(bare)

    def test_nmsg_keeps_the_wedge_of_the_acquisitions_angles_only_when_asked(self):
        values = dict(QUICK, inputSetOfTomograms=self.tomograms)
        protocol = self.newProtocol(ProtCryodenNmsgDenoise, keepWedge=True, **values)
        self.launchProtocol(protocol)
        job = read_json(protocol._itemFolder("TS_1").request)["parameters"]
        self.assertEqual((job["keep_wedge"], job["tilt_min"], job["tilt_max"]), (True, -51, 47))
        plain = self.newProtocol(ProtCryodenNmsgDenoise, **values)
        plain._items = {"TS_1": self.tomograms.getFirstItem().clone()}
        self.assertEqual(plain._tiltRange(plain._items["TS_1"]), {})
        self.assertFalse(plain._jobSettings(NmsgJob)["keep_wedge"])

    def test_another_voxel_size_or_contrast_than_in_the_training_is_warned_of(self):
        said = "".join(self.new(ProtCryodenDualDenoise, contrast=2)._warnings())
        self.assertIn("trained at 8.00 angstrom per voxel, the tomograms have 10.00", said)
        self.assertIn("trained on tomograms with dark protein, you say bright", said)
        self.assertNotIn("dark protein", "".join(self.new(ProtCryodenDualDenoise, contrast=1)._warnings()))

    def test_what_becomes_noisy_is_compared_with_the_clean_volumes_of_the_training(self):
        for protocol in (
            self.new(ProtCryodenDualSimulate, contrast=2),
            self.new(ProtCryodenDualConvert, to=1, contrast=2),
        ):
            self.assertNotIn("protein", "".join(protocol._warnings()))
            protocol.contrast.set(1)
            self.assertIn("trained on clean volumes with bright protein, you say dark", "".join(protocol._warnings()))
        back = self.new(ProtCryodenDualConvert, to=0, contrast=2)
        self.assertIn("trained on tomograms with dark protein, you say bright", "".join(back._warnings()))

    def test_training_gets_both_domains_with_their_voxel_sizes_and_angles(self):
        protocol = self.newProtocol(
            ProtCryodenDualTrain, useGpu=False, inputNoisy=self.tomograms, inputClean=self.other(), contrast=1
        )
        self.launchProtocol(protocol)
        job = read_json(protocol.folder().request)["parameters"]
        self.assertEqual((job["tilt_min"], job["tilt_max"], job["contrast"]), (-51, 47, "dark"))
        self.assertEqual((job["noisy_voxel_size"], job["clean_voxel_size"]), (synthetic.SAMPLING_RATE,) * 2)
        self.assertEqual([len(job["noisy"]), len(job["clean"])], [2, 1])
        self.assertEqual((job["noisy_even"], job["noisy_odd"]), ([], []))
        self.assertEqual((protocol.model.getContrast(), protocol.model.getTrainedOn()), ("dark", "TS_1, TS_2"))

    def test_halves_take_part_unless_a_tomogram_has_none_or_they_are_not_wanted(self):
        protocol = self.newProtocol(
            ProtCryodenDualTrain, useGpu=False, inputNoisy=self.tomograms, inputClean=self.other()
        )
        self.assertIn("No half maps are used, for TS_2 has none", "".join(protocol._warnings()))
        self.assertEqual(protocol._job().noisy_even, [])
        protocol._items = lambda pointer: [pointer.get().getFirstItem().clone()]
        self.assertNotIn("half maps", "".join(protocol._warnings()))
        protocol.useHalfMaps.set(False)
        self.assertEqual(protocol._job().noisy_even, [])
        protocol.useHalfMaps.set(True)
        job = protocol._job()
        self.assertEqual(
            [os.path.basename(path) for path in (*job.noisy_even, *job.noisy_odd)], ["TS_1_even.mrc", "TS_1_odd.mrc"]
        )

    def test_a_voxel_size_that_the_volumes_do_not_have_is_warned_of(self):
        protocol = self.newProtocol(
            ProtCryodenDualTrain, useGpu=False, inputNoisy=self.tomograms, inputClean=self.other(), voxelSize=5.0
        )
        said = "".join(protocol._warnings())
        self.assertIn("5.00 angstrom is smaller than that of the tomograms, 10.00", said)
        self.assertIn("The clean volumes have 10.00 angstrom per voxel, more than the model, 5.00", said)
        protocol.voxelSize.set(10.0)
        self.assertNotIn("angstrom", "".join(protocol._warnings()))

    def test_a_set_cannot_be_noisy_and_clean_at_once(self):
        protocol = self.newProtocol(
            ProtCryodenDualTrain, useGpu=False, inputNoisy=self.tomograms, inputClean=self.tomograms
        )
        self.assertIn("it can only be one of them", "".join(protocol._validate()))

    def other(self):
        if not hasattr(type(self), "_other"):
            type(self)._other = self.importTomograms(
                synthetic.write_tomograms(os.path.join(self.data, "clean"), ["C_1"])
            )
        return self._other

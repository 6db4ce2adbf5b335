"""DUAL from beginning to end with the real core: clean domain, training, and everything that a model is for."""

import os
import shutil
import sys
import tempfile

import mrcfile
import numpy as np
from pyworkflow.utils import magentaStr

from cryoden_core.jobs import DUAL_PRESETS, WEDGE_PRESETS, read_json
from cryoden_core.phantom.particles import read_star
from cryoden_core.progress import RUNNING, read_metrics, read_progress

from ..clean_domain import particle_of
from ..constants import CRYODEN_PYTHON
from ..forms import form_name
from ..protocols import (
    ProtCryodenDualCleanDomain,
    ProtCryodenDualConvert,
    ProtCryodenDualDenoise,
    ProtCryodenDualSimulate,
    ProtCryodenDualTrain,
    ProtCryodenDualTrainingSet,
    ProtCryodenDualWedge,
    ProtCryodenImportModel,
    ProtCryodenNmsgDenoise,
    ProtCryodenPick,
)
from ..viewers import CryodenDualTrainViewer, CryodenDualViewer
from ..viewers.figure_view import FigureView
from ..wizards.wizard_classes import classes_of
from . import synthetic
from .base import CryodenTest
from .test_dual_clean_domain import NOTHING_ELSE

EDGE = 48
SHAPE = (EDGE, EDGE, EDGE)

#: The real core, which is killed outright when it has written its first checkpoint, and only then.
KILLED_ONCE = """
import os, signal, sys
from cryoden_core.cli import main
from cryoden_core.training import Trainer

save, marker = Trainer.save, os.environ["CRYODEN_TEST_MARKER"]

def save_and_die(self):
    save(self)
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

Trainer.save = save_and_die
if not os.path.exists(marker):
    Trainer._asked_to_stop = lambda self: True  # saves after the first step
sys.exit(main(sys.argv[sys.argv.index("cryoden_core") + 1 :]))
"""


class TestDual(CryodenTest):
    """One chain, whose links are looked at one by one."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = synthetic.write_tomograms(os.path.join(cls.data, "noisy"), ["TS_1"], SHAPE)
        cls.noisy = cls.importTomograms(folder)
        cls.domain = cls.launch(
            ProtCryodenDualCleanDomain, width=EDGE, height=EDGE, depth=EDGE, volumes=1,
            **{form_name(name): value for name, value in NOTHING_ELSE.items()},
        )  # fmt: skip
        cls.trained = cls.launch(ProtCryodenDualTrain, **cls.training())

    @classmethod
    def training(cls):
        return {
            "useGpu": False, "inputNoisy": cls.noisy, "inputClean": cls.domain.Tomograms, "steps": 2, "batch": 2,
            "preset": DUAL_PRESETS.index("fast"), "contrast": 1, "numberOfThreads": 1,
            "checkEvery": 2,
        }  # fmt: skip

    @classmethod
    def launch(cls, protocol_class, **values):
        print(magentaStr("\n==> %s:" % protocol_class._label))
        protocol = cls.newProtocol(protocol_class, **values)
        cls.launchProtocol(protocol)
        return protocol

    def test_the_model_knows_what_it_was_trained_on(self):
        model = self.trained.model
        self.assertEqual((model.getSystem(), model._preset.get(), model.getContrast()), ("dual", "fast", "dark"))
        self.assertEqual((model.getSamplingRate(), model.getTrainedOn()), (10.0, "TS_1"))
        self.assertFalse(os.path.isabs(model.getPath()))
        job = read_json(self.trained.folder().request)["parameters"]
        # The angles are those of the import's acquisition.
        acquisition = self.noisy.getFirstItem().getAcquisition()
        self.assertEqual((job["tilt_min"], job["tilt_max"]), (acquisition.getAngleMin(), acquisition.getAngleMax()))
        self.assertIn("*2* steps", "".join(self.trained._summary()))

    def test_a_killed_training_goes_on_from_its_checkpoint_and_gives_the_same_model(self):
        before, folder = dict(os.environ), tempfile.mkdtemp(prefix="cryoden_killed_")
        script, interpreter = os.path.join(folder, "core.py"), os.path.join(folder, "python")
        with open(script, "w", encoding="utf-8") as stream:
            stream.write(KILLED_ONCE)
        with open(interpreter, "w", encoding="utf-8") as stream:
            stream.write('#!/bin/sh\nexec "%s" "%s" "$@"\n' % (sys.executable, script))
        os.chmod(interpreter, 0o755)
        os.environ.update({CRYODEN_PYTHON: interpreter, "CRYODEN_TEST_MARKER": os.path.join(folder, "killed")})
        try:
            protocol = self.newProtocol(ProtCryodenDualTrain, **self.training())
            self.assertIn("The program ended with code", self.launchExpectingFailure(protocol))
            self.assertTrue(os.path.exists(protocol.folder().checkpoint))
            self.assertEqual(read_progress(protocol.folder().progress)["state"], RUNNING)
            self.continueProtocol(protocol)
        finally:
            os.environ.clear()
            os.environ.update(before)
        with open(protocol.getLogPaths()[0], encoding="utf-8") as log:
            self.assertIn("--resume", log.read())
        logged = [read_metrics(found.folder().metrics)["step"] for found in (protocol, self.trained)]
        self.assertEqual(*logged)
        with open(protocol.model.getPath(), "rb") as one, open(self.trained.model.getPath(), "rb") as other:
            self.assertEqual(one.read(), other.read())

    def test_every_button_of_the_trainings_viewer_opens_a_figure(self):
        viewer = CryodenDualTrainViewer(project=self.proj)
        viewer.setProtocol(self.trained)
        for name, show in viewer._getVisualizeDict().items():
            (view,) = show(name)
            self.assertIsInstance(view, FigureView, name)
            self.assertGreater(len(view.figure.get_axes()), 0, name)

    def test_strength_zero_gives_the_input_back_and_the_description_stays(self):
        denoised = self.launch(
            ProtCryodenDualDenoise, useGpu=False, inputSetOfTomograms=self.noisy, inputModel=self.trained.model,
            strength=0.0,
        )  # fmt: skip
        self.checkTomograms(
            denoised.Tomograms,
            expectedSetSize=1,
            expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[EDGE] * 3,
            expectedOriginShifts=[-EDGE / 2.0 * synthetic.SAMPLING_RATE] * 3,
            testSetAcqObj=self.noisy.getAcquisition(),
        )
        for before, after in zip(self.noisy, denoised.Tomograms):
            with mrcfile.open(before.getFileName()) as one, mrcfile.open(after.getFileName()) as other:
                np.testing.assert_array_equal(one.data, other.data)
        picked = self.launch(
            ProtCryodenPick, inputSetOfTomograms=denoised.Tomograms, diameter=80.0, threshold=2.0, count=20
        )
        self.assertGreater(picked.Coordinates.getSize(), 3)
        self.assertEqual(picked.Coordinates.getPrecedents().getFirstItem().getFileName(),
                         denoised.Tomograms.getFirstItem().getFileName())  # fmt: skip

    def test_a_grand_model_is_converted_to_the_style_of_the_tomograms(self):
        converted = self.newProtocol(
            ProtCryodenDualConvert, useGpu=False, inputSetOfTomograms=self.domain.Tomograms, to=1,
            inputModel=self.trained.model,
        )  # fmt: skip
        # One tomogram of a set, as it is chosen in the form.
        converted.inputNoise.set(self.proj.getProtocol(self.noisy.getObjParentId()))
        converted.inputNoise.setExtended("Tomograms.1")
        self.launchProtocol(converted)
        self.checkTomograms(
            converted.Tomograms, expectedSetSize=1, expectedSRate=synthetic.SAMPLING_RATE,
            expectedDimensions=[EDGE] * 3,
        )  # fmt: skip
        job = read_json(converted._itemFolder("volume_001").request)["parameters"]
        self.assertEqual((job["to"], os.path.basename(job["noise_from"])), ("noisy", "TS_1.mrc"))
        before, after = (mrcfile.read(item.getFirstItem().getFileName()) for item in
                         (self.domain.Tomograms, converted.Tomograms))  # fmt: skip
        self.assertFalse(np.allclose(before, after))

    def test_two_draws_are_two_tomograms_with_the_coordinates_and_labels_of_their_grand_model(self):
        protocol = self.newProtocol(
            ProtCryodenDualSimulate, useGpu=False, inputSetOfTomograms=self.domain.Tomograms, draws=2,
            inputModel=self.trained.model, inputCoordinates=self.domain.Coordinates, inputLabels=self.domain.Labels,
        )  # fmt: skip
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        protocol._items = {item.getTsId(): item.clone() for item in self.domain.Tomograms.iterItems()}
        ((ts_id, volume),) = protocol._items.items()
        job = protocol._jobOf(ts_id)
        for path in job.outputs():  # what the core leaves
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(volume.getFileName(), path)
            shutil.copy(job.labels, job.labels_of(path))
        protocol._registerItem(ts_id)
        protocol._registerCoordinates()
        protocol._registerLabels()
        output, placed = protocol.Tomograms, protocol.Coordinates
        self.assertEqual(sorted(output.getTSIds()), ["volume_001_1", "volume_001_2"])
        known = [(c._x.get(), c._y.get(), c._z.get(), c.getGroupId()) for c in self.domain.Coordinates.iterItems()]
        for tomogram in output:
            found = [item.clone() for item in placed.iterCoordinates(volume=tomogram)]
            self.assertEqual([(c._x.get(), c._y.get(), c._z.get(), c.getGroupId()) for c in found], known)
        labels = mrcfile.read(self.domain.Labels.getFirstItem().getFileName())
        self.assertEqual(sorted(protocol.Labels.getTSIds()), sorted(output.getTSIds()))
        for mask in protocol.Labels:
            np.testing.assert_array_equal(mrcfile.read(mask.getFileName()), labels)

    def test_a_training_set_holds_the_chosen_class_alone_and_all_its_parts_fit_together(self):
        placed = [item.clone() for item in self.domain.Coordinates.iterItems()]
        label, name = placed[0].getGroupId(), placed[0]._className.get()
        made = self.launch(
            ProtCryodenDualTrainingSet, useGpu=False, inputSetOfTomograms=self.domain.Tomograms, draws=2,
            inputModel=self.trained.model, inputCoordinates=self.domain.Coordinates,
            inputLabels=self.domain.Labels, classes=name, crop=16, halves=True,
        )  # fmt: skip
        self.checkTomograms(
            made.Tomograms, expectedSetSize=2, expectedSRate=synthetic.SAMPLING_RATE, expectedDimensions=[EDGE] * 3,
            hasOddEven=True, hasHalves=True,
        )  # fmt: skip
        acquisition = made.Tomograms.getFirstItem().getAcquisition()
        self.assertEqual((acquisition.getAngleMin(), acquisition.getAngleMax()), (-60, 60))
        self.assertFalse(np.allclose(*[mrcfile.read(tomogram.getFileName()) for tomogram in made.Tomograms]))
        labels = mrcfile.read(self.domain.Labels.getFirstItem().getFileName())
        count = sum(item.getGroupId() == label for item in placed)
        self.assertGreater(len(set(labels.ravel())), 2, "one class alone proves nothing")
        self.assertEqual(made.Coordinates.getSize(), 2 * count)
        self.assertEqual({item.getGroupId() for item in made.Coordinates.iterItems()}, {1})
        for tomogram, mask in zip(made.Tomograms, made.Labels):
            np.testing.assert_array_equal(mrcfile.read(mask.getFileName()), labels == label)
            self.assertEqual((mask.getTsId(), mask.getVolName()), (tomogram.getTsId(), tomogram.getFileName()))
            # DeepFinder's plugin asks for the coordinates by the id of the mask.
            found = [item.clone() for item in made.Coordinates.iterCoordinates(volume=mask.getObjId())]
            self.assertEqual([item.getTomoId() for item in found], [tomogram.getTsId()] * count)
            folder = os.path.dirname(mask.getFileName())
            self.assertEqual(os.path.realpath(os.path.join(folder, "tomogram.mrc")),
                             os.path.realpath(tomogram.getFileName()))  # fmt: skip
            about = read_json(os.path.join(folder, "metadata.json"))
            self.assertEqual(about["class_of_label"], {"0": "background", "1": name})
            self.assertEqual((about["count_of_class"], about["locations_on_their_class"]), ({name: count}, 1.0))
            rotations = [item.rotation for item in read_star(os.path.join(folder, "locations.star"))]
            known = [item for item in placed if item.getGroupId() == label]
            for item in known:
                item.setVolume(self.domain.Tomograms.getFirstItem())
            np.testing.assert_allclose(rotations, [particle_of(item).rotation for item in known], atol=1e-3)
        self.assertIn("1 %s (%d locations)" % (name, 2 * count), "".join(made._summary()))
        viewer = CryodenDualViewer(project=self.proj)
        viewer.setProtocol(made)
        self.assertEqual(viewer.tsIds(), ["volume_001"])
        for button, show in viewer._getVisualizeDict().items():
            self.assertNotIn(button, ("showLoss", "showFsc"))
            self.assertIsInstance(show(button)[0], FigureView, button)
        (view,) = viewer._getVisualizeDict()["showLabels"]("showLabels")
        self.assertEqual([entry.get_text() for entry in view.figure.subfigs[1].legends[0].get_texts()], [name])
        self.assertIn(name, classes_of(made).values())
        made.classes.set("ribosom")
        self.assertIn("There is no class 'ribosom' in the labels; there are: ", "".join(made._validate()))

    def test_an_imported_model_is_the_same_and_only_its_own_system_takes_it(self):
        imported = self.launch(ProtCryodenImportModel, modelPath=os.path.abspath(self.trained.model.getPath()))
        self.assertEqual(imported.model.getSystem(), "dual")
        self.assertEqual(imported.model.getContrast(), "dark")
        self.assertTrue(os.path.exists(imported.model.getPath()))
        nmsg = self.newProtocol(
            ProtCryodenNmsgDenoise,
            inputSetOfTomograms=self.noisy,
            trainingMode=2,
            inputModel=imported.model,
            useGpu=False,
        )
        self.assertIn("is one of DUAL, not of NMSG", "".join(nmsg._validate()))
        wedge = self.newProtocol(ProtCryodenDualWedge, inputSetOfTomograms=self.noisy, inputModel=imported.model)
        self.assertIn("is one of DUAL, not of DUAL's missing wedge", "".join(wedge._validate()))
        denoise = self.newProtocol(
            ProtCryodenDualDenoise, useGpu=False, inputSetOfTomograms=self.noisy, inputModel=imported.model
        )
        self.assertEqual(denoise._validate(), [])

    def test_the_wedge_is_filled_with_the_acquisitions_angles(self):
        wedge = self.launch(
            ProtCryodenDualWedge, useGpu=False, inputSetOfTomograms=self.noisy, steps=1, tiltMin=-40.0,
            preset=WEDGE_PRESETS.index("fast"),
        )  # fmt: skip
        self.assertEqual(wedge.Tomograms.getSize(), 1)
        job = read_json(wedge._itemFolder("TS_1").request)["parameters"]
        self.assertEqual((job["tilt_min"], job["tilt_max"]), (-60.0, 60.0))
        self.assertIn("power in the wedge", "".join(wedge._summary()))

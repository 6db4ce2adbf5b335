"""The viewer, without a display: the windows are made but not shown."""

import os

from pyworkflow.viewer import MessageView, TextView

from ..viewers import CryodenNmsgViewer, figures
from ..viewers.figure_view import FigureView
from . import synthetic
from .base import CryodenTest


class TestViewer(CryodenTest):
    """Each button gives a picture, or a sentence that says why not."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = os.path.join(cls.data, "halves")
        even, odd = synthetic.halves()
        synthetic.write_mrc(os.path.join(folder, "TS_H.mrc"), (even + odd) / 2)
        synthetic.write_mrc(os.path.join(folder, "TS_N.mrc"), synthetic.tomogram(seed=3))
        halves = [synthetic.write_mrc(os.path.join(folder, "half", "TS_H_odd.mrc"), odd)]
        halves.append(synthetic.write_mrc(os.path.join(folder, "half", "TS_H_even.mrc"), even))
        cls.tomograms = cls.importTomograms(folder)

        def describe(tomogram):
            if tomogram.getTsId() == "TS_H":
                tomogram.setHalfMaps(halves)

        cls.editTomograms(cls.tomograms, describe)
        cls.protocol = cls.denoise(cls.tomograms)

    def viewer(self, ts_id):
        viewer = CryodenNmsgViewer(project=self.proj)
        viewer.setProtocol(self.protocol)
        viewer.tomogram.set(viewer.tsIds().index(ts_id))
        return viewer

    def test_every_button_of_a_finished_tomogram_with_halves_opens_a_figure(self):
        viewer = self.viewer("TS_H")
        for name, show in viewer._getVisualizeDict().items():
            (view,) = show(name)
            if name == "showNoiseReport":
                self.assertIsInstance(view, TextView)
                with open(view.getFileList()[0], encoding="utf-8") as stream:
                    self.assertIn("its checks", stream.read())
            else:
                self.assertIsInstance(view, FigureView)
                self.assertIn("TS_H", view.title)
                self.assertGreater(len(view.figure.get_axes()), 0)

    def test_a_tomogram_without_halves_gets_a_sentence_instead_of_an_fsc(self):
        (view,) = self.viewer("TS_N")._getVisualizeDict()["showFsc"]("showFsc")
        self.assertIsInstance(view, MessageView)
        self.assertIn("TS_N has no half maps", view.getMessage())

    def test_slices_of_a_tomogram_that_is_not_finished_get_a_sentence(self):
        viewer = self.viewer("TS_H")
        output = self.protocol.Tomograms
        try:
            del self.protocol.Tomograms
            (view,) = viewer._getVisualizeDict()["showSlices"]("showSlices")
        finally:
            self.protocol.Tomograms = output
        self.assertIn("TS_H is not finished yet", view.getMessage())

    def test_a_failed_check_of_the_noise_model_stands_out(self):
        check = {"name": "power", "value": 1.3, "low": 0.9, "high": 1.1, "meaning": "ratio", "passed": False}
        text = figures.noise_report_text({"passed": False, "source": "background", "checks": [check]})
        self.assertIn("did NOT pass", text)
        self.assertIn("FAILED power", text)

"""Names, halves, headers and job files, without a project."""

import os
import tempfile
import unittest

import mrcfile
import numpy as np
from tomo.objects import Tomogram

from cryoden_core.jobs import MLP_PRESETS, JobError

from ..convert import (
    ItemFolder,
    clean_path,
    even_and_odd,
    input_problems,
    match_half_maps,
    nmsg_job,
    nmsg_train_job,
    output_tomogram,
    safe_name,
    volume_size,
)
from ..estimate import MLP_COST, estimate_mlp, estimate_nmsg
from . import synthetic


class TestNames(unittest.TestCase):
    """What becomes of tsIds and file names."""

    def test_a_plain_ts_id_is_its_own_file_name(self):
        self.assertEqual(safe_name("TS_01-a.2"), "TS_01-a.2")

    def test_two_ts_ids_never_share_a_file_name(self):
        names = {safe_name(ts_id) for ts_id in ("a b", "a_b", "a/b", "a,b", "../b", "", "-a", "\u00e9")}
        self.assertEqual(len(names), 8)
        for name in names:
            self.assertRegex(name, r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")

    def test_scipions_suffix_is_taken_off(self):
        self.assertEqual(clean_path("a/b.rec:mrc"), "a/b.rec")
        self.assertEqual(clean_path("a/b.mrc"), "a/b.mrc")


class TestHalves(unittest.TestCase):
    """Which half is the even one."""

    def test_halves_are_told_apart_by_the_part_in_which_their_names_differ(self):
        for even, odd in [
            ("seven_even.mrc", "seven_odd.mrc"),
            ("odd_sample_EVN.mrc", "odd_sample_ODD.mrc"),
            ("even/TS_1.mrc", "odd/TS_1.mrc"),
        ]:
            self.assertEqual(match_half_maps([odd, even]), (even, odd))
            self.assertEqual(match_half_maps([even, odd]), (even, odd))

    def test_the_order_decides_where_names_do_not(self):
        self.assertEqual(match_half_maps(["b_half2.mrc", "b_half1.mrc"]), ("b_half2.mrc", "b_half1.mrc"))

    def test_a_comma_in_the_path_does_not_tear_halves_apart(self):
        folder = os.path.join(tempfile.mkdtemp(), "one, two")
        paths = [
            synthetic.write_mrc(os.path.join(folder, "t_%s.mrc" % half), synthetic.tomogram())
            for half in ("odd", "even")
        ]
        tomogram = Tomogram(tsId="t")
        tomogram.setHalfMaps(paths)
        self.assertEqual(even_and_odd(tomogram), (paths[1], paths[0]))

    def test_a_tomogram_without_halves_has_none(self):
        self.assertIsNone(even_and_odd(Tomogram(tsId="t")))


class TestVolumes(unittest.TestCase):
    """Files that are no tomograms get a sentence that names them."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()

    def test_a_volume_in_the_form_of_an_image_stack_has_its_size(self):
        path = os.path.join(self.folder, "stack.rec")
        with mrcfile.new(path) as volume:
            volume.set_data(np.zeros((5, 6, 7), np.int16))
            volume.set_image_stack()
        self.assertEqual(volume_size(path), (7, 6, 5))

    def test_files_that_are_no_volume_are_refused_by_name(self):
        short = synthetic.write_mrc(os.path.join(self.folder, "short.mrc"), synthetic.tomogram())
        os.truncate(short, 5000)
        image = synthetic.write_mrc(os.path.join(self.folder, "image.mrc"), np.zeros((8, 8), np.float32))
        empty = os.path.join(self.folder, "empty.hdf")
        open(empty, "w").close()
        for path in (short, image, empty, os.path.join(self.folder, "missing.mrc")):
            with self.assertRaises(JobError) as caught:
                volume_size(path)
            self.assertIn(path, str(caught.exception))


class TestJobs(unittest.TestCase):
    """The jobs that tomograms become, and the tomograms that results become."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.item = ItemFolder.of(os.path.join(self.folder, "extra"), "t")

    def tomogram(self, name="t", with_halves=True):
        tomogram = Tomogram(tsId=name)
        tomogram.setFileName(synthetic.write_mrc(os.path.join(self.folder, name + ".mrc"), synthetic.tomogram()))
        tomogram.setSamplingRate(7.5)
        if with_halves:
            halves = zip(("odd", "even"), synthetic.halves())
            tomogram.setHalfMaps(
                [
                    synthetic.write_mrc(os.path.join(self.folder, "%s_%s.mrc" % (name, half)), data)
                    for half, data in halves
                ]
            )
        return tomogram

    def test_paths_are_absolute_and_the_voxel_size_is_scipions(self):
        job = nmsg_job(self.tomogram(), self.item, {"seed": 5})
        self.assertTrue(all(os.path.isabs(path) for path in (job.input, job.output, job.even, job.odd, job.run_folder)))
        self.assertEqual((job.voxel_size, job.seed), (7.5, 5))
        self.assertTrue(job.even.endswith("t_even.mrc") and job.output_even.endswith("t_even.mrc"))

    def test_halves_are_left_out_on_request(self):
        job = nmsg_job(self.tomogram(), self.item, {}, use_halves=False)
        self.assertEqual((job.even, job.output_even), ("", ""))
        job = nmsg_job(self.tomogram(), self.item, {}, output_halves=False)
        self.assertEqual(job.output_even, "")
        self.assertNotEqual(job.even, "")

    def test_a_bad_setting_is_refused(self):
        with self.assertRaises(JobError):
            nmsg_job(self.tomogram(), self.item, {"strength": 2.0})

    def test_training_uses_halves_only_when_every_tomogram_has_them(self):
        both = nmsg_train_job([self.tomogram("a"), self.tomogram("b")], self.item, {})
        self.assertEqual([len(both.inputs), len(both.evens), len(both.odds)], [2, 2, 2])
        one = nmsg_train_job([self.tomogram("a"), self.tomogram("c", with_halves=False)], self.item, {})
        self.assertEqual([len(one.inputs), len(one.evens), len(one.odds)], [2, 0, 0])

    def test_the_result_never_points_to_the_noisy_halves(self):
        tomogram = self.tomogram()
        result = output_tomogram(tomogram, self.item)
        self.assertFalse(result.hasHalfMaps())
        for half in self.item.halves:
            synthetic.write_mrc(half, synthetic.tomogram())
        self.assertEqual(output_tomogram(tomogram, self.item).getHalfMaps(asList=True), list(self.item.halves))

    def test_identical_or_missing_halves_are_problems(self):
        tomogram = self.tomogram()
        self.assertEqual(input_problems(tomogram, True), [])
        even = even_and_odd(tomogram)[0]
        tomogram.setHalfMaps([even, even])
        self.assertIn("same file", input_problems(tomogram, True)[0])
        tomogram.setHalfMaps([even, even + "_gone.mrc"])
        self.assertIn("_gone.mrc", input_problems(tomogram, True)[0])
        self.assertEqual(input_problems(tomogram, False), [])


class TestEstimate(unittest.TestCase):
    """The announced time and memory."""

    def estimate(self, **changed):
        values = dict(voxels=[10**8], preset="default", steps=0, trainings=1, on_gpu=True, concurrent=1, volumes=1)
        return estimate_nmsg(**dict(values, **changed))

    def test_cpu_best_and_more_volumes_take_longer(self):
        usual = self.estimate()
        for changed in ({"on_gpu": False}, {"preset": "best"}, {"volumes": 3}, {"trainings": 2}, {"steps": 10**5}):
            self.assertGreater(self.estimate(**changed).seconds, usual.seconds, changed)

    def test_two_gpus_halve_the_time_and_the_cpu_does_not(self):
        self.assertAlmostEqual(self.estimate(concurrent=2).seconds * 2, self.estimate().seconds)
        one, two = (self.estimate(on_gpu=False, concurrent=n).seconds for n in (1, 2))
        self.assertEqual(one, two)

    def test_a_reconstruction_takes_longer_with_better_presets_halves_and_without_a_gpu(self):
        usual = estimate_mlp([10**8], "default", networks=1, on_gpu=True, concurrent=1)
        self.assertGreater(estimate_mlp([10**8], "best", networks=1, on_gpu=True, concurrent=1), usual)
        self.assertGreater(estimate_mlp([10**8], "default", networks=3, on_gpu=True, concurrent=1), usual)
        self.assertGreater(estimate_mlp([10**8], "default", networks=1, on_gpu=False, concurrent=1), usual)
        self.assertEqual(sorted(MLP_COST), sorted(MLP_PRESETS))

    def test_memory_follows_the_largest_tomogram(self):
        self.assertGreater(self.estimate(voxels=[10**9, 10]).gigabytes, self.estimate(voxels=[10**8] * 9).gigabytes)

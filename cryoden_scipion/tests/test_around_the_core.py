"""GPU slots, interruption and growing input, with the stand-in for the core."""

import os

from pyworkflow.object import Set

from . import synthetic
from .base import StandInTest


class TestGpuSlots(StandInTest):
    """Each job gets one GPU, by number, and never one that another job is using."""

    def test_two_gpus_are_used_side_by_side_and_never_twice_at_a_time(self):
        os.environ["CRYODEN_STANDIN_SECONDS"] = "5"
        folder = synthetic.write_tomograms(os.path.join(self.data, "gpus"), ["TS_%d" % i for i in range(4)])
        self.denoise(self.importTomograms(folder), useGpu=True, gpuList="0 1", cpuFallback=True, numberOfThreads=5)
        runs = self.runs()
        self.assertEqual(len(runs), 4)
        self.assertEqual({run["device"] for run in runs}, {"cuda:0", "cuda:1"})
        for run in runs:
            for other in runs:
                overlap = run is not other and run["start"] < other["end"] and other["start"] < run["end"]
                self.assertFalse(overlap and run["device"] == other["device"], "two jobs at once on %s" % run["device"])
        self.assertLess(min(run["start"] for run in runs if run["device"] == "cuda:1"), runs[0]["end"])

    def test_more_gpus_than_threads_still_means_one_gpu_for_a_job(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "spare"), ["TS_0"])
        tomograms = self.importTomograms(folder)
        protocol = self.denoise(tomograms, useGpu=True, gpuList="2 3", cpuFallback=True)
        self.assertEqual([run["device"] for run in self.runs()], ["cuda:2"])
        self.assertIn("set 'Scipion threads' to 3", "".join(protocol._warnings()))

    def test_without_gpu_the_device_is_the_cpu(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "cpu"), ["TS_0", "TS_1"])
        self.denoise(self.importTomograms(folder), useGpu=False, numberOfThreads=3)
        self.assertEqual([run["device"] for run in self.runs()], ["cpu", "cpu"])


class TestInterruption(StandInTest):
    """What was stopped goes on; what is done is not done again."""

    def test_an_interrupted_job_fails_the_run_and_continue_resumes_it(self):
        os.environ["CRYODEN_STANDIN_FIRST"] = "interrupted"
        folder = synthetic.write_tomograms(os.path.join(self.data, "stopped"), ["TS_0"])
        protocol = self.newDenoise(self.importTomograms(folder))
        said = self.launchExpectingFailure(protocol)
        self.assertIn("Continue goes on from its last checkpoint", said)
        self.continueProtocol(protocol)
        self.assertEqual([run["resume"] for run in self.runs()], [True])
        self.assertEqual(protocol.Tomograms.getSize(), 1)
        self.continueProtocol(protocol)
        self.assertEqual(len(self.runs()), 1, "a finished tomogram was computed again")
        self.assertEqual(protocol.Tomograms.getSize(), 1)

    def test_a_killed_job_is_a_failed_tomogram_with_a_sentence(self):
        os.environ["CRYODEN_STANDIN_FIRST"] = "killed"
        folder = synthetic.write_tomograms(os.path.join(self.data, "killed"), ["TS_0"])
        said = self.launchExpectingFailure(self.newDenoise(self.importTomograms(folder)))
        self.assertIn("TS_0: The program ended with code", said)

    def test_a_missing_device_stops_the_run_instead_of_failing_every_tomogram(self):
        os.environ["CRYODEN_STANDIN_FIRST"] = "no-device"
        folder = synthetic.write_tomograms(os.path.join(self.data, "device"), ["TS_0", "TS_1"])
        protocol = self.newDenoise(self.importTomograms(folder))
        self.assertIn("There is no GPU here.", self.launchExpectingFailure(protocol))
        self.assertEqual(protocol._failures(), {})


class TestStreaming(StandInTest):
    """An input that is still growing."""

    def test_tomograms_are_processed_as_they_arrive_until_the_input_is_closed(self):
        folder = synthetic.write_tomograms(os.path.join(self.data, "stream"), ["TS_0", "TS_1"])
        tomograms = self.importTomograms(folder)
        late = next(tomograms.iterItems()).clone()
        late.cleanObjId()
        late.setTsId("late")
        tomograms.setStreamState(Set.STREAM_OPEN)
        tomograms.write()
        protocol = self.newDenoise(tomograms)
        self.proj.launchProtocol(protocol, wait=False)

        def registered():
            output = self.proj.mapper.selectById(protocol.getObjId()) and self.updated(protocol)
            output = getattr(output, "Tomograms", None)
            return output.getSize() if output is not None else 0

        self.waitFor(lambda: registered() == 2, 60, "the first two tomograms")
        self.assertTrue(self.updated(protocol).isActive())
        tomograms.enableAppend()
        tomograms.append(late)
        tomograms.setStreamState(Set.STREAM_CLOSED)
        tomograms.write()
        tomograms.close()
        self.waitFor(lambda: self.updated(protocol).isFinished(), 60, "the end of the run")
        output = self.updated(protocol).Tomograms
        self.assertEqual(sorted(output.getTSIds()), ["TS_0", "TS_1", "late"])
        self.assertFalse(output.isStreamOpen())

    def updated(self, protocol):
        """The protocol as the GUI sees it."""
        self.proj._updateProtocol(protocol)
        return protocol

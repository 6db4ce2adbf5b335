"""Runs through a queue, with a scheduler that is one line of shell: both ways in which Scipion can use one."""

import os

from pyworkflow.project import Manager
from pyworkflow.protocol import MODE_RESUME

from ..protocols import ProtCryodenDualTrain
from . import synthetic
from .base import StandInTest

#: A job is a process of this computer; the scheduler forgets nothing and always has room.
HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %%_(JOB_NODES)d %%_(COMMAND)s
NAME = FAKE
MANDATORY = False
SUBMIT_COMMAND = bash %%_(JOB_SCRIPT)s > %%_(JOB_LOGS)s.out 2> %%_(JOB_LOGS)s.err & echo $!
SUBMIT_TEMPLATE = #!/bin/bash
    echo %%_(JOB_NAME)s gpus=%%_(GPU_COUNT)s >> "%(log)s"
    %%_(JOB_COMMAND)s
CANCEL_COMMAND = kill %%_(JOB_ID)s
CHECK_COMMAND = ps -p %%_(JOB_ID)s -o pid= || true
QUEUES = { "default": [["JOB_MEM", "8", "Memory", "GB"], ["QUEUE_FOR_JOBS", "N", "Queue for jobs", "Y or N"]] }
"""


class TestQueue(StandInTest):
    """The same run as a whole in one job, and with one job for each tomogram."""

    @classmethod
    def setUpClass(cls):
        cls.makeDataFolder()
        cls.submitted = os.path.join(cls.data, "submitted.txt")
        hosts = os.path.join(cls.data, "hosts.conf")
        with open(hosts, "w", encoding="utf-8") as stream:
            stream.write(HOSTS % {"log": cls.submitted})
        cls.proj = Manager().createProject(cls.__name__, hostsConf=hosts)
        cls.projName, cls.outputPath = cls.__name__, cls.proj.path
        os.chdir(cls.outputPath)

    def setUp(self):
        super().setUp()
        if os.path.exists(self.submitted):
            os.remove(self.submitted)

    def runThroughQueue(self, name, queue_for_jobs, ts_ids, **values):
        folder = synthetic.write_tomograms(os.path.join(self.data, name), ts_ids)
        protocol = self.newDenoise(self.importTomograms(folder), **values)
        self.useQueue(protocol, queue_for_jobs)
        return self.launched(protocol)

    def useQueue(self, protocol, queue_for_jobs):
        protocol._useQueue.set(True)
        protocol.setQueueParams(("default", {"QUEUE_FOR_JOBS": queue_for_jobs, "JOB_MEM": "8"}))

    def launched(self, protocol):
        """The protocol after its run, which is started as from the GUI."""
        self.proj.launchProtocol(protocol, wait=False)
        self.waitFor(lambda: not self.updated(protocol).isActive(), 90, "the end of the run")
        return self.updated(protocol)

    def updated(self, protocol):
        self.proj._updateProtocol(protocol)
        return protocol

    def submissions(self):
        with open(self.submitted, encoding="utf-8") as stream:
            return stream.read().splitlines()

    def gpusAskedFor(self):
        """What each job wanted from the queue."""
        return [line.split()[-1] for line in self.submissions()]

    def test_the_whole_run_as_one_job(self):
        protocol = self.runThroughQueue("whole", "N", ["TS_0", "TS_1"])
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(protocol.Tomograms.getSize(), 2)
        self.assertEqual(self.gpusAskedFor(), ["gpus=0"], "a run on the CPU reserved a GPU")

    def test_one_job_for_each_tomogram_on_the_gpu_that_the_queue_gives(self):
        """The queue chooses the device and shows each job only that one: its GPU 0, whatever the form lists."""
        protocol = self.runThroughQueue("jobs", "Y", ["TS_0", "TS_1"], useGpu=True, gpuList="2 3", numberOfThreads=2)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        self.assertEqual(protocol.Tomograms.getSize(), 2)
        self.assertEqual(self.gpusAskedFor(), ["gpus=1", "gpus=1"])
        self.assertEqual([run["device"] for run in self.runs()], ["cuda:0", "cuda:0"])

    def test_a_job_that_the_queue_kills_is_noticed_without_an_exit_code(self):
        os.environ["CRYODEN_STANDIN_FIRST"] = "killed"
        protocol = self.runThroughQueue("killed", "Y", ["TS_0"])
        self.assertTrue(protocol.isFailed())
        self.assertIn("The program ended without writing result.json", protocol.getErrorMessage())

    def test_a_training_that_the_queue_kills_goes_on_from_its_checkpoint(self):
        os.environ["CRYODEN_STANDIN_FIRST"] = "killed-late"
        sets = [
            self.importTomograms(synthetic.write_tomograms(os.path.join(self.data, name), [name]))
            for name in ("noisy", "clean")
        ]
        for queue_for_jobs in ("N", "Y"):
            protocol = self.newProtocol(
                ProtCryodenDualTrain, inputNoisy=sets[0], inputClean=sets[1], useGpu=True, gpuList="2"
            )
            self.useQueue(protocol, queue_for_jobs)
            self.assertTrue(self.launched(protocol).isFailed())
            self.assertTrue(os.path.exists(protocol.folder().checkpoint))
            protocol.runMode.set(MODE_RESUME)
            self.launched(protocol)
            self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
            self.assertEqual(protocol.model.getTrainedOn(), "noisy")
            last = self.runs()[-1]
            self.assertEqual((last["system"], last["resume"], last["device"]), ("dual train", True, "cuda:0"))
        self.assertEqual(self.gpusAskedFor(), ["gpus=1"] * 4)

"""The plugin as Scipion finds it: tree, variables, environments, citations, template."""

import importlib.util
import inspect
import json
import os
import tempfile
import unittest
from unittest import mock

from pwem import Domain
from pyworkflow import VarTypes
from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig
from pyworkflow.protocol import Protocol
from pyworkflow.tests import BaseTest, setupTestProject

import cryoden_scipion
from cryoden_core.jobs import DUAL_PRESETS, NMSG_PRESETS, NOISE_MODELS, NmsgJob, default_of

from .. import Plugin, protocols
from ..constants import CRYODEN_ENV_ACTIVATION, CRYODEN_HOME, CRYODEN_LOADER, CRYODEN_PYTHON
from ..protocols import ProtCryodenNmsgDenoise
from ..protocols.protocol_dual_clean_domain import FILES


def leaves(menu, path=()):
    """Every (path, protocol class) of a tree."""
    for child in menu.childs:
        if child.tag == "protocol":
            yield path, child.value
        yield from leaves(child, (*path, child.text))


class TestTree(unittest.TestCase):
    """What protocols.conf promises."""

    def setUp(self):
        Domain.getPlugins()

    def test_every_entry_of_the_tree_is_a_protocol_and_every_protocol_is_an_entry(self):
        path = os.path.join(os.path.dirname(cryoden_scipion.__file__), "protocols.conf")
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        self.assertNotIn("%", text)  # the file is read with interpolation
        listed = set()

        def collect(nodes):
            for node in nodes:
                if node["tag"] == "protocol":
                    listed.add(node["value"])
                collect(node.get("children", []))

        collect(json.loads(text.split("=", 1)[1]))
        final = {
            name
            for name, found in inspect.getmembers(protocols, inspect.isclass)
            if issubclass(found, Protocol) and "_label" in vars(found)
        }
        self.assertEqual(listed, final)
        self.assertLessEqual(listed, set(Domain.getProtocols()))

    def test_the_protocol_stands_among_the_denoisers_of_the_tomography_view(self):
        views = ProtocolTreeConfig.load(Domain, "/nonexistent")
        found = [path for path, value in leaves(views["Tomography"]) if value == "ProtCryodenNmsgDenoise"]
        self.assertEqual(found, [("Tomograms", "Denoise")])

    def test_objects_viewers_and_references_are_found(self):
        self.assertIn("CryodenModel", Domain.getObjects())
        self.assertIn("CryodenNmsgViewer", Domain.getViewers())
        self.assertIn("Yang2024", cryoden_scipion._bibtex)
        for reference in cryoden_scipion._references + ProtCryodenNmsgDenoise()._citations():
            self.assertIn(reference, cryoden_scipion._bibtex)
        self.assertTrue(os.path.exists(os.path.join(os.path.dirname(cryoden_scipion.__file__), cryoden_scipion._logo)))


class TestForm(unittest.TestCase):
    """The form shows the core's own defaults and explains itself."""

    def test_defaults_are_those_of_the_core(self):
        form = ProtCryodenNmsgDenoise()
        self.assertEqual(NMSG_PRESETS[form.preset.get()], default_of(NmsgJob, "preset"))
        self.assertEqual(NOISE_MODELS[form.noiseModel.get()], default_of(NmsgJob, "noise_model"))
        for name in ("strength", "steps", "tile", "seed"):
            self.assertEqual(getattr(form, name).get(), default_of(NmsgJob, name))
        self.assertEqual(form.cpuFallback.get(), default_of(NmsgJob, "cpu_fallback"))

    def test_every_parameter_has_a_help_text(self):
        own = ["preset", "strength", "steps", "tile", "seed", "noiseModel", "trainingMode", "trainingTomograms"]
        own += ["inputSetOfTomograms", "inputMask", "inputModel", "useHalfMaps", "outputHalfMaps", "cpuFallback"]
        for name in [*own, "useGpu", "gpuList"]:
            self.assertGreater(len(ProtCryodenNmsgDenoise().getParam(name).help.get()), 30, name)


class TestEnvironment(unittest.TestCase):
    """Which interpreter runs the core, and what is said when there is none."""

    def setUp(self):
        self.home = tempfile.mkdtemp()
        variables = {
            CRYODEN_LOADER: "", CRYODEN_PYTHON: "", CRYODEN_HOME: self.home, CRYODEN_ENV_ACTIVATION: "conda activate c",
        }  # fmt: skip
        for patch in (
            mock.patch.dict(Plugin._vars, variables),
            mock.patch.object(Plugin, "_problems", None),
            mock.patch.object(Plugin, "ownInterpreterHasTorch", return_value=False),
            mock.patch.object(Plugin, "getCondaActivationCmd", return_value="hook &&"),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def test_a_module_comes_before_everything(self):
        Plugin._vars.update({CRYODEN_LOADER: "module load cryoden;", CRYODEN_PYTHON: "/opt/my python"})
        self.assertEqual(Plugin.getCoreProgram(), "module load cryoden && '/opt/my python' -m cryoden_core")
        self.assertEqual(Plugin.validateInstallation(), [])

    def test_a_given_interpreter_comes_before_scipions_own(self):
        Plugin.ownInterpreterHasTorch.return_value = True
        Plugin._vars[CRYODEN_PYTHON] = "/opt/my python"
        self.assertEqual(Plugin.getCoreProgram(), "'/opt/my python' -m cryoden_core")
        self.assertIn("CRYODEN_PYTHON is /opt/my python, which is no program", Plugin.validateInstallation()[0])

    def test_scipions_own_interpreter_is_the_default_where_it_has_torch(self):
        Plugin.ownInterpreterHasTorch.return_value = True
        self.assertRegex(Plugin.getCoreProgram(), "python[0-9.]* -m cryoden_core$")
        self.assertEqual(Plugin.validateInstallation(), [])

    def test_a_built_environment_is_used_with_or_without_conda(self):
        self.assertEqual(Plugin.getCoreProgram(), "hook && conda activate c && python -m cryoden_core")
        python = os.path.join(self.home, "env", "bin", "python")
        os.makedirs(os.path.dirname(python))
        open(python, "w").close()
        self.assertEqual(Plugin.getCoreProgram(), "%s -m cryoden_core" % python)
        self.assertEqual(Plugin.validateInstallation(), [])

    def test_a_missing_core_is_told_with_the_command_that_installs_it(self):
        said = "\n".join(Plugin.validateInstallation())
        self.assertIn("scipion3 installb cryoden-", said)
        self.assertIn("pip install 'scipion-em-cryoden[core]'", said)

    def test_the_answer_is_kept(self):
        Plugin.validateInstallation()
        with mock.patch.object(importlib.util, "find_spec", side_effect=AssertionError("looked again")):
            Plugin.validateInstallation()

    def test_nothing_of_scipions_python_leaks_into_the_worker(self):
        with mock.patch.dict(os.environ, {"PYTHONPATH": "/scipion/modules", "CUDA_VISIBLE_DEVICES": "3"}):
            environ = Plugin.getEnviron()
        self.assertNotIn("PYTHONPATH", environ)
        self.assertEqual(environ["PYTHONNOUSERSITE"], "1")
        self.assertEqual(environ["CUDA_VISIBLE_DEVICES"], "3")  # the queue's, not ours to touch

    def test_the_environment_is_built_with_conda_where_there_is_one_and_with_venv_elsewhere(self):
        for conda, expected in ((True, "conda create -y -n cryoden-"), (False, "-m venv --clear env")):
            environment = mock.Mock()
            with mock.patch.object(Plugin, "hasConda", return_value=conda):
                Plugin.defineBinaries(environment)
            name, details = environment.addPackage.call_args[0][0], environment.addPackage.call_args[1]
            command, target = details["commands"][0]
            self.assertEqual(name, "cryoden")
            self.assertIn(expected, command)
            self.assertIn(" torch", command)
            self.assertNotIn("scipion-pyworkflow", command)
            self.assertTrue(command.endswith("touch " + target))
            self.assertTrue(details["default"])

    def test_conda_that_scipion_was_not_told_of_activates_by_its_own_hook(self):
        Plugin.getCondaActivationCmd.return_value = ""
        self.assertTrue(Plugin.getCoreProgram().startswith('eval "$(conda shell.posix hook)" && conda activate c &&'))

    def test_an_interpreter_that_is_only_a_name_is_not_chosen(self):
        folder = tempfile.mkdtemp()
        for name, line in (("python3.13", "exit 127"), ("python3.11", "exit 0"), ("python3", "exit 1")):
            path = os.path.join(folder, name)
            with open(path, "w") as stream:
                stream.write("#!/bin/sh\n%s\n" % line)
            os.chmod(path, 0o755)
        with mock.patch.dict(os.environ, {"PATH": folder}), mock.patch("sys.executable", ""):
            self.assertEqual(Plugin.venvCommand(), "%s -m venv --clear env" % os.path.join(folder, "python3.11"))
            os.remove(os.path.join(folder, "python3.11"))
            self.assertIn("needs conda, or a Python 3.11 or newer", Plugin.venvCommand())


class TestTemplate(BaseTest):
    """The workflows that the project window offers."""

    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        cls.folder = os.path.join(tempfile.mkdtemp(), "my volumes")
        os.makedirs(cls.folder)

    def load(self, name, **values):
        """The runs that a template becomes, by the name of their class."""
        before = {run.getObjId() for run in self.proj.getRuns()}
        (template,) = [found for found in cryoden_scipion._pluginInstance.getTemplates() if found.name == name]
        template.replaceEnvVariables()
        template.parseContent()
        for alias, value in values.items():
            self.assertEqual(template.setParamValue(alias, value), 1, alias)
        # Scipion's window makes a tick box of these, and refuses what the box says.
        self.assertNotIn(VarTypes.BOOLEAN.value, [field.getType() for field in template.getParams().values()])
        self.proj.loadProtocols(template.createTemplateFile())
        return {run.getClassName(): run for run in self.proj.getRuns() if run.getObjId() not in before}

    def test_each_template_says_for_which_method_it_is(self):
        found = {template.name: template.description for template in cryoden_scipion._pluginInstance.getTemplates()}
        self.assertEqual(sorted(found), ["denoise_tomograms_nmsg", "dual_from_clean_domain"])
        self.assertIn("NMSG", found["denoise_tomograms_nmsg"])
        self.assertIn("DUAL", found["dual_from_clean_domain"])

    def test_the_template_of_nmsg_becomes_an_import_and_a_denoising_that_are_connected(self):
        runs = self.load("denoise_tomograms_nmsg", path=self.folder, sr="13.6", gpu="0")
        self.assertEqual(sorted(runs), ["ProtCryodenNmsgDenoise", "ProtImportTomograms"])
        denoise, source = runs["ProtCryodenNmsgDenoise"], runs["ProtImportTomograms"]
        self.assertEqual(source.filesPath.get(), self.folder)
        self.assertEqual(source.samplingRate.get(), 13.6)
        self.assertFalse(denoise.useGpu.get())
        self.assertEqual(NMSG_PRESETS[denoise.preset.get()], "default")
        self.assertEqual(denoise.inputSetOfTomograms.getObjValue().getObjId(), source.getObjId())

    def test_the_template_of_dual_connects_a_training_with_all_that_its_model_is_for(self):
        runs = self.load(
            "dual_from_clean_domain", path=self.folder, templates=self.folder, sr="13.6", gpu="0",
            preset="1", diameter="120",
        )  # fmt: skip
        source, domain = runs.pop("ProtImportTomograms"), runs.pop("ProtCryodenDualCleanDomain")
        train, denoise = runs.pop("ProtCryodenDualTrain"), runs.pop("ProtCryodenDualDenoise")
        pick, simulate = runs.pop("ProtCryodenPick"), runs.pop("ProtCryodenDualSimulate")
        self.assertEqual(runs, {})
        self.assertEqual((domain.templateSource.get(), domain.templatePath.get()), (FILES, self.folder))
        self.assertEqual((train.useGpu.get(), DUAL_PRESETS[train.preset.get()]), (False, "fast"))
        self.assertEqual(pick.diameter.get(), 120)
        for run in (denoise, simulate):
            self.assertTrue(run.cpuFallback.get())
        for pointer, made_by, output in (
            (train.inputNoisy, source, "Tomograms"), (train.inputClean, domain, "Tomograms"),
            (denoise.inputSetOfTomograms, source, "Tomograms"), (denoise.inputModel, train, "model"),
            (pick.inputSetOfTomograms, denoise, "Tomograms"), (simulate.inputSetOfTomograms, domain, "Tomograms"),
            (simulate.inputModel, train, "model"), (simulate.inputCoordinates, domain, "Coordinates"),
            (simulate.inputLabels, domain, "Labels"),
        ):  # fmt: skip
            self.assertEqual((pointer.getObjValue().getObjId(), pointer.getExtended()), (made_by.getObjId(), output))
            self.assertIn(output, made_by._possibleOutputs)

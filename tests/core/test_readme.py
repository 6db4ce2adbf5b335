"""What the README and the page of parameters say is what the code does."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from cryoden_core import cli
from cryoden_core.jobs import EXIT_OK, SYSTEMS, parameters_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
PARAMETERS = (ROOT / "docs" / "parameters.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("parameters", ROOT / "docs" / "parameters.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_parameter_tables_equal_the_definitions(generator):
    assert generator.page() == PARAMETERS, "run: python docs/parameters.py"


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_parameter_of_a_system_is_in_the_tables(system):
    for name in parameters_of(SYSTEMS[system]):
        assert f"* - ``{name}``" in PARAMETERS


def commands_of(text: str) -> list[str]:
    """Every line of a document's examples that begins with ``cryoden``, with its continuations."""
    whole = text.replace("\\\n", " ")
    return re.findall(r"^    (cryoden .+)$", whole, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.rst", "docs/tutorial.rst"])
def test_every_command_that_is_shown_is_understood(name, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(cli, "_execute_typed", lambda job: asked.append(job.system) or EXIT_OK)
    monkeypatch.setattr(cli.DoctorCommand, "execute", lambda command: EXIT_OK)
    commands = commands_of((ROOT / name).read_text(encoding="utf-8"))
    assert len(commands) > 5
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == EXIT_OK, command
    assert {"nmsg", "mlp", "dual train"} <= set(asked)


def test_every_make_target_that_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:``|^    )make ([a-z]+)\b", README, re.MULTILINE))
    assert named and named <= targets


def test_every_file_that_the_readme_shows_or_links_exists():
    for name in re.findall(r"(?:\.\. (?:image|figure)::\s+|<)(?!https?:)([\w./-]+\.\w+)>?", README):
        assert (ROOT / name).exists(), name


def test_the_configuration_variables_are_those_of_the_plugin():
    constants = (ROOT / "cryoden_scipion" / "constants.py").read_text(encoding="utf-8")
    defined = set(re.findall(r'^(CRYODEN_\w+) = "\1"', constants, re.MULTILINE))
    assert defined == set(re.findall(r"\* - ``(CRYODEN_\w+)``", README))

"""What runs in Scipion's own environment is Python 3.8 and never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = sorted((ROOT / "cryoden_scipion").rglob("*.py"))
#: The core's modules that the plugin imports, directly or not.
JOBS = sorted((ROOT / "cryoden_core" / "jobs").glob("*.py"))
NAMES = (
    "jobs",
    "contrast",
    "progress",
    "mrc",
    "mrc_header",
    "report",
    "panels",
    "excerpts",
    "fourier",
    "metrics",
    "shell_correlation",
    "visual_information",
    "nmsg.presets",
    "dual.limits",
    "star",
    "phantom.particles",
)
SHARED = JOBS + [
    ROOT / "cryoden_core" / f"{name.replace('.', '/')}.py"
    for name in ("__init__", "nmsg.__init__", "dual.__init__", "phantom.__init__", *NAMES)
    if name != "jobs"
]


def imported(tree: ast.AST) -> set[str]:
    """The names of all modules that a file imports, at its top or inside functions, relative ones with their dots."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {base} if node.module else {base + alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", PLUGIN + SHARED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_is_python_3_8_and_does_not_name_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 8))
    assert not {name.split(".")[0] for name in imported(tree)} & {"torch", "torch_ctf", "safetensors"}


def test_ruff_finds_nothing_newer_than_python_3_8():
    command = [sys.executable, "-m", "ruff", "check", "--target-version", "py38", "--select", "F,UP,E9"]
    command += ["--ignore", "UP006,UP007,UP031,UP032,UP035,UP045", *map(str, PLUGIN + SHARED)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", PLUGIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_plugin_uses_no_other_part_of_the_core(path):
    """A test that runs the core for real starts it as a program."""
    allowed = {"cryoden_core", *(f"cryoden_core.{name}" for name in NAMES)}
    used = {name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if name.startswith("cryoden_core")}
    assert used <= allowed

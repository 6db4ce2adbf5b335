"""Fixtures of the modules that apply DUAL's jobs to one tomogram with models whose results are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoden_core.dual.model import DualModel
from tests.core.dual_models import balls, write_tomogram


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[DualModel], None]:
    """Lets the jobs find a given model, whatever file they name; no pictures are drawn."""
    for picture in ("write_report", "write_reconstruction"):
        monkeypatch.setattr(f"cryoden_core.report.{picture}", lambda *given, **named: None)
    return lambda chosen: monkeypatch.setattr(DualModel, "load", lambda path, device: chosen)


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """Balls of bright density, (z, y, x), standard deviation 1."""
    return balls()


@pytest.fixture(scope="session")
def tomogram(truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth with white noise; the truth itself and both halves lie beside it."""
    return write_tomogram(truth, tmp_path_factory.mktemp("dual"))

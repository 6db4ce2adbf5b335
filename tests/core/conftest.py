"""Fixtures of several modules: jobs without their pictures, and what DUAL's jobs are tried on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoden_core.dual.model import DualModel
from tests.core.dual_models import balls, write_tomogram


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job draws its report, which takes longer than all else on a small volume."""
    for picture in ("write_report", "write_reconstruction"):
        monkeypatch.setattr(f"cryoden_core.report.{picture}", lambda *given, **named: None)


@pytest.fixture
def use(no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[DualModel], None]:
    """Lets the jobs find a given model whose results are known, whatever file they name; no pictures are drawn."""
    return lambda chosen: monkeypatch.setattr(DualModel, "load", lambda path, device: chosen)


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """Balls of bright density, (z, y, x), standard deviation 1."""
    return balls()


@pytest.fixture(scope="session")
def tomogram(truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth with white noise; the truth itself and both halves lie beside it."""
    return write_tomogram(truth, tmp_path_factory.mktemp("dual"))

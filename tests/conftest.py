"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real and golden test data: ``CRYODEN_TEST_DATA``, else ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("CRYODEN_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set CRYODEN_TEST_DATA")
    return folder

"""The plugin's own tests pass, each module in a Scipion of its own; they run beside the other tests."""

from __future__ import annotations

import pytest

from tests.scipion.plugin_runs import MODULES, data_folder, lacks_data


@pytest.mark.parametrize("name", MODULES)
def test_the_plugins_tests_pass_in_scipion(plugin_runs, name):
    if lacks_data(name):
        pytest.skip(f"no test data in {data_folder()}; set CRYODEN_TEST_DATA")
    done = plugin_runs[name].result()
    output = done.stdout + done.stderr
    assert "[  PASSED  ]" in output and "[  FAILED  ]" not in output and done.returncode == 0, output[-20000:]
    assert "run 0 tests" not in output

"""Where the golden features lie in our reconstructions of IMOD's test series, through files and transforms."""

import json

import numpy as np
import pytest

from cryoden_core.metrics import displacement
from cryoden_core.mrc import read_volume
from cryoden_core.tilt_series import TiltSeries
from cryoden_core.tomography.wbp import weighted_back_projection

CASES = {
    "A": ("A/TS_A.mrc", "A/TS_A.rawtlt", None, ()),
    "B": ("B/TS_B.mrc", "B/TS_B.rawtlt", "B/TS_B.xf", (5, 20)),
    "D": ("D/TS_D.mrc", "D/TS_D.tlt", None, ()),
}


@pytest.mark.parametrize("case", CASES)
def test_every_sphere_lies_within_a_tenth_of_a_voxel_of_the_truth(test_data, case):
    golden = test_data / "imod_golden"
    stack, angles, transforms, excluded = CASES[case]
    series = TiltSeries.from_files(
        golden / stack, golden / angles, golden / transforms if transforms else None, excluded
    )
    tomogram = weighted_back_projection(series.aligned_stack(), series.tilt_angles_degrees, 64)
    truth = json.loads((golden / "features.json").read_text())["truth"]
    phantom = read_volume(golden / "phantom.mrc")
    spheres = {name: about["centre"] for name, about in truth.items() if "sphere" in name}
    assert len(spheres) == 4
    for name, centre in spheres.items():
        box = tuple(slice(c - 10, c + 11) for c in reversed(centre))
        shift = displacement(tomogram[box], phantom[box])
        assert np.abs(shift).max() < 0.1, f"{name}: {shift}"

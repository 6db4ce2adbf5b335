"""Where the golden features lie in our reconstructions of IMOD's test series, through files and transforms."""

import json

import numpy as np
import pytest

from cryoden_core.mrc import read_volume
from cryoden_core.tilt_series import TiltSeries
from cryoden_core.tomography.wbp import weighted_back_projection

CASES = {
    "A": ("A/TS_A.mrc", "A/TS_A.rawtlt", None, ()),
    "B": ("B/TS_B.mrc", "B/TS_B.rawtlt", "B/TS_B.xf", (5, 20)),
    "D": ("D/TS_D.mrc", "D/TS_D.tlt", None, ()),
}


def displacement_xyz(volume: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Shift of ``volume`` against ``expected``: the peak of their correlation, refined by a parabola on each axis."""
    spectra = [np.fft.fftn(v - v.mean()) for v in (volume, expected)]
    surface = np.fft.fftshift(np.fft.ifftn(spectra[0] * spectra[1].conj()).real)
    peak = np.unravel_index(surface.argmax(), surface.shape)
    shift = []
    for axis in range(3):
        low, middle, high = (surface[tuple(p + d * (a == axis) for a, p in enumerate(peak))] for d in (-1, 0, 1))
        refined = peak[axis] + 0.5 * (low - high) / (low - 2 * middle + high)
        shift.append(refined - volume.shape[axis] // 2)
    return np.array(shift[::-1])


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
        shift = displacement_xyz(tomogram[box], phantom[box])
        assert np.abs(shift).max() < 0.1, f"{name}: {shift}"

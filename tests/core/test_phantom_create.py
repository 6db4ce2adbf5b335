"""The phantom job: its files, their headers and what they say about each other."""

import json

import numpy as np
import pytest

from cryoden_core.jobs import JobError, PhantomJob, job_from_dict
from cryoden_core.mrc import read_header, read_volume
from cryoden_core.phantom.create import create
from cryoden_core.phantom.particles import read_star
from cryoden_core.progress import Progress

FILES = {
    "density.mrc", "labels.mrc", "particles.star", "phantom.json", "tilt_series.mrc", "tilt_series_even.mrc",
    "tilt_series_odd.mrc", "tilt_series.tlt", "tilt_series_even.tlt", "tilt_series_odd.tlt", "tomogram.mrc",
    "tomogram_even.mrc", "tomogram_odd.mrc", "noise_free.mrc",
}  # fmt: skip


def small_job(folder, **choices) -> PhantomJob:
    given = {"output": str(folder), "depth": 40, "height": 48, "width": 64, "particles": 8, "vesicles": 0,
             "tilt_step": 10.0, "device": "cpu", "threads": 1, **choices}  # fmt: skip
    return PhantomJob.from_parameters(given)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "field"
    return folder, create(small_job(folder), Progress(quiet=True))


def test_every_promised_file_is_there_and_no_other(made):
    folder, result = made
    assert {path.name for path in folder.iterdir()} == FILES
    assert set(result["files"]) == FILES - {"phantom.json"}
    assert json.loads((folder / "phantom.json").read_text()) == json.loads(json.dumps(result))


def test_headers_hold_shape_and_voxel_size(made):
    folder, _ = made
    for name in ("density", "labels", "tomogram", "tomogram_even", "noise_free"):
        header = read_header(str(folder / f"{name}.mrc"))
        assert tuple(header.shape) == (40, 48, 64) and header.voxel_size == pytest.approx(10.0)
        assert not header.stack
    images = read_header(str(folder / "tilt_series.mrc"))
    assert images.shape == (13, 48, 64) and images.stack
    assert len((folder / "tilt_series.tlt").read_text().split()) == 13


def test_files_agree_with_each_other(made):
    folder, result = made
    volumes = {name: read_volume(str(folder / f"{name}.mrc")) for name in
               ("density", "labels", "tomogram", "tomogram_even", "tomogram_odd", "noise_free")}  # fmt: skip
    np.testing.assert_allclose(volumes["tomogram"], volumes["tomogram_even"] + volumes["tomogram_odd"], atol=1e-5)
    assert np.corrcoef(volumes["density"].ravel(), volumes["noise_free"].ravel())[0, 1] > 0.6
    assert volumes["density"].min() < -0.5  # dark
    noise = volumes["tomogram"] - volumes["noise_free"]
    inside = volumes["labels"] > 0
    assert volumes["noise_free"][inside].var() / noise[inside].var() == pytest.approx(result["voxel_snr"], rel=1e-3)
    assert result["voxel_snr"] == pytest.approx(0.1, rel=0.1)


def test_particles_lie_on_their_labels(made):
    folder, result = made
    labels = read_volume(str(folder / "labels.mrc"))
    particles = read_star(folder / "particles.star")
    assert len(particles) == 8 - result["missing"]
    for item in particles:
        x, y, z = item.position.round().astype(int)
        near = labels[max(z - 4, 0) : z + 5, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
        assert (near == item.label).any()


def test_spheres_are_made_too(tmp_path):
    result = create(small_job(tmp_path / "s", kind="spheres", sign="bright", noise="poisson"), Progress(quiet=True))
    assert result["count_of_class"] == {"sphere": 8} and result["electrons_per_pixel"] > 0
    assert read_volume(str(tmp_path / "s" / "density.mrc")).max() > 0.6


def test_same_job_writes_the_same_tomogram(made, tmp_path):
    create(small_job(tmp_path), Progress(quiet=True))
    again, first = (read_volume(str(folder / "tomogram.mrc")) for folder in (tmp_path, made[0]))
    np.testing.assert_array_equal(again, first)


def test_missing_templates_are_a_clear_error_and_leave_no_summary(made, tmp_path):
    create(small_job(tmp_path), Progress(quiet=True))
    with pytest.raises(JobError, match="no density maps"):
        create(small_job(tmp_path, templates=str(tmp_path / "nowhere")), Progress(quiet=True))
    assert not (tmp_path / "phantom.json").exists()


def test_objects_without_room_are_warned_about(tmp_path):
    job = small_job(tmp_path, depth=24, height=32, width=32, particles=40)
    result = create(job, Progress(quiet=True))
    assert result["missing"] > 0 and "found no room" in result["warnings"][0]


def test_job_survives_json_and_refuses_nonsense(tmp_path):
    job = small_job(tmp_path)
    assert job_from_dict(job.to_dict()) == job
    with pytest.raises(JobError, match="tilt step"):
        small_job(tmp_path, tilt_step=20.0, tilt_limit=10.0)
    with pytest.raises(JobError, match="kind"):
        small_job(tmp_path, kind="cubes")

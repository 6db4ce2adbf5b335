"""The job that makes clean domains: its files, resuming, and grand models that others made."""

import json

import numpy as np
import pytest
from emtable import Table

from cryoden_core import api
from cryoden_core.cli import main
from cryoden_core.jobs import EXIT_OK, CleanDomainJob, JobError, write_job
from cryoden_core.mrc import open_volume, read_header, read_volume, write_volume
from cryoden_core.phantom.particles import read_star

SMALL = {"depth": 32, "height": 48, "width": 64, "vesicles": 0, "tubes": 0, "sheets": 0, "microtubules": 0, "actin": 1,
         "clusters": 0, "beads": 1, "particles": 4, "membrane_proteins": 0}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory):
    """One small map as the only template: the built-in shapes take longer to make than to place."""
    path = tmp_path_factory.mktemp("maps") / "dumbbell.mrc"
    z, y, x = np.indices((15, 15, 15)) - 7.0
    balls = [np.exp(-((x - c) ** 2 + y**2 + z**2) / 6) for c in (-3, 3)]
    write_volume(str(path), np.sum(balls, axis=0).astype(np.float32), 10.0)
    SMALL["templates"] = [str(path)]
    return path


def make(folder, **choices):
    return api.dual_clean_domain(str(folder), **{**SMALL, **choices})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "domain"
    return folder, make(folder, volumes=2)


def test_each_volume_has_its_files_on_one_grid(made):
    folder, result = made
    assert len(result["volumes"]) == 2
    for volume in result["volumes"]:
        path = folder / volume["name"]
        assert {p.name for p in path.iterdir()} == {
            "density.mrc", "labels.mrc", "instances.mrc", "particles.star", "volume.json"}  # fmt: skip
        for name in ("density", "labels", "instances"):
            header = read_header(str(path / f"{name}.mrc"))
            assert tuple(header.shape) == (32, 48, 64) and header.voxel_size == pytest.approx(10.0)
        assert open_volume(str(path / "labels.mrc")).dtype == np.int16
        assert open_volume(str(path / "instances.mrc")).dtype == np.uint16
        about = json.loads((path / "volume.json").read_text())
        assert about["seed"] == volume["seed"] and about["parameters"]["particles"] == 4


def test_the_labels_are_those_of_the_table(made):
    folder, result = made
    for volume in result["volumes"]:
        labels, instances = (read_volume(str(folder / volume["name"] / f"{n}.mrc")) for n in ("labels", "instances"))
        particles = read_star(folder / volume["name"] / "particles.star")
        assert particles
        for item in particles:
            assert set(labels[instances == item.instance]) == {item.label}
            assert volume["class_of_label"][str(item.label)] == item.name
        assert set(np.unique(labels)) - {0} >= {item.label for item in particles}


def test_the_list_of_tomograms_names_every_density(made):
    folder, _ = made
    rows = list(Table(fileName=str(folder / "tomograms.star"), tableName="global"))
    assert [row.rlnTomoName for row in rows] == ["volume_001", "volume_002"]
    assert all((folder / row.rlnTomoReconstructedTomogram).exists() for row in rows)
    assert {round(float(row.rlnTomoTiltSeriesPixelSize), 3) for row in rows} == {10.0}


def test_volumes_differ_and_do_not_depend_on_their_number(made, tmp_path):
    first, second = (read_volume(str(made[0] / f"volume_00{i}" / "density.mrc")) for i in (1, 2))
    assert not np.array_equal(first, second)
    make(tmp_path / "one", volumes=1, sign="dark")
    np.testing.assert_array_equal(read_volume(str(tmp_path / "one" / "volume_001" / "density.mrc")), -first)
    assert first.max() > 0.8


def test_resuming_keeps_what_is_whole_and_makes_what_is_not(made, tmp_path):
    folder = tmp_path / "domain"
    make(folder, volumes=2)
    kept, lost = (folder / f"volume_00{i}" for i in (1, 2))
    (lost / "volume.json").unlink()
    before = [(path / "density.mrc").stat().st_mtime_ns for path in (kept, lost)]
    make(folder, volumes=2, resume=True)
    after = [(path / "density.mrc").stat().st_mtime_ns for path in (kept, lost)]
    assert before[0] == after[0] and before[1] != after[1]
    second = made[0] / "volume_002" / "density.mrc"
    np.testing.assert_array_equal(read_volume(str(lost / "density.mrc")), read_volume(str(second)))


def test_an_interrupted_job_file_goes_on_from_the_command_line(tmp_path, capsys):
    job = CleanDomainJob.from_parameters({"output": str(tmp_path / "out"), **SMALL, "volumes": 1})
    write_job(job, str(tmp_path / "job.json"))
    arguments = ["run", str(tmp_path / "job.json"), "--resume"]
    assert main(arguments) == EXIT_OK
    first = (tmp_path / "out" / "volume_001" / "density.mrc").stat().st_mtime_ns
    assert main(arguments) == EXIT_OK
    assert (tmp_path / "out" / "volume_001" / "density.mrc").stat().st_mtime_ns == first
    assert capsys.readouterr().out.split() == [str(tmp_path / "out")] * 2


def test_resuming_with_other_parameters_keeps_nothing(tmp_path):
    make(tmp_path, volumes=1)
    before = (tmp_path / "volume_001" / "density.mrc").stat().st_mtime_ns
    make(tmp_path, volumes=1, particles=5, resume=True)
    assert (tmp_path / "volume_001" / "density.mrc").stat().st_mtime_ns != before


def test_bad_templates_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "bad.pdb").write_text("nothing\n")
    for templates, message in (([str(tmp_path / "none")], "does not exist"), ([str(tmp_path / "bad.pdb")], "bad.pdb")):
        with pytest.raises(JobError, match=message):
            make(tmp_path / "out", templates=templates)
    with pytest.raises(JobError, match="no template is called 'ribosome'"):
        make(tmp_path / "out", cluster_template="ribosome")
    assert not list((tmp_path / "out").rglob("*.mrc")) and not (tmp_path / "out" / "tomograms.star").exists()


@pytest.mark.parametrize(
    "choice, message",
    [
        ({"voxel_size": 0.5}, "voxel_size"),
        ({"voxel_size": 500.0}, "voxel_size"),
        ({"occupancy_min": 0.3, "occupancy_max": 0.1}, "occupancy_min"),
        ({"volumes": 0}, "volumes"),
        ({"depth": 4096, "height": 8192, "width": 8192}, "too large"),
        ({"ice_thickness_max": 50.0}, "too thin"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(tmp_path, choice, message):
    with pytest.raises(JobError, match=message):
        CleanDomainJob.from_parameters({"output": str(tmp_path), **choice})

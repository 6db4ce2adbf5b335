"""Fields like pieces of a cell: what is placed, how much of it, and that the tables tell the truth."""

import dataclasses

import numpy as np
import pytest

from cryoden_core.dual.clean_domain import recipe_of
from cryoden_core.jobs import CleanDomainJob, JobError
from cryoden_core.phantom.atoms import ICE_DENSITY, PROTEIN_CONTRAST
from cryoden_core.phantom.cell import CLUSTER_DISTANCES, pack_cell
from cryoden_core.phantom.particles import read_star, write_star
from cryoden_core.phantom.placing import TurnableTemplate
from cryoden_core.phantom.shapes import builtin_templates, channel

SHAPE, VOXEL = (48, 96, 96), 10.0
#: Seeds that draw at least one of each kind of object, and a vesicle.
CELL_SEED, VESICLE_SEED = 0, 10
#: Nothing but single macromolecules.
BARE = {
    "vesicles": 0, "tubes": 0, "sheets": 0, "actin": 0, "microtubules": 0, "clusters": 0, "beads": 0, "crowding": 0.0,
}  # fmt: skip


def recipe(**choices):
    return recipe_of(CleanDomainJob.from_parameters({"output": "nowhere", **choices}))


@pytest.fixture(scope="module")
def templates():
    return builtin_templates(VOXEL)


@pytest.fixture(scope="module")
def cell(templates):
    """A field with all there is."""
    everything = recipe(vesicles=2, membrane_radius_min=150, membrane_radius_max=200, tubes=1, sheets=0, actin=3,
                        microtubules=1, clusters=2, beads=3, membrane_proteins=6, occupancy_min=0.04,
                        occupancy_max=0.04)  # fmt: skip
    return pack_cell(SHAPE, templates, everything, CELL_SEED, [channel(VOXEL)])


def test_the_field_holds_every_kind_of_object(cell):
    kinds = {item.kind for item in cell[0].particles}
    assert {"particle", "filament", "membrane protein", "bead"} <= kinds and kinds & {"vesicle", "tube"}


def test_no_voxel_belongs_to_two_objects_and_all_have_their_label(cell):
    model, _ = cell
    assert ((model.instances > 0) == (model.labels > 0)).all()
    for item in model.particles:
        own = model.instances == item.instance
        assert own.any() and (model.labels[own] == item.label).all()
        assert model.class_names[item.label] == item.name
    assert [item.instance for item in model.particles] == list(range(1, len(model.particles) + 1))


def test_single_particles_keep_all_their_voxels(cell, templates):
    # None was written over by another: each has as many voxels as its template, but for the turn.
    model, _ = cell
    voxels = {template.name: template.voxels for template in templates}
    for item in model.particles:
        if item.kind == "particle":
            assert (model.instances == item.instance).sum() == pytest.approx(voxels[item.name], rel=0.15)


def test_every_position_lies_in_the_middle_of_its_voxels(cell):
    model, _ = cell
    for item in model.particles:
        if item.kind == "particle":
            centre = np.argwhere(model.instances == item.instance).mean(axis=0)[::-1]
            assert np.linalg.norm(centre - item.position) < 2.0


def test_the_pose_of_the_star_file_gives_the_density_back(cell, templates, tmp_path):
    model, _ = cell
    write_star(model.particles, tmp_path / "particles.star", "field")
    named = {template.name: TurnableTemplate(template) for template in templates}
    found = [item for item in read_star(tmp_path / "particles.star") if item.kind == "particle"]
    assert len(found) > 5
    for item in found:
        turned, corner = named[item.name].at(item.position, item.rotation)
        box = tuple(slice(c, c + n) for c, n in zip(corner, turned.density.shape, strict=True))
        own = model.instances[box] == item.instance
        # Crowding noise is not added where there is a label.
        np.testing.assert_allclose(model.density[box][own], turned.density[own], atol=0.02)


def test_the_star_file_keeps_what_a_particle_belongs_to(cell, tmp_path):
    model, _ = cell
    write_star(model.particles, tmp_path / "particles.star", "field")
    wanted = [item for item in model.particles if item.kind in ("particle", "filament", "membrane protein")]
    found = read_star(tmp_path / "particles.star")
    for one, other in zip(found, wanted, strict=True):
        assert (one.kind, one.name, one.instance, one.chain, one.compartment) == (
            other.kind, other.name, other.instance, other.chain, other.compartment)  # fmt: skip
        assert one.kilodalton == pytest.approx(other.kilodalton, abs=0.01)


def test_the_same_seed_gives_the_same_field_and_another_does_not(templates):
    choice = recipe(
        occupancy_min=0.02, occupancy_max=0.02, vesicles=1, membrane_radius_min=120, membrane_radius_max=150
    )
    small = [t for t in templates if t.name in ("globule", "cage")]
    first, again, other = (pack_cell((32, 48, 48), small, choice, seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.density, again.density)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize("occupancy", [0.03, 0.1])
def test_the_occupancy_is_what_was_wanted(templates, occupancy):
    model, drawn = pack_cell(SHAPE, templates, recipe(**BARE, occupancy_min=occupancy, occupancy_max=occupancy), 2)
    reached = (model.labels > 0).mean()
    assert reached == pytest.approx(occupancy, rel=0.1)
    assert drawn["occupancy"] == pytest.approx(reached, abs=1e-5) and not drawn["full"]


def test_a_field_that_is_full_says_so(templates):
    _, drawn = pack_cell((24, 32, 32), templates, recipe(**BARE, occupancy_min=0.5, occupancy_max=0.5), 2)
    assert drawn["full"] and 0.1 < drawn["occupancy"] < 0.5


def test_abundances_differ_between_fields_unless_they_are_asked_to_be_even(templates):
    def counts(spread: float, seed: int) -> np.ndarray:
        choice = recipe(**BARE, particles=60, abundance_spread=spread)
        model, _ = pack_cell(SHAPE, templates, choice, seed)
        return np.bincount([item.label for item in model.particles], minlength=len(templates) + 1)[1:]

    uneven, even = (np.array([counts(spread, seed) for seed in (1, 2)]) for spread in (0.5, 1000.0))
    assert np.abs(uneven[0] - uneven[1]).sum() > 2 * np.abs(even[0] - even[1]).sum()
    assert even.max() <= 15


def test_members_of_a_cluster_are_neighbours(templates):
    choice = recipe(**{**BARE, "clusters": 6}, particles=1, cluster_template="tetramer")
    model, _ = pack_cell((64, 128, 128), templates, choice, 3)
    chains: dict[int, list[np.ndarray]] = {}
    for item in model.particles:
        if item.chain:
            assert item.name == "tetramer"
            chains.setdefault(item.chain, []).append(item.position)
    steps = np.concatenate([np.diff(chain, axis=0) for chain in chains.values() if len(chain) > 1])
    distances = np.linalg.norm(steps, axis=1) * VOXEL
    assert (
        len(distances) > 5 and CLUSTER_DISTANCES[0] - 1 < distances.min() and distances.max() < CLUSTER_DISTANCES[1] + 1
    )


def test_outside_of_the_ice_there_is_vacuum_and_nothing_else(templates):
    choice = recipe(**BARE, occupancy_min=0.03, occupancy_max=0.03, ice_thickness_min=240, ice_thickness_max=240)
    model, drawn = pack_cell(SHAPE, templates, choice, 4)
    assert drawn["ice_thickness_angstrom"] == 240
    top = model.density[[0, -1]]
    np.testing.assert_allclose(top, -ICE_DENSITY / PROTEIN_CONTRAST, atol=0.05)
    assert not model.labels[:6].any() and not model.labels[-6:].any() and (model.labels > 0).any()
    assert drawn["occupancy"] == pytest.approx(0.03, rel=0.15)


def test_membranes_end_at_the_surface_of_the_ice(templates):
    field = recipe(**{**BARE, "sheets": 1}, particles=1, ice_thickness_min=240, ice_thickness_max=240)
    in_membranes = [channel(VOXEL)]
    for seed in range(10):
        model, drawn = pack_cell(SHAPE, templates[:1], field, seed, in_membranes)
        if drawn["sheets"]:
            break
    (sheet,) = (item for item in model.particles if item.kind == "sheet")
    sections = np.flatnonzero((model.instances == sheet.instance).any(axis=(1, 2)))
    assert sections.size and sections.min() >= 10 and sections.max() <= 37
    for item in model.particles:
        assert (model.instances == item.instance).any()


def test_crowding_has_its_standard_deviation_and_its_length(templates):
    choice = recipe(**{**BARE, "crowding": 0.05}, particles=1)
    model, _ = pack_cell(SHAPE, templates, choice, 1)
    empty = model.density[:, :, :48][model.labels[:, :, :48] == 0]
    assert empty.std() == pytest.approx(0.05, rel=0.1) and abs(empty.mean()) < 0.005
    field = np.where(model.labels == 0, model.density, 0)
    near, far = ((field[:, :, :-s] * field[:, :, s:]).mean() / (field**2).mean() for s in (1, 8))
    assert near > 0.7 and abs(far) < 0.1


def test_gold_has_its_contrast(templates):
    choice = dataclasses.replace(recipe(**BARE, particles=1, gold_contrast=5.0), beads=8)
    model, _ = pack_cell(SHAPE, templates, choice, 9)
    gold = [item for item in model.particles if item.kind == "bead"]
    assert gold and model.density.max() == pytest.approx(5.0, rel=0.01)
    for item in gold:
        assert 25 <= item.extent[0] <= 50


def test_particles_in_a_vesicle_know_it(templates):
    field = recipe(**{**BARE, "vesicles": 1}, membrane_radius_min=230, membrane_radius_max=230, membrane_proteins=0,
                   occupancy_min=0.05, occupancy_max=0.05)  # fmt: skip
    model, _ = pack_cell(SHAPE, [t for t in templates if t.name == "globule"], field, VESICLE_SEED)
    (vesicle,) = (item for item in model.particles if item.kind == "vesicle")
    inside = []
    for item in model.particles:
        if item.kind == "particle":
            own_axes = (item.position - vesicle.position) * VOXEL @ vesicle.rotation / vesicle.extent
            radius = np.linalg.norm(own_axes)
            assert radius < 1.15 if item.compartment == vesicle.instance else radius > 0.85
            inside.append(item.compartment == vesicle.instance)
    assert any(inside) and not all(inside)


def test_unknown_clusters_templates_too_large_and_none_at_all_are_refused(templates):
    with pytest.raises(JobError, match="no template is called 'ribosome'"):
        pack_cell(SHAPE, templates, recipe(clusters=1, cluster_template="ribosome"), 1)
    with pytest.raises(JobError, match="no template fits"):
        pack_cell((4, 96, 96), templates, recipe(), 1)
    with pytest.raises(JobError, match="no template"):
        pack_cell(SHAPE, [], recipe(), 1)

"""Fitting a field to a tilt series: order, exact gradients, start, penalties, truncation, beads, views."""

import numpy as np
import pytest
import torch

from cryoden_core import metrics
from cryoden_core.mlp.data import measure_scale
from cryoden_core.mlp.fields import make_field
from cryoden_core.mlp.fit import FitTask, Stage, Weights, pieces, scattered_order
from cryoden_core.progress import Progress
from cryoden_core.tomography.sirt import sirt
from cryoden_core.training import Trainer, TrainingSettings
from tests.core.mlp_phantom import ANGLES, CPU, SHAPE, density, error, fitted, phantom, ready, series, spheres


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Truth, series, prepared data, scale."""
    truth, views = phantom()
    return truth, views, *ready(views, tmp_path_factory.mktemp("mlp"))


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("sections", [1, 7, 24])
def test_a_pass_visits_every_section_once_and_scattered(sections, pairs):
    order = scattered_order(sections, torch.Generator().manual_seed(2), pairs)
    assert sorted(order.tolist()) == list(range(sections))
    if sections == 24:
        first = sorted(order[:8].tolist())
        assert first[-1] - first[0] > 12
        neighbours = (order[0:22:2] + 1 == order[1:23:2]).float().mean()
        assert (neighbours == 1) == pairs


def test_all_steps_of_a_pass_together_visit_every_section_once(given):
    _, _, data, _ = given
    task = FitTask(make_field("lattice", SHAPE, 8, 1, 1, False), [Stage(data, 2)], Weights(), 1e-2, sections=7)
    seen = [
        torch.cat([task.drawn(task.place(step)) for step in range(4 * number, 4 * number + 4)]) for number in (0, 1)
    ]
    assert task.steps == 8
    assert [sorted(drawn.tolist()) for drawn in seen] == [list(range(24))] * 2
    assert not torch.equal(*seen)


@pytest.mark.parametrize(
    ("size", "expected"), [(2**40, (1, 1)), (32 * 16 * 5, (1, 5)), (32 * 4, (4, 24)), (1, (16, 24))]
)
def test_pieces_are_as_large_as_allowed(size, expected):
    rows, columns = pieces(16, 24, 32, size)
    assert (len(rows), len(columns)) == expected


@pytest.mark.parametrize("field", ["lattice", "siren"])
def test_the_gradient_of_pieces_is_that_of_the_whole(given, field):
    _, _, data, _ = given
    gradients = []
    for voxels in (2**40, 1000):
        torch.manual_seed(0)
        task = FitTask(
            make_field(field, SHAPE, 16, 2, 30.0, False), [Stage(data, 1)],
            Weights("charbonnier", 0.05, 1.0, 1.0), 0.0, piece_voxels=voxels,
        )  # fmt: skip
        # Late enough for the penalties to count; the pieces must sum up to the same gradient before it is clipped.
        settings = TrainingSettings(10, clip=1e9, precision=False)
        trainer = Trainer(task, settings, CPU, 1, Progress(quiet=True))
        trainer.update("fit", task._losses(task.place(0), task.drawn(task.place(0)), 0.9, trainer, {}))
        gradients.append([p.grad.clone() for group in task.optimizers["fit"].param_groups for p in group["params"]])
    for whole, parts in zip(*gradients, strict=True):
        assert float((whole - parts).norm()) <= 1e-4 * float(whole.norm())


def test_memory_that_runs_out_halves_the_pieces_and_the_fit_goes_on(given):
    _, _, data, _ = given
    task = FitTask(make_field("lattice", SHAPE, 8, 1, 1, False), [Stage(data, 1)], Weights(), 1e-2)
    evaluate, sizes = task.network.forward, []

    def limited(z, y, x):
        sizes.append(len(z) * len(y) * len(x))
        if sizes[-1] > 700:
            raise MemoryError
        return evaluate(z, y, x)

    task.network.forward = limited
    trainer = Trainer(task, TrainingSettings(task.steps), CPU, 1, Progress(quiet=True))
    trainer.fit()
    assert max(sizes[-4:]) <= 700 and trainer.step == task.steps


def test_the_fit_beats_sirt_and_fills_the_wedge(given):
    truth, views, data, scale = given
    volume = density(*fitted(data, 40), data, scale)
    other = sirt(views.projections, ANGLES, SHAPE[0], 50)
    assert metrics.psnr_affine(volume, truth) > metrics.psnr_affine(other, truth) + 3.5
    measured, missing = metrics.wedge_fsc(volume, truth)[1:]
    assert np.nanmean(missing[1:8]) > 0.8
    assert np.nanmean(measured[1:8]) > 0.95


def test_a_fit_that_starts_from_sirt_is_ahead_of_a_cold_one_at_equal_steps(given):
    truth, _, data, scale = given
    warm = density(*fitted(data, 6, 3, field="siren", rate=2e-3), data, scale)
    cold = density(*fitted(data, 9, 0, field="siren", rate=2e-3), data, scale)
    assert error(warm, truth) < error(cold, truth)


def test_the_seed_decides_the_fit(given):
    _, _, data, scale = given
    first, again, other = (density(*fitted(data, 3, seed=seed), data, scale) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)


def test_a_non_negative_fit_is_never_below_zero_and_nearer_to_a_positive_truth(tmp_path):
    truth, views = phantom()
    data, scale = ready(views, tmp_path, non_negative=True)
    volume = density(*fitted(data, 15, non_negative=True, weights=Weights()), data, scale)
    free = density(*fitted(data, 15, weights=Weights()), data, scale)
    assert volume.min() >= 0 > free.min()
    assert error(volume, truth) < error(free, truth)


def test_material_beside_the_tomogram_is_accounted_for(tmp_path):
    # The specimen is twice as wide as the images.
    wide = spheres((16, 24, 64), count=30)
    views = wide.project(ANGLES, detector_width=32)
    truth = wide.volume()[:, :, 16:48]
    given = series(views, 16, 32)
    errors = {}
    for outside in (True, False):
        data, scale = ready(given, tmp_path, outside=outside)
        volume = density(*fitted(data, 15), data, scale)
        errors[outside] = metrics.psnr_affine(volume, truth)
    assert errors[True] > errors[False] + 1


def test_a_masked_bead_changes_nothing_in_the_fit(tmp_path):
    _, views = phantom()
    mask = np.zeros(views.projections.shape, bool)
    mask[:, 8:14, 10:18] = True
    volumes = []
    for grey in (0.0, 1000.0):
        spoiled = views.projections.copy()
        spoiled[mask] += grey
        data, scale = ready(series(spoiled, SHAPE[0], SHAPE[2]), tmp_path, mask=mask)
        volumes.append(density(*fitted(data, 3), data, scale))
    assert np.allclose(*volumes, atol=1e-4 * volumes[0].std())


def test_gain_and_offset_of_each_view_are_found(tmp_path):
    _, views = phantom()
    random = np.random.default_rng(0)
    gains = np.exp(random.normal(0, 0.1, len(ANGLES)))
    gains /= np.exp(np.log(gains).mean())
    offsets = random.normal(0, 0.2, len(ANGLES)) * views.projections.std()
    changed = (views.projections * gains[:, None, None] + offsets[:, None, None]).astype(np.float32)
    data, _ = ready(series(changed, SHAPE[0], SHAPE[2]), tmp_path, outside=False)
    task, _ = fitted(data, 40, fit_views=True)
    assert np.corrcoef(task.views.gains.detach().numpy(), gains)[0, 1] > 0.75
    assert np.corrcoef(task.views.offset.detach().numpy(), offsets)[0, 1] > 0.9


def test_density_keeps_the_grey_scale_of_the_projections(given):
    truth, views, data, scale = given
    volume = density(*fitted(data, 40, weights=Weights(sparsity=0.3)), data, scale)
    gain, _ = metrics.affine_fit(volume, truth)
    assert gain == pytest.approx(1, abs=0.15)
    assert measure_scale(series(1000 * views.projections, *SHAPE[::2]), "zero").density == pytest.approx(
        1000 * scale.density, rel=1e-4
    )

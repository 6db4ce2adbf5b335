"""Losses and penalties of the coordinate network."""

import math

import numpy as np
import pytest
import torch

from cryoden_core.mlp.losses import (
    WedgePenalty,
    mean_path,
    projection_loss,
    sparsity,
    total_variation,
)
from cryoden_core.tomography.geometry import TiltGeometry
from cryoden_core.tomography.projector import Projector

ANGLES = np.arange(-60, 61, 3.0)


def power_penalised(penalty, volume) -> float:
    """Share of a volume's magnitude that the penalty sees, relative to white noise of the same norm."""
    noise = torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
    return float(penalty(volume / volume.norm()) / penalty(noise / noise.norm()))


def test_the_penalty_does_not_see_what_the_views_measure():
    depth, width = 64, 64
    penalty = WedgePenalty(depth, width, ANGLES)
    assert penalty.active
    noise = torch.randn((len(ANGLES), 4, 3 * width), generator=torch.Generator().manual_seed(0))
    projector = Projector(TiltGeometry(ANGLES, (depth, 4, width), 3 * width))
    assert power_penalised(penalty, projector.adjoint(noise)) < 0.35
    # The same views turned by 90 degrees measure just what is penalised.
    turned = Projector(TiltGeometry(ANGLES[10:31], (width, 4, depth), 3 * width)).adjoint(noise[10:31])
    assert power_penalised(penalty, turned.transpose(0, 2).contiguous()) > 0.8


@pytest.mark.parametrize(("angle", "seen"), [(-75.0, True), (75.0, False), (0.0, False)])
def test_the_penalty_knows_on_which_side_an_asymmetric_range_ends(angle, seen):
    penalty = WedgePenalty(64, 64, np.arange(-50, 81, 3.0))
    radians, centre = math.radians(angle), 31.5
    z, x = np.meshgrid(np.arange(64) - centre, np.arange(64) - centre, indexing="ij")
    # A wave along (cos, sin) of (x, z) is what a view at this angle shows; its ends fade, for a step is many waves.
    wave = np.cos(2 * np.pi * 0.45 * (x * math.cos(radians) + z * math.sin(radians))) * np.outer(*[np.hanning(64)] * 2)
    strength = power_penalised(penalty, torch.from_numpy(wave.astype(np.float32))[:, None])
    assert (strength > 0.1) == seen


def test_the_penalty_is_inactive_where_views_overlap_to_nyquist_or_nothing_is_missing():
    assert not WedgePenalty(16, 64, ANGLES).active
    assert not WedgePenalty(64, 64, np.arange(-90, 91, 3.0)).active
    assert float(WedgePenalty(16, 64, ANGLES)(torch.randn(16, 2, 64))) == 0.0


def test_the_penalty_of_noise_does_not_depend_on_the_size_of_the_volume():
    values = [float(WedgePenalty(size, size, ANGLES, thickness=64)(torch.randn(size, 3, size))) for size in (48, 96)]
    assert values[0] == pytest.approx(values[1], rel=0.1)


@pytest.mark.parametrize("kind", ["l2", "l1", "charbonnier", "huber"])
def test_a_pixel_without_weight_does_not_count(kind):
    residual = torch.randn(3, 4, 5)
    weights = torch.ones(3, 4, 5)
    weights[0, 0, 0] = 0
    spoiled = residual.clone()
    spoiled[0, 0, 0] = 1e6
    assert projection_loss(spoiled, kind, weights) == pytest.approx(float(projection_loss(residual, kind, weights)))
    assert projection_loss(residual, kind, torch.ones(3, 1, 1)) == pytest.approx(float(projection_loss(residual, kind)))


def test_robust_losses_forgive_outliers():
    residual = torch.full((1, 1, 100), 0.1)
    outlier = residual.clone()
    outlier[..., 0] = 100.0
    growth = {
        kind: float(projection_loss(outlier, kind) / projection_loss(residual, kind)) for kind in ("l2", "huber", "l1")
    }
    assert growth["l1"] < growth["huber"] < growth["l2"] / 10


def test_total_variation_counts_differences_along_every_axis_and_y_only_in_pairs():
    step = torch.zeros(8, 6, 8)
    step[:, 3:] = 1.0
    assert float(total_variation(step)) == pytest.approx(0, abs=1e-5)
    assert float(total_variation(step, pairs=True)) == pytest.approx(1 / 3, abs=1e-2)
    along_x = torch.zeros(8, 6, 8)
    along_x[:, :, 4:] = 1.0
    assert float(total_variation(along_x)) == pytest.approx(1 / 7, abs=1e-2)


def test_sparsity_is_the_mean_magnitude():
    volume = torch.tensor([0.0, 2.0, 5.0, 5.0, 9.0])[None, :, None].expand(3, 5, 3)
    assert float(sparsity(-volume)) == pytest.approx(21 / 5)


def test_the_mean_path_through_a_slab_grows_as_it_tilts():
    assert mean_path(10, np.array([0.0, 60.0])) == pytest.approx(15.0)

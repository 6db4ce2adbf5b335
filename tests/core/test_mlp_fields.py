"""Coordinate networks: coordinates, interpolation, sines, output."""

import numpy as np
import pytest
import torch

from cryoden_core.mlp.fields import FourierField, LatticeField, SirenField, grid_axes, make_field, product_sines

SHAPE = (6, 9, 12)
KINDS = ("lattice", "siren", "fourier")


def field(kind, **about):
    torch.manual_seed(0)
    return make_field(kind, SHAPE, 16, 3, 30.0, about.get("non_negative", False))


def test_a_voxel_has_the_same_pitch_along_every_axis():
    z, y, x = grid_axes(SHAPE)
    assert all(torch.allclose(axis.diff(), torch.full_like(axis.diff(), 2 / 12)) for axis in (z, y, x))
    assert abs(float(x.mean())) < 1e-6 and float(x[-1]) == pytest.approx(11 / 12)


def test_a_binned_voxel_lies_at_the_centre_of_its_voxels():
    fine, coarse = grid_axes((8, 8, 16))[2], grid_axes((4, 4, 8), 16, 2)[2]
    assert torch.allclose(coarse, fine.reshape(-1, 2).mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_any_part_of_a_volume_has_the_values_of_the_whole(kind):
    network, (z, y, x) = field(kind), grid_axes(SHAPE)
    whole = network(z, y, x)
    assert whole.shape == SHAPE and whole.dtype == torch.float32
    rows, sections = torch.tensor([4, 1]), torch.tensor([8, 0, 3])
    assert torch.allclose(network(z[rows], y[sections], x), whole[rows][:, sections], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_non_negative_field_is_never_below_zero_and_the_same_where_density_is_high(kind):
    free, bent = field(kind), field(kind, non_negative=True)
    with torch.no_grad():
        free.last.weight *= 5 / free(*grid_axes(SHAPE)).std()
        free.last.bias -= free(*grid_axes(SHAPE)).mean()
    bent.load_state_dict(free.state_dict())
    density, values = (network(*grid_axes(SHAPE)).detach() for network in (free, bent))
    assert float(density.min()) < -1 and float(density.max()) > 1
    assert float(values.min()) >= 0
    clear = density.abs() > 0.5
    assert torch.allclose(values[clear], density[clear].clamp_min(0), atol=1e-3)


def test_a_lattice_of_one_voxel_interpolates_nothing_at_the_voxels_and_linearly_between():
    network = LatticeField(SHAPE, strides=(1,), features=1)
    axes = grid_axes(SHAPE)
    at_voxels = network._read(network.lattices[0], 1, axes)
    assert torch.equal(at_voxels, network.lattices[0])
    z, y, x = axes
    between = network._read(network.lattices[0], 1, (z, y, (x[:-1] + x[1:]) / 2))
    assert torch.allclose(between, (at_voxels[..., :-1] + at_voxels[..., 1:]) / 2, atol=1e-6)


def test_a_coarse_lattice_reproduces_a_linear_function():
    network = LatticeField(SHAPE, strides=(4,), features=1)
    lattice = network.lattices[0].detach()
    lattice[:] = sum(torch.arange(size).reshape(shape) * 4.0 for size, shape in zip(
        lattice.shape[1:], ((1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1)), strict=True))  # fmt: skip
    read = network._read(lattice, 4, grid_axes(SHAPE))[0]
    z, y, x = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    assert np.allclose(read.numpy(), z + y + x, atol=1e-4)


def test_lattices_finer_than_the_binning_do_not_speak():
    network = field("lattice")
    axes = grid_axes((3, 4, 6), 12, 2)
    network.finest = 2
    before = network(*axes).detach()
    with torch.no_grad():
        network.lattices[-1].add_(1.0)
    assert torch.equal(network(*axes), before)
    network.finest = 1
    assert not torch.allclose(network(*axes), before)


def test_sines_of_sums_are_those_of_the_phase_at_each_voxel():
    slopes, offsets = 800 * torch.rand(5, 3), torch.rand(5)
    z, y, x = grid_axes((5, 6, 7))
    sine, cosine = product_sines(slopes, offsets, z, y, x)
    places = torch.stack(torch.meshgrid(z, y, x, indexing="ij"), -1).double()
    phase = places.flip(-1) @ slopes.double().T + offsets.double()
    assert torch.allclose(sine.double(), phase.sin(), atol=3e-4)
    assert torch.allclose(cosine.double(), phase.cos(), atol=3e-4)


@pytest.mark.parametrize("make", [lambda: SirenField(16, 3, 400.0), lambda: FourierField(16, 2, 100.0)])
def test_neighbouring_voxels_stay_apart_under_mixed_precision(make):
    # 1024 voxels along x: bfloat16 coordinates would give pairs of neighbours one value.
    torch.manual_seed(1)
    network = make()
    axes = grid_axes((1, 1, 1024))
    with torch.autocast("cpu", torch.bfloat16):
        values = network(*axes)[0, 0]
    exact = network(*axes)[0, 0]
    assert float((values - exact).detach().abs().max()) < 0.1 * float(exact.detach().std())

"""The two U-Nets: sizes, numbers of weights, what they start as."""

import pytest
import torch

from cryoden_core.nets.topaz_unet import TopazUNet3d
from cryoden_core.nets.unet3d import UNet3d


def weights(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_a_new_network_returns_exactly_zero():
    torch.manual_seed(0)
    network = UNet3d(features=4, depth=2)
    assert not network(torch.randn(1, 1, 8, 16, 12)).any()
    assert UNet3d(features=4, depth=2, zero_last=False)(torch.randn(1, 1, 8, 8, 8)).any()


def test_shape_is_kept_and_channels_are_as_asked():
    network = UNet3d(2, 3, features=4, depth=2, zero_last=False)
    assert network(torch.randn(2, 2, 8, 12, 16)).shape == (2, 3, 8, 12, 16)
    assert network.multiple == 4


def test_every_weight_of_the_network_learns():
    torch.manual_seed(0)
    network = UNet3d(features=4, depth=2, zero_last=False)
    network(torch.randn(1, 1, 8, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_architecture_makes_the_same_network_again():
    network = UNet3d(features=4, depth=2, base_kernel=5, max_features=6)
    again = UNet3d(**network.architecture)
    again.load_state_dict(network.state_dict())
    assert weights(again) == weights(network)


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_gradients_in_bfloat16_on_the_cpu_are_those_of_float32(slices):
    """Volumes of two slices were given what happened to lie in memory."""
    torch.manual_seed(0)
    network = UNet3d(features=8, depth=1, zero_last=False)
    data = torch.randn(1, 1, 2 * slices, 8, 8)
    gradients = []
    for enabled in (False, True, True):
        rubbish = torch.full((200_000,), 1e3)
        del rubbish
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = network(data)
        output.float().square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for exact, rough, again in zip(*gradients, strict=True):
        assert torch.equal(rough, again)
        assert float((rough - exact).norm()) < 0.25 * float(exact.norm())


def test_features_double_up_to_their_maximum():
    widths = [block.second.out_channels for block in UNet3d(features=4, depth=3, max_features=16).encoder]
    assert widths == [4, 8, 16, 16]


def test_channels_last_gives_the_same_result():
    torch.manual_seed(0)
    network = UNet3d(features=4, depth=1, zero_last=False).eval()
    data = torch.randn(1, 1, 8, 8, 8)
    expected = network(data)
    other = network.to(memory_format=torch.channels_last_3d)(data.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(other, expected, atol=1e-5, rtol=1e-5)


def test_the_published_network_has_the_published_number_of_weights():
    assert weights(TopazUNet3d(48, 5, 7)) == 2_916_337


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 33, 2), (16, 17, 40)])
def test_the_published_network_takes_any_size(shape):
    network = TopazUNet3d(4, 5, 7, top=(8, 4))
    assert network(torch.randn(1, 1, *shape)).shape == (1, 1, *shape)


def test_the_published_network_subtracts_its_input():
    network = TopazUNet3d(4, 2, 3, top=(8, 4))
    torch.nn.init.zeros_(network.top[-1].weight)
    torch.nn.init.zeros_(network.top[-1].bias)
    data = torch.randn(1, 1, 8, 9, 10)
    torch.testing.assert_close(network(data), -data)


def test_the_architecture_makes_the_published_network_again():
    network = TopazUNet3d(4, 3, 5, top=(8, 4))
    TopazUNet3d(**network.architecture).load_state_dict(network.state_dict())

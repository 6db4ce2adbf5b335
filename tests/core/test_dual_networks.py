"""DUAL's networks: sizes, independence of tiles and crops, the model file."""

import numpy as np
import pytest
import torch

from cryoden_core.dual.model import PARTS, DualModel
from cryoden_core.dual.networks import Architecture, TwoHeadedCritic, build_networks, code_shape
from cryoden_core.jobs import JobError
from cryoden_core.models import load_model, save_model
from cryoden_core.nets.unet3d import UNet3d

TINY = Architecture(features=4, depth=1, code_channels=3, patch=16)
VECTOR = Architecture(features=4, depth=1, code="vector", code_channels=5, patch=16)
MEASURED = Architecture(features=4, depth=1, code_channels=3, patch=16, transfer=True)


def model(architecture: Architecture = TINY) -> DualModel:
    torch.manual_seed(0)
    return DualModel.new(architecture, 10.0, {"contrast": {"noisy": "dark", "clean": "bright"}})


@pytest.mark.parametrize("architecture", [TINY, VECTOR])
def test_codes_and_noise_have_the_shapes_they_should(architecture):
    networks = build_networks(architecture)
    volume = torch.randn(2, 1, 16, 16, 16)
    code = networks["encoder"](volume)
    assert tuple(code.shape) == code_shape(architecture, 2, (16, 16, 16))
    assert networks["noise_decoder"](code).shape == volume.shape
    assert networks["simulator"](volume, volume).shape == networks["denoiser"](volume).shape == volume.shape


def test_a_noise_map_can_give_each_voxel_its_own_value():
    networks = build_networks(TINY)
    decoder = networks["noise_decoder"]
    noise = decoder(torch.randn(code_shape(TINY, 1, (16, 16, 16))))[0, 0]
    blocks = noise.reshape(8, 2, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8)
    assert np.linalg.matrix_rank(blocks.detach().numpy(), tol=1e-3) == 8


@pytest.mark.parametrize("architecture", [TINY, VECTOR])
def test_noise_for_a_whole_volume_has_any_size_and_belongs_to_its_seed(architecture):
    made = model(architecture)
    fields = [made.draw_noise((20, 70, 33), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert fields[0].shape == (20, 70, 33) and fields[0].std() > 0
    assert torch.equal(fields[0], fields[1]) and not torch.equal(fields[0], fields[2])


@pytest.mark.parametrize("architecture", [TINY, VECTOR])
def test_simulations_begin_with_the_noise_of_a_tomogram(architecture):
    torch.manual_seed(0)
    networks = build_networks(architecture)
    volume = torch.randn(8, 1, 16, 16, 16)
    noise = networks["noise_decoder"](torch.randn(code_shape(architecture, 8, (16, 16, 16))))
    simulated = networks["simulator"](volume, noise).detach()
    assert 0.7 < float(simulated.std()) < 1.5
    assert 0.2 < np.corrcoef(volume.flatten(), simulated.flatten())[0, 1] < 0.4


@pytest.mark.parametrize(("norm", "alike"), [("none", True), ("rms", True), ("instance", False)])
def test_normalisation_by_voxel_does_not_depend_on_the_crop(norm, alike):
    torch.manual_seed(0)
    network = UNet3d(features=4, depth=1, zero_last=False, norm=norm)
    volume = torch.randn(1, 1, 32, 32, 48)
    whole = network(volume)[..., 12:20]
    part = network(volume[..., :32])[..., 12:20]
    assert torch.allclose(whole, part, atol=1e-5) is alike


def test_critics_score_each_patch_and_each_spectrum():
    critic = TwoHeadedCritic(16, 8)
    spatial, spectral = critic(torch.randn(3, 1, 16, 16, 16))
    assert spatial.shape == (3, 1, 4, 4, 4) and spectral.shape == (3, 1)


def test_bounded_critics_have_layers_of_unit_gain():
    torch.manual_seed(0)
    critic = TwoHeadedCritic(16, 8)
    for _ in range(30):
        critic(torch.randn(2, 1, 16, 16, 16))
    weight = critic.spatial.body[0].weight
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("architecture", [TINY, VECTOR, MEASURED])
def test_a_model_read_back_gives_the_same_volumes(architecture, tmp_path):
    made = model(architecture)
    if architecture.transfer:
        made.simulator.transfer.set(torch.rand(32, 32, 17), torch.rand(32, 32, 17))
    made.save(str(tmp_path / "model.safetensors"))
    read = DualModel.load(str(tmp_path / "model.safetensors"))
    volume = torch.randn(1, 1, 16, 16, 16)
    for part in PARTS:
        given = {"noise_decoder": (made.encoder(volume),), "simulator": (volume, volume)}.get(part, (volume,))
        assert torch.allclose(getattr(made.to("cpu"), part)(*given), getattr(read, part)(*given), atol=1e-5)
    assert (read.voxel_size, read.architecture) == (10.0, architecture)
    assert read.about["contrast"] == {"noisy": "dark", "clean": "bright"}


def test_models_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    path = str(tmp_path / "model.safetensors")
    model().save(path)
    weights, about = load_model(path, "dual")
    save_model(path, weights, {**about, "architecture": {**about["architecture"], "features": 8}})
    with pytest.raises(JobError, match="do not fit this version's networks"):
        DualModel.load(path)
    save_model(path, weights, {**about, "system": "nmsg"})
    with pytest.raises(JobError, match="a model of 'nmsg', not of 'dual'"):
        DualModel.load(path)
    with pytest.raises(JobError, match="does not exist"):
        DualModel.load(str(tmp_path / "absent.safetensors"))

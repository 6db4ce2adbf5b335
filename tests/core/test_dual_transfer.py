"""The filters that DUAL's simulator begins with, against filters that are known."""

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryoden_core.dual.crops import CropSource
from cryoden_core.dual.domains import DomainVolume, Scale
from cryoden_core.dual.networks import Architecture, Simulator, build_networks, code_shape, unstructured_noise
from cryoden_core.dual.transfer import (
    TRANSFER_EDGE,
    Transfer,
    _sharpened,
    _through_window,
    convolve,
    measure_transfer,
    noise_share,
)
from cryoden_core.fourier import frequency_radius, missing_wedge_mask
from cryoden_core.tomogram import HalfDifference

SHAPE, TILTS = (40, 96, 96), (-60.0, 60.0)
RADIUS = frequency_radius(SHAPE)
#: What a tomogram shows of a density (rising with frequency, as contrast transfer does) and its noise.
GAIN = (0.2 + 2 * RADIUS) * np.exp(-((RADIUS / 0.35) ** 4))
COLOUR = 0.6 + RADIUS


def filtered(volume: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.fft.irfftn(np.fft.rfftn(volume) * weights, s=volume.shape).astype(np.float32)


def source(*volumes: np.ndarray) -> CropSource:
    """A domain whose volumes are read as they are."""
    made = [DomainVolume("made.mrc", v, Scale(0.0, 1.0, 1), 10.0, 10.0, v.shape, (0.0, 0.0, 0.0)) for v in volumes]
    return CropSource(made, [((0, 1, 2), ())], clip=False)


def density(seed: int) -> np.ndarray:
    """Small particles: their power reaches to high frequencies."""
    places = np.random.default_rng(100 + seed).random(SHAPE) > 0.998
    volume = ndimage.gaussian_filter(places.astype(np.float32), 0.8, mode="wrap")
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


@pytest.fixture(scope="module")
def domains():
    """Noisy and clean domain of different specimens, and the noisy one's share of signal by frequency."""
    wedge = missing_wedge_mask(SHAPE, *TILTS)
    signals = [filtered(density(seed), GAIN * wedge) for seed in (1, 2)]
    noises = [filtered(np.random.default_rng(s).normal(size=SHAPE), COLOUR * wedge) for s in (1, 2)]
    frequency = np.linspace(0.0, 0.5, 26)
    of_signal, of_noise = (sum(np.abs(np.fft.rfftn(v)) ** 2 for v in volumes) for volumes in (signals, noises))
    shells = [(wedge > 0) & (np.abs(RADIUS - centre) < 0.02) for centre in frequency]
    share = [of_signal[shell].sum() / (of_signal + of_noise)[shell].sum() for shell in shells]
    noisy = source(*(signal + noise for signal, noise in zip(signals, noises, strict=True)))
    return noisy, source(density(3), density(4)), (frequency, np.array(share))


def block_band(low: float, high: float) -> np.ndarray:
    radius = frequency_radius((TRANSFER_EDGE,) * 3)
    return (radius > low) & (radius < high)


def test_filters_are_found_again(domains):
    signal, noise = (weights.numpy() for weights in measure_transfer(*domains, TILTS, seed=0))
    measured = missing_wedge_mask((TRANSFER_EDGE,) * 3, -50, 50) > 0
    radius = frequency_radius((TRANSFER_EDGE,) * 3)
    truth = (0.2 + 2 * radius) * np.exp(-((radius / 0.35) ** 4))
    # Noise is told from signal where it is not a small rest.
    for found, wanted, band in ((signal, truth, (0.1, 0.35)), (noise, 0.6 + radius, (0.25, 0.45))):
        inside = measured & block_band(*band)
        assert np.median(np.abs(found[inside] / wanted[inside] - 1)) < 0.12


def test_a_clean_domain_of_tomograms_is_measured_where_its_views_measure(domains):
    noisy, clean, share = domains
    wedge = missing_wedge_mask(SHAPE, *TILTS)
    seen = source(*(filtered(volume.data, wedge) for volume in clean.volumes))
    whole = measure_transfer(noisy, clean, share, TILTS, 0)[0].numpy()
    inside = (missing_wedge_mask((TRANSFER_EDGE,) * 3, -50, 50) > 0) & block_band(0.1, 0.35)
    same = measure_transfer(noisy, seen, share, TILTS, 0, clean_has_wedge=True)[0].numpy()
    wrong = measure_transfer(noisy, seen, share, TILTS, 0)[0].numpy()
    assert np.median(same[inside] / whole[inside]) == pytest.approx(1, abs=0.06)
    assert np.median(wrong[inside] / whole[inside]) > 1.1


def test_filters_have_the_missing_wedge(domains):
    signal, noise = (weights.numpy() for weights in measure_transfer(*domains, TILTS, seed=0))
    deep = (missing_wedge_mask((TRANSFER_EDGE,) * 3, -72, 72) == 0) & block_band(0.15, 0.45)
    for weights in (signal, noise):
        assert np.mean(weights[deep] ** 2) < 0.05 * np.mean(weights[block_band(0.15, 0.45)] ** 2)


def test_noise_under_a_sharpened_filter_spills_less_into_the_missing_wedge():
    radius = frequency_radius((TRANSFER_EDGE,) * 3)
    measured = _through_window(missing_wedge_mask((TRANSFER_EDGE,) * 3, *TILTS) * (0.6 + radius) ** 2)
    missing = missing_wedge_mask((TRANSFER_EDGE,) * 3, *TILTS) == 0
    as_it_is, sharpened = (_through_window(power)[missing].sum() for power in (measured, _sharpened(measured)))
    assert as_it_is > 1.5 * measured[missing].sum()
    assert measured[missing].sum() < sharpened < 1.25 * measured[missing].sum()


def test_drawn_noise_is_as_strong_as_measured_filters_expect_however_weak_the_decoder():
    architecture = Architecture(features=4, depth=1, code_channels=2, transfer=True)
    decoder = build_networks(architecture)["noise_decoder"]
    with torch.no_grad():
        for weights in decoder.parameters():
            weights *= 0.5
        noise = unstructured_noise(decoder, torch.randn(code_shape(architecture, 2, (16, 16, 16))), architecture)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


def test_details_count_by_how_far_they_stand_out_of_the_noise():
    radius = torch.from_numpy(frequency_radius((16, 16, 16)).astype(np.float32))
    transfer = Transfer(16)
    transfer.set(torch.ones_like(radius), 1 + 9 * (radius > 0.25))
    volume = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfftn(transfer.above_noise(volume)[0, 0]).abs().square().numpy()
    radius = frequency_radius((32, 32, 32))
    coarse, fine = (power[(radius > low) & (radius < high)].mean() for low, high in ((0.05, 0.18), (0.32, 0.45)))
    assert coarse > 10 * fine


def test_an_untrained_simulator_makes_noise_of_the_tomograms_spectrum(domains):
    torch.manual_seed(0)
    simulator = Simulator(Architecture(features=4, depth=1, transfer=True))
    torch.nn.init.zeros_(simulator.network.last.weight)
    simulator.transfer.set(*measure_transfer(*domains, TILTS, seed=0))
    noisy, clean = domains[0].volumes[0][:, :, :], torch.from_numpy(domains[1].volumes[0][:, :, :])[None, None]
    with torch.no_grad():
        made = simulator(clean, torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)))[0, 0].numpy()
    powers = [np.abs(np.fft.rfftn(values)) ** 2 for values in (noisy, made)]
    inside = missing_wedge_mask(SHAPE, -55, 55) > 0
    for low in np.arange(0.05, 0.45, 0.05):
        shell = inside & (low <= RADIUS) & (low + 0.05 > RADIUS)
        assert powers[1][shell].mean() == pytest.approx(powers[0][shell].mean(), rel=0.25)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_how_much_of_the_signal_is_shown_is_told_in_noise(domains, strength):
    transfer = Transfer()
    transfer.set(*measure_transfer(*domains, TILTS, seed=0))
    random = torch.Generator().manual_seed(0)
    clean = domains[1].draw(64, 16, random)
    noise = torch.randn(clean.shape, generator=random)
    made = strength * convolve(clean, transfer.signal) + convolve(noise, transfer.noise)
    assert float(transfer.shown(made, clean)) == pytest.approx(strength, abs=0.05)


def test_a_filter_is_a_convolution_with_mirrored_faces():
    sigma, edge = 1.5, 32
    weights = np.exp(-2 * (np.pi * sigma * frequency_radius((edge,) * 3)) ** 2).astype(np.float32)
    volume = np.random.default_rng(0).normal(size=(40, 48, 44)).astype(np.float32)
    found = convolve(torch.from_numpy(volume)[None, None], torch.from_numpy(weights))[0, 0].numpy()
    assert np.abs(found - ndimage.gaussian_filter(volume, sigma, mode="mirror", truncate=6)).max() < 2e-3
    small = torch.from_numpy(volume[:10, :12, :16].copy())[None, None]
    near = convolve(small, torch.from_numpy(weights))[0, 0].numpy()
    assert np.abs(near - ndimage.gaussian_filter(volume[:10, :12, :16], sigma, mode="mirror")).max() < 0.02


def test_thin_volumes_are_measured_on_smaller_blocks(domains):
    thin = [source(*(volume.data[8:26] for volume in domain.volumes)) for domain in domains[:2]]
    signal, _ = (weights.numpy() for weights in measure_transfer(*thin, domains[2], TILTS, seed=0))
    whole = measure_transfer(*domains, TILTS, seed=0)[0].numpy()
    assert signal.shape == whole.shape
    inside = (missing_wedge_mask((TRANSFER_EDGE,) * 3, -50, 50) > 0) & block_band(0.12, 0.28)
    assert np.median(np.abs(signal[inside] / whole[inside] - 1)) < 0.15


def test_padding_is_not_taken_for_the_noise_of_a_tomogram(domains):
    data = domains[0].volumes[0].data
    padded = np.pad(data, ((0, 0), (32, 32), (0, 0)), constant_values=float(data.mean()))
    inside = np.zeros(padded.shape, bool)
    inside[:, 32:-32] = True
    plain, _ = noise_share(data, None, TILTS)
    cut, _ = noise_share(padded, None, TILTS, inside)
    assert np.allclose(plain[1], cut[1])


def test_a_denoised_volume_is_not_taken_for_noise():
    # Next to nothing is left of its high frequencies, and of that next to nothing is noise.
    random = np.random.default_rng(0)
    volume = density(1)
    volume[:, :, 60:] = 0
    noise = 0.02 * random.normal(size=SHAPE)
    fine = frequency_radius(SHAPE) > 0.3
    volume += filtered(volume, fine * 0.05) + filtered(noise, (~fine).astype(float))
    (frequency, share), _ = noise_share(volume.astype(np.float32), None, TILTS)
    assert share[frequency < 0.2].mean() < 0.5


def test_halves_tell_how_much_is_noise():
    signal, rng = 0.7 * density(5), np.random.default_rng(3)
    even, odd = (signal + filtered(rng.normal(size=SHAPE), COLOUR) for _ in range(2))
    (frequency, share), sure = noise_share((even + odd) / 2, HalfDifference(even, odd), (-90.0, 90.0))
    assert sure
    truth = np.abs(np.fft.rfftn((even + odd) / 2 - signal)) ** 2
    whole = np.abs(np.fft.rfftn((even + odd) / 2)) ** 2
    for at in (0.08, 0.15, 0.25):
        shell = np.abs(RADIUS - at) < 0.03
        assert np.interp(at, frequency, share) == pytest.approx(truth[shell].sum() / whole[shell].sum(), abs=0.15)


def test_the_filters_in_use_are_those_that_were_set_last():
    random = torch.Generator().manual_seed(0)
    first, second, third = (
        [0.1 + torch.rand(8, 8, 5, generator=random) for _ in range(2)] for _ in range(3)
    )  # fmt: skip
    volumes = [torch.randn(2, 1, 12, 10, 14, generator=random) for _ in range(2)]
    larger = [torch.randn(1, 1, 16, 16, 16, generator=random) for _ in range(2)]

    def check(transfer: Transfer, signal: torch.Tensor, noise: torch.Tensor) -> None:
        for clean, drawn in (volumes, volumes, larger, volumes):
            seen, coloured = transfer(clean, drawn)
            assert torch.equal(seen, convolve(clean, signal))
            assert torch.equal(coloured, convolve(drawn, noise))
            new = Transfer(8)
            new.set(signal, noise)
            assert torch.equal(transfer.shown(drawn, clean), new.shown(drawn, clean))

    transfer = Transfer(8)
    check(transfer, *(torch.ones(8, 8, 5) for _ in range(2)))
    transfer.set(*first)
    check(transfer, *first)
    other = Transfer(8)
    other.set(*second)
    transfer.load_state_dict(other.state_dict())
    check(transfer, *second)
    twin = copy.deepcopy(transfer)
    transfer.set(*first)
    twin.set(*third)
    check(transfer, *first)
    check(twin, *third)
    # A moving average goes towards the filters in place.
    transfer.state_dict()["signal"].lerp_(third[0], 0.5)
    check(transfer, first[0].lerp(third[0], 0.5), first[1])
    check(transfer.double().float(), first[0].lerp(third[0], 0.5), first[1])
    transfer.to("meta").to_empty(device="cpu").set(*second)
    check(transfer, *second)
    assert set(transfer.state_dict()) == {"signal", "noise"}

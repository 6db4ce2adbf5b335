"""The studies of ``dual_quality.py`` beyond denoising: simulations, the missing wedge, and invented particles.

- simulation: tomograms of the clean densities against the real ones, beside the two halves of the real ones, the map
  with white noise, and the map with noise of the measured spectrum; how different draws are, and how strong their noise
  is against the real one; what noise is found in a tomogram; whether the noise travels through its code; whether
  simulations show their maps more plainly than tomograms do.
- wedge: what ``dual wedge`` puts into the missing wedge of the test tomogram, as it is and denoised by DUAL, against
  the density; what DUAL's denoiser puts there; and the self-test of the paper.
- hallucination: what each denoiser makes of the test tomogram's noise alone, of its phases randomised and of its
  voxels shuffled.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from dual_data import CHOOSING, CLEAN, NOISY, TEST, TILT_LIMIT, VOXEL_SIZE, computing, once, quietly, training_figures

from cryoden_core import metrics, mrc
from cryoden_core.evaluation import hallucination as judging
from cryoden_core.evaluation import realism, steganography
from cryoden_core.evaluation import wedge as wedge_judging
from cryoden_core.fourier import radial_power_spectrum
from cryoden_core.jobs import (
    DualConvertJob,
    DualEncodeNoiseJob,
    DualSimulateJob,
    DualWedgeJob,
    EvaluateHallucinationJob,
    EvaluateRealismJob,
    EvaluateWedgeJob,
    RunFolder,
)

if TYPE_CHECKING:
    from dual_quality import Bench

#: Draws of one map, to see how different they are.
DRAWS = 3
#: Draws whose noise is looked at pair by pair.
NOISE_DRAWS = 16
#: Methods whose inventions are counted, where they are among the methods asked for.
JUDGED = ("nmsg", "dual", "dual_free")


def simulation(bench: Bench) -> None:
    """Print the tables of the simulations of every seed."""
    for seed in bench.options.seeds:
        print(f"DUAL, {bench.options.preset}, seed {seed}\n")
        result = once(
            bench.path("simulation", f"realism_{bench.training(seed)}.json"),
            partial(_realism, bench, seed),
            bench.options.redo,
        )
        print(realism.format_table(result))
        found = once(
            bench.path("simulation", f"hidden_{bench.training(seed)}.json"),
            partial(_hidden, bench, seed),
            bench.options.redo,
        )
        own, wrong, without = (found["wrong_noise"][name] for name in ("own", "wrong", "without"))
        print(f"the test tomogram made again: own noise {own:.3f}, another's {wrong:.3f}, none {without:.3f}")
        signal, real, ratio = (found["signal"][name] for name in ("simulated", "real", "ratio"))
        print(f"correlation with the map: simulation {signal:.3f}, tomogram {real:.3f}, ratio {ratio:.2f}")
        print(f"cycle gap {found['cycle_gap']:.3f}")
        noise = once(
            bench.path("simulation", f"noise_{bench.training(seed)}.json"),
            partial(_noise, bench, seed),
            bench.options.redo,
        )
        print("; ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in noise.items()))
        figures = training_figures(bench.trained[seed])["figures"]
        print("last check of the training: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))


def _simulate(bench: Bench, seed: int, source: str, output: str, **parameters: Any) -> list[str]:
    job = {"input": source, "output": output, "model": bench.trained[seed], "seed": seed, **parameters}
    return quietly(DualSimulateJob.from_parameters({**job, **computing(bench.options)}))["outputs"]


def _convert(bench: Bench, seed: int, source: str, output: str) -> str:
    job = {"input": source, "output": output, "model": bench.trained[seed], "to": "clean"}
    return quietly(DualConvertJob.from_parameters({**job, **computing(bench.options)}))["output"]


def _realism(bench: Bench, seed: int) -> dict[str, Any]:
    """Simulations of the clean densities against the tomograms that were trained on."""
    draws: list[str] = []
    simulated = []
    for index in CLEAN:
        output = bench.path("simulation", f"{bench.training(seed)}_{index}.mrc")
        written = _simulate(bench, seed, bench.models[index].file("density"), output, draws=1 if draws else DRAWS)
        draws = draws or written
        simulated.append(written[0])
    return quietly(EvaluateRealismJob.from_parameters({
        "real": [bench.models[index].file("tomogram") for index in NOISY], "simulated": simulated, "draws": draws,
        "clean": [bench.models[index].file("truth") for index in CLEAN],
        "real_clean": [bench.models[index].file("truth") for index in NOISY],
        "tilt_min": -TILT_LIMIT, "tilt_max": TILT_LIMIT, "network_steps": bench.options.network_steps,
    }))  # fmt: skip


def _hidden(bench: Bench, seed: int) -> dict[str, Any]:
    """Where the noise of a tomogram goes, and whether simulations are easier to denoise than tomograms."""
    test, other = bench.models[TEST], bench.models[CHOOSING]

    def path(name: str) -> str:
        return bench.path("simulation", f"{bench.training(seed)}_{name}.mrc")

    denoised = _convert(bench, seed, test.file("tomogram"), path("denoised"))
    noise: dict[str, dict[str, Any]] = {
        "own": {"noise_from": test.file("tomogram")}, "wrong": {"noise_from": other.file("tomogram")},
        "without": {"noise": 0.0},
    }  # fmt: skip
    made = {
        name: mrc.read_volume(_simulate(bench, seed, denoised, path(name), **parameters)[0])
        for name, parameters in noise.items()
    }
    simulated = _simulate(bench, seed, test.file("density"), path("test"))[0]
    again = _convert(bench, seed, simulated, path("again"))
    density, tomogram = test.volume("density"), test.volume("tomogram")
    return {
        "wrong_noise": steganography.wrong_noise(tomogram, made["own"], made["wrong"], made["without"]),
        "cycle_gap": steganography.cycle_gap(density, mrc.read_volume(again), density, mrc.read_volume(denoised)),
        "signal": steganography.effective_signal(
            mrc.read_volume(simulated), test.volume("truth"), tomogram, test.volume("truth")
        ),
    }


def _noise(bench: Bench, seed: int) -> dict[str, float]:
    """What noise is found in the test tomogram, and what noise many simulations of its density have."""
    test, stem = bench.models[TEST], bench.path("simulation", f"{bench.training(seed)}_noise")
    job = {"input": test.file("tomogram"), "output": stem + ".mrc", "model": bench.trained[seed]}
    encoded = quietly(DualEncodeNoiseJob.from_parameters({**job, **computing(bench.options)}))
    written = _simulate(bench, seed, test.file("density"), stem + "_draw.mrc", draws=NOISE_DRAWS)
    draws = [metrics.standardised(mrc.read_volume(path)) for path in written]
    apart = realism.diversity(draws)
    mean, sd = np.mean(draws, axis=0), test.volume("tomogram").std()
    power = np.mean([radial_power_spectrum(draw - mean)[1] for draw in draws], axis=0) * len(draws) / (len(draws) - 1)
    frequency, real = radial_power_spectrum((test.volume("tomogram") - test.volume("noise_free")) / sd)
    ratio = np.log(power / real)[(frequency > 0.02) & (frequency < 0.45)]
    for path in written:
        os.remove(path)
    return {
        **{name: encoded[name] for name in ("noise_sd", "drawn_sd", "correlation", "correlation_of_means")},
        **{name: apart[name] for name in ("residual_expected", "residual_departure")},
        "residual_power_ratio": float(np.exp(ratio.mean())),
        "residual_power_log_distance": float(np.abs(ratio).mean()),
    }


def wedge(bench: Bench) -> None:
    """Print what each way to fill the missing wedge of the test tomogram is worth."""
    specimen, seed = bench.specimen, bench.options.seeds[0]
    tomogram = specimen.file("tomogram")
    sources = {"the tomogram": ("", tomogram)}
    if "dual" in bench.options.methods:
        denoised = bench.denoised_file("dual", seed, specimen)
        sources["the tomogram denoised by DUAL"] = ("_" + bench.training(seed), denoised)
        print("`dual denoise`, which fills the wedge with its network's output:\n")
        found = once(
            bench.path("wedge", f"{bench.training(seed)}.json"),
            partial(_judge_wedge, denoised, tomogram, specimen.file("truth")),
            bench.options.redo,
        )
        print(wedge_judging.format_table(found) + "\n")
    for name, (suffix, source) in sources.items():
        print(f"`dual wedge`, preset {bench.options.wedge_preset}, on {name}:\n", flush=True)
        stem = bench.path("wedge", f"filled_{bench.options.wedge_preset}{suffix}")
        found = once(stem + ".json", partial(_fill_wedge, bench, source, stem + ".mrc"), bench.options.redo)
        print(wedge_judging.format_table(found) + "\n", flush=True)


def _fill_wedge(bench: Bench, source: str, output: str) -> dict[str, Any]:
    job = {
        "input": source, "output": output, "tilt_min": -TILT_LIMIT, "tilt_max": TILT_LIMIT,
        "preset": bench.options.wedge_preset, "steps": bench.options.wedge_steps, **computing(bench.options),
    }  # fmt: skip
    quietly(DualWedgeJob.from_parameters(job))
    self_test = {"self_test": os.path.splitext(output)[0] + "_self_test.mrc", "job": RunFolder.beside(output).job}
    return _judge_wedge(output, source, bench.specimen.file("truth"), **self_test)


def _judge_wedge(filled: str, source: str, truth: str, **parameters: Any) -> dict[str, Any]:
    given = {"compensated": filled, "input": source, "truth": truth, "tilt_min": -TILT_LIMIT, "tilt_max": TILT_LIMIT}
    return quietly(EvaluateWedgeJob.from_parameters({**given, **parameters}))


def hallucination(bench: Bench) -> None:
    """Print what is found in denoised volumes that hold nothing."""
    from dual_quality import best_sigma, true_particles

    specimen = bench.specimen
    empty = bench.path("hallucination", "empty.mrc")
    mrc.write_volume(empty, specimen.volume("tomogram") - specimen.volume("noise_free"), VOXEL_SIZE)
    sigma = best_sigma(bench)
    for name, method, seed in bench.rows():
        if method not in JUDGED:
            continue
        output, _ = bench.denoised(method, seed, specimen)
        stem = os.path.basename(os.path.splitext(output)[0])
        given = {
            "tomogram": specimen.file("tomogram"), "controls": bench.path("hallucination", stem, "x")[:-2],
            "job": RunFolder.beside(output).job, "empty": empty, "sigma": sigma, "exclusion": 3 * sigma,
            "count": true_particles(specimen),
        }  # fmt: skip
        found = once(
            bench.path("hallucination", stem + ".json"),
            partial(_hallucination, given), bench.options.redo,
        )  # fmt: skip
        print(f"{name}\n\n{judging.format_table(found)}\n", flush=True)


def _hallucination(given: dict[str, Any]) -> dict[str, Any]:
    return quietly(EvaluateHallucinationJob.from_parameters(given))

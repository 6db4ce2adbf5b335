"""What the presets of the reconstruction by a coordinate network stand for.

What the choices rest on, all measured after the best gain and offset, on one CPU thread.

Hollow spheres of 128 x 128 x 32 voxels, 60 exact views over -60 to 60 degrees (PSNR in dB, SSIM of xz slices,
correlation with the truth in the missing wedge, seconds of the fit):

====================================================  =====  =====  =====  =======
back-projection with a ramp                            26.5  0.526  0.388
SIRT, 200 iterations                                   27.1  0.630  0.480        4
SIRT, 200 iterations, non-negative                     32.7  0.984  0.915        4
lattice without penalties, 20 passes                   26.2  0.597  0.420        4
lattice without penalties, 60 passes                   29.8  0.739  0.809
lattice, sparsity 1, 60 passes (``default``)           34.4  0.986  0.960       14
lattice, total variation 1, 60 passes                  30.9  0.974  0.863       13
lattice, non-negative, sparsity 1, 60 passes           34.8  0.984  0.971       14
lattice, non-negative, no sparsity, 60 passes          35.4  0.990  0.970       14
sines 128 x 4, sparsity 1, 60 passes (``best``)        35.5  0.989  0.968      120
sines 64 x 3 without penalties, 20 passes              24.1  0.373  0.324       16
====================================================  =====  =====  =====  =======

So the network alone fills much of the wedge of small sparse objects when it is fitted long, and more when sparsity is
asked for as well.  The lattice comes near the sines at a ninth of the time.  A learning rate of 2e-2 or a moving
average of 0.95 change the lattice's result by 0.2 dB or less; taking off what lies outside costs 0.2 dB where nothing
does.

Packed phantom with an uncorrected transfer function, 48 x 128 x 128 voxels, 41 views (correlation with the density,
frequency of an FSC of 0.5 in cycles per voxel): at a signal-to-noise ratio of the projections of 0.1, SIRT(20) has 0.30
and 0.204, the lattice with sparsity 1 and total variation 1 has 0.71 and 0.250; at 1, SIRT(20) has 0.58 and 0.312, the
lattice with sparsity 1 has 0.61 and 0.317, with a total variation of 0.3 as well, which is chosen there, 0.69 and
0.334.  Sines of 128 x 4 with the same penalties have 0.74 but only 0.229 after 10 passes.  Too much of both blurs
(2 and 2 at 1: 0.82 but 0.273).

In a crowded cell the grey level of most pixels is not that of solvent, and sparsity pulls towards it.  Macromolecules
on a quarter of 48 x 96 x 96 voxels, with an uncorrected transfer function (correlation with the density and with the
noise-free back-projection, frequency of an FSC of 0.5 with the density, error on held-out views), at a signal-to-noise
ratio of 0.5 on the left, without noise on the right:

=============================  =====  =====  =====  =====  =====  =====  =====  =====
SIRT, 20 iterations            0.525  0.689  0.289         0.738  0.966  0.378
no penalties                   0.620  0.744  0.261  0.942  0.716  0.973  0.378  0.129
sparsity 0.3                   0.439  0.612  0.283  0.941  0.733  0.975  0.382  0.124
sparsity 1                     0.509  0.676  0.290  0.935  0.723  0.941  0.365  0.174
total variation 0.3            0.513  0.689  0.286  0.935  0.765  0.972  0.387  0.139
sparsity 1, variation 0.3      0.609  0.765  0.295  0.923  0.756  0.941  0.367  0.206
sparsity 1, variation 1        0.695  0.780  0.288  0.922  0.776  0.894  0.352  0.293
=============================  =====  =====  =====  =====  =====  =====  =====  =====

So a sparsity of 1 harms there without noise, and held-out views know: of the four strengths among which they choose,
they take the weakest here without noise, the strongest with noise, and (1, 0) for the spheres.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One way to fit a network.

    Attributes
    ----------
    field, width, depth, first_frequency
        See :func:`cryoden_core.mlp.fields.make_field`.
    rate
        Learning rate.
    start, start_iterations, start_passes
        What the network is fitted to first, iterations when that is SIRT, and for how many passes.
    passes
        Times that every section is visited, all binnings together.
    sections
        In a step; 0 makes it an eighth of all.
    loss, crowther_weight
        See :mod:`cryoden_core.mlp.losses`.
    penalties
        Pairs of weights (sparsity, total variation), growing, among which views that are held out choose; the first
        is taken where none are.
    """

    field: str = "lattice"
    width: int = 32
    depth: int = 1
    first_frequency: float = 30.0
    rate: float = 1e-2
    start: str = "sirt"
    start_iterations: int = 20
    start_passes: int = 3
    passes: int = 60
    sections: int = 0
    loss: str = "l2"
    crowther_weight: float = 0.05
    penalties: tuple[tuple[float, float], ...] = ((0.3, 0.0), (1.0, 0.0), (1.0, 0.3), (1.0, 1.0))


PRESETS = {
    "fast": Preset(passes=20),
    "default": Preset(),
    "best": Preset(field="siren", width=128, depth=4, first_frequency=50.0, rate=1e-3, start_passes=10, sections=16),
    "paper": Preset(
        field="siren", width=256, depth=5, first_frequency=30.0, rate=1e-3, start="none", start_passes=0, passes=500,
        sections=16, loss="l1", crowther_weight=0.0, penalties=((0.0, 0.0),),
    ),
}  # fmt: skip

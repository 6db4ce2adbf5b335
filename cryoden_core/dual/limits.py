"""The limits beyond which a figure of DUAL's training is an alarm.

The figures are computed in :mod:`cryoden_core.dual.alarms`; the limits stand here, without torch and in Python 3.8,
because Scipion's viewer draws them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alarm:
    """A limit for one figure: ``sign`` 1 where more is worse, -1 where less is.

    ``title`` says in a few words what the figure is, ``meaning`` begins the sentence that says what is wrong.
    """

    figure: str
    title: str
    sign: int
    limit: float
    meaning: str

    def rings(self, value: float) -> bool:
        """Whether the figure is beyond the limit."""
        return self.sign * value > self.sign * self.limit

    def sentence(self, value: float) -> str:
        """What is wrong, in one line."""
        return "%s (%s %.2f, limit %g)." % (self.meaning, self.figure.replace("_", " "), value, self.limit)


ALARMS = (
    Alarm("code_leak", "structure in the noise code", 1, 0.15,
          "structure of the tomogram travels through the noise code"),
    Alarm("noise_sd", "strength of the noise", -1, 0.02, "the noise branch is dead: it makes no noise"),
    Alarm("diversity", "likeness of two simulations", 1, 0.9,
          "simulations of one volume are all alike: the noise is not used"),
    Alarm("own_minus_wrong_noise", "gain by a tomogram's own noise", -1, 0.05,
          "the noise of a tomogram is hidden in its denoised volume"),
    Alarm("cycle_gap", "clean cycle better than the truth by", 1, 0.4,
          "simulations hold the clean volume better than tomograms do"),
    Alarm("divergence", "noise codes, distance from normal", 1, 50.0,
          "the noise codes are far from the normal distribution"),
    Alarm("denoised_sd", "spread of denoised volumes", -1, 0.1, "the denoised volume has collapsed to a constant"),
    Alarm("shift", "shift by the denoiser (voxels)", 1, 0.5, "the denoiser moves its input"),
    Alarm("same_contrast", "contrast, denoised like noisy", -1, 0.0, "the denoiser inverts the contrast"),
)  # fmt: skip

"""Reconstruction of tilt series with a coordinate network (Van Veen et al., Int. J. Mol. Sci. 25:5473, 2024).

The form and the outputs; the method itself is the core's.
"""

from typing import Any, Dict, List, Sequence

from pyworkflow import BETA
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import BooleanParam, Form, PointerParam
from pyworkflow.utils import Message
from tomo.objects import SetOfTiltSeries, SetOfTomograms, Tomogram

from cryoden_core import __version__ as CORE_VERSION
from cryoden_core.jobs import JobError, MlpJob

from ..constants import IN_TS_SET, OUTPUT_FAILED, OUTPUT_TOMOGRAMS
from ..estimate import LONG_SECONDS, estimate_mlp
from ..forms import add_job_param, add_job_params, at_most, job_settings
from ..tilt_series import HALVES_STACKS, mlp_job, reconstructed_tomogram, tilt_series_problems
from .protocol_streaming import ProtCryodenStreaming
from .texts import describe_time

#: What the form lays out, in its order: parameter of the job, label, more help.
GEOMETRY = (
    ("thickness", "Tomogram thickness", "As in IMOD, before binning; the wand converts from nanometres. Too thin a "
     "tomogram squeezes the specimen into it, too thick a one costs time."),
    ("width", "Tomogram width", "As in IMOD, before binning."),
    ("binning", "Binning", "The tomogram's sampling rate is multiplied by it; time falls with its third power."),
    ("angle_offset", "Tilt angle offset"),
    ("tilt_axis_shift", "Tilt axis offset"),
    ("x_shift", "Shift along x"),
    ("z_shift", "Shift along z"),
    ("flip_tilt_sign", "Change the sign of the tilt angles?", "Sign and offset of the angles do not show in how well a "
     "reconstruction fits its images: only a comparison with a known tomogram tells."),
)  # fmt: skip
METHOD = (
    ("preset", "Preset", "\n*fast*: for a first look or for the CPU.\n*default*: the one to start with.\n*best*: "
     "several times longer, the published kind of network.\n*paper*: the published network and start, for comparison; "
     "very slow."),
    ("non_negative", "No density below zero?", "A strong help where it is true, as for simulated densities. Images of "
     "a microscope have fringes below zero: leave it off for them."),
    ("beads", "Gold beads", "Better still, erase them before (IMOD's bead eraser)."),
    ("ensemble", "Networks to average", "2 to 4 make noisy tomograms a little better; time grows in proportion."),
)  # fmt: skip
EXPERT = (
    ("field", "Network"),
    ("start", "Fit first to"),
    ("loss", "Difference from the images"),
    ("passes", "Passes at most"),
    ("held_out", "Choose passes and penalties with views held out?"),
    ("crowther_weight", "Weight of the missing-wedge penalty"),
    ("sparsity", "Weight of the density's magnitude"),
    ("total_variation", "Weight of the total variation"),
    ("background", "Background of the images"),
    ("fit_views", "Fit an offset and a gain for each view?"),
    ("preview_every", "Passes between two previews"),
    ("max_memory", "Memory limit"),
    ("slices", "Sections in a step"),
    ("seed", "Seed"),
)


class ProtCryodenMlpReconstruct(ProtCryodenStreaming):
    """
    Reconstructs tomograms from tilt series by fitting a coordinate network to the images: a network that gives the
    density at each position is changed until its projections agree with the images. Where the images do not say, in
    the missing wedge, its own smoothness and the penalties decide.

    What goes in: a set of tilt series, as imported or after IMOD's alignment. An alignment that is stored with the
    images is applied on the way, in one interpolation; excluded images are left out; material beside the field of
    view is accounted for.

    What you get: a set with one tomogram for each tilt series, where IMOD's own reconstruction would lie, with the
    same orientation (tilt axis along y, beam along z). With halves, two more from independent data, for the FSC, for
    denoising with NMSG or for cryoCARE. Tilt series that could not be processed are in a set of their own, and the
    summary says why. *Analyze results* shows slices beside a weighted back-projection, the residual of each image,
    the FSC of the halves and the power spectrum.

    What it does not do: it does not align, does not correct the CTF and does not know local warping. Whatever it puts
    into the missing wedge is a guess that agrees with the images, not a measurement. Average subtomograms from the
    weighted back-projection.

    How long: about half a minute per million voxels on two CPU cores with the default preset, so bin before; on a
    current GPU very much less. If a run is stopped, *Continue* goes on from its last checkpoint.
    """

    _label = "reconstruct tomograms (MLP)"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_TOMOGRAMS: SetOfTomograms, OUTPUT_FAILED: SetOfTiltSeries}

    INPUT = IN_TS_SET

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form: Form) -> None:
        self._defineComputeParams(form)
        form.addSection(label=Message.LABEL_INPUT)
        form.addParam(
            IN_TS_SET,
            PointerParam,
            pointerClass="SetOfTiltSeries",
            important=True,
            label="Tilt series",
            help="Aligned tilt series, with the alignment stored (imported from IMOD, or from its fine alignment) or "
            "already applied. CTF-corrected ones give the better tomogram. The set may still be growing.",
        )
        add_job_params(form, MlpJob, GEOMETRY)
        add_job_param(
            form,
            MlpJob,
            "halves",
            "Half tomograms",
            "*stacks* needs tilt series with even and odd frames; *views* takes every second image, so that each half "
            "has twice the tilt step.",
        )
        form.addParam(
            "weighByDose",
            BooleanParam,
            default=False,
            expertLevel=LEVEL_ADVANCED,
            label="Let images of high dose count less?",
            help="Yes where the images were not dose-weighted before and their doses are known.",
        )
        form.addSection(label="Reconstruction")
        add_job_params(form, MlpJob, METHOD)
        self._defineFallbackParam(form)
        add_job_params(form, MlpJob, EXPERT, expertLevel=LEVEL_ADVANCED)
        form.addParallelSection(threads=2, mpi=0)

    # --------------------------- STEPS functions -----------------------------
    def processItem(self, tsId: str) -> None:
        """Write and run the job of one tilt series."""
        folder = self._itemFolder(tsId)
        job = mlp_job(self._inputItem(tsId), folder, self._jobSettings(), self.weighByDose.get())
        self.runCoreJob(job, folder, [job.output, *job.half_outputs()])

    def _outputItem(self, tsId: str) -> Tomogram:
        return reconstructed_tomogram(self._items[tsId], self._itemFolder(tsId), self._jobSettings())

    def _describeOutput(self, output: SetOfTomograms) -> None:
        output.setSamplingRate(self.getInputSet().getSamplingRate() * self.binning.get())

    # --------------------------- INFO functions ------------------------------
    def _validate(self) -> List[str]:
        problems = super()._validate()
        tilt_series = self.getInputSet()
        if tilt_series is None:
            return problems
        try:
            settings = self._jobSettings()
        except JobError as error:
            return [*problems, str(error)]
        found: List[str] = []
        for ts in tilt_series.iterItems():
            found.extend(tilt_series_problems(ts, settings["halves"]))
        return problems + at_most(found, what="tilt series")

    def _warnings(self) -> List[str]:
        tilt_series = self.getInputSet()
        if tilt_series is None:
            return []
        warnings = []
        unaligned = [ts.getTsId() for ts in tilt_series.iterItems() if not ts.hasAlignment() and not ts.interpolated()]
        if unaligned:
            warnings.append(
                "No alignment is known for %s: the images are taken as aligned." % ", ".join(at_most(unaligned))
            )
        if not tilt_series.hasOddEven() and self._jobSettings()["halves"] == HALVES_STACKS:
            warnings.append("The tilt series have no stacks of even and odd frames.")
        seconds = self._estimate(tilt_series)
        if seconds > LONG_SECONDS:
            warnings.append(
                "Expect about %s on %s; time falls with the third power of the binning."
                % (describe_time(seconds), "the GPU" if self.usesGpu() else "the CPU")
            )
        return warnings

    def _estimate(self, tilt_series: SetOfTiltSeries) -> float:
        """Seconds that all tomograms will take, from the sizes of the images."""
        settings = self._jobSettings()
        sizes = [ts.getDim() for ts in tilt_series.iterItems()]
        voxels = [x * y * settings["thickness"] // settings["binning"] ** 3 for x, y, _ in filter(None, sizes)]
        networks = settings["ensemble"] * (1 if settings["halves"] == "none" else 3)
        return estimate_mlp(voxels, settings["preset"], networks, self.usesGpu(), self._concurrentSteps())

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_TOMOGRAMS, None)
        if output is None:
            return []
        settings = self._jobSettings()
        text = (
            "%d tomograms were reconstructed by fitting a coordinate network to the tilt series [VanVeen2024] as "
            "implemented in CryoDen %s (preset %s, thickness %d voxels, binning %d, seed %d)"
            % (
                output.getSize(),
                CORE_VERSION,
                settings["preset"],
                settings["thickness"],
                settings["binning"],
                settings["seed"],
            )
        )
        if settings["ensemble"] > 1:
            text += ", the mean of %d networks" % settings["ensemble"]
        return [text + "."]

    def _citations(self) -> Sequence[str]:
        return ["VanVeen2024"]

    # --------------------------- UTILS functions -----------------------------
    def _jobSettings(self) -> Dict[str, Any]:
        """The form's values as parameters of the job."""
        return dict(job_settings(self, MlpJob), cpu_fallback=self.cpuFallback.get(), threads=self._threadsOfJob())

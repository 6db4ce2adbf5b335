"""Lines for summaries, from the files that a run of the core leaves."""

import re
from typing import Any, Dict, List, Sequence

#: Longest warning that a line of a summary holds; the whole text is in the run's log and files.
LONGEST_WARNING = 160

_FOLDERS = re.compile(r"(?<!\S)/\S*/(?=[^/\s])")
_VOLUME = re.compile(r"\S+\.(mrc|rec|map)")


def describe_progress(progress: Dict[str, Any]) -> str:
    """One line from the content of a ``progress.json``."""
    parts = [str(progress.get("stage") or "starting")]
    if progress.get("total"):
        parts.append("step %d of %d" % (progress.get("step", 0), progress["total"]))
    if progress.get("loss") is not None:
        parts.append("loss %.4g" % progress["loss"])
    if progress.get("eta_seconds") is not None:
        parts.append("%s left" % describe_time(progress["eta_seconds"]))
    return ", ".join(parts)


def describe_result(result: Dict[str, Any]) -> str:
    """One line from the content of a ``result.json``."""
    parts = []
    if result.get("picks") is not None:
        parts.append("%d particles" % result["picks"])
    # Both are measured beyond a third of a cycle per voxel only, where hardly any specimen is.
    before, after = result.get("noise_sd_before"), result.get("noise_sd_after")
    if before is not None and after is not None:
        parts.append("fine-grained noise (standard deviation) %.3g before, %.3g after" % (before, after))
    if result.get("noise_report_passed") is not None:
        parts.append("noise model %s its checks" % ("passed" if result["noise_report_passed"] else "did *not* pass"))
    if result.get("passes") is not None:
        parts.append("%d passes" % result["passes"])
    if result.get("held_out_error") is not None:
        parts.append("error of held-out views %.3f" % result["held_out_error"])
    if result.get("correlation_of_means") is not None:
        parts.append("correlation with the tomogram, coarsely seen, %.2f" % result["correlation_of_means"])
    if result.get("wedge_ratio_before") is not None and result.get("wedge_ratio_after") is not None:
        parts.append(
            "power in the wedge, relative to beside it, %.2f before, %.2f after"
            % (result["wedge_ratio_before"], result["wedge_ratio_after"])
        )
    worst = _worst_view(result)
    if worst:
        parts.append(worst)
    if result.get("seconds") is not None:
        parts.append("took %s" % describe_time(result["seconds"]))
    parts.extend("warning: %s" % _shortened(warning) for warning in condensed(result.get("warnings") or []))
    return "; ".join(parts)


def _worst_view(result: Dict[str, Any]) -> str:
    """The image that the reconstruction explains least, with its residual and the mean of all."""
    residuals = result.get("residual_per_view") or []
    if not residuals:
        return ""
    worst = max(range(len(residuals)), key=residuals.__getitem__)
    numbers = result.get("images") or list(range(1, len(residuals) + 1))
    return "residual per view %.2f on average, %.2f in image %d" % (
        sum(residuals) / len(residuals),
        residuals[worst],
        numbers[worst],
    )


def condensed(warnings: Sequence[str]) -> List[str]:
    """Warnings with file names instead of paths, those that differ in the name of the volume only as one."""
    alike: Dict[str, List[str]] = {}
    for warning in dict.fromkeys(warnings):
        text = _FOLDERS.sub("", warning)
        alike.setdefault(_VOLUME.sub("", text), []).append(text)
    return [
        found[0] if len(found) == 1 else "%s (The same for %d more.)" % (found[0], len(found) - 1)
        for found in alike.values()
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_WARNING else text[: LONGEST_WARNING - 4].rstrip() + " ..."


def describe_time(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return "%d s" % round(seconds)
    if seconds < 5400:
        return "%d min" % round(seconds / 60)
    return "%.1f h" % (seconds / 3600)

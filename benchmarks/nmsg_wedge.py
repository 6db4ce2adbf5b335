"""What ``keep_wedge`` changes: results of ``nmsg_quality.py`` as they are, and with the wedge of the noisy tomogram.

``--out`` is the folder of ``nmsg_quality.py``; nothing in it is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import scoring

from cryoden_core import mrc
from cryoden_core.nmsg.wedge import keep_wedge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder that nmsg_quality.py filled")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.3, 0.1, 0.03], help="voxel SNRs")
    options = parser.parse_args()
    for level in options.levels:
        folder = os.path.join(options.out, f"{level:g}")
        phantom = os.path.join(folder, "phantom")
        with open(os.path.join(phantom, "phantom.json"), encoding="utf-8") as stream:
            limit = json.load(stream)["job"]["parameters"]["tilt_limit"]
        truths = {name: mrc.read_volume(os.path.join(phantom, name + ".mrc")) for name in scoring.TRUTHS}
        noisy = mrc.read_volume(os.path.join(phantom, "tomogram.mrc"))
        denoised = mrc.read_volume(os.path.join(folder, "nmsg_default.mrc"))
        kept, started = denoised.copy(), time.monotonic()
        removed = keep_wedge(kept, noisy, -limit, limit)
        seconds = time.monotonic() - started
        volumes = {"nmsg_default": denoised, "nmsg_default, keep_wedge": kept, "noise-free": truths["noise_free"]}
        rows = {name: scoring.score(volume, truths, 10.0, limit) for name, volume in volumes.items()}
        print(f"\nVoxel SNR {level:g}: {100 * removed:.1f} % of the output's variance removed in {seconds:.1f} s\n")
        print(scoring.table(rows), flush=True)


if __name__ == "__main__":
    main()

"""Pictures of the tutorial: central slices of some volumes side by side, in shades of grey.

``python docs/pictures.py docs/mlp.png "truth=phantom/density.mrc" "MLP=tomogram.mrc"``.  Each has its own contrast.
"""

from __future__ import annotations

import io
import sys

from PIL import Image

from cryoden_core import mrc, mrc_header, report


def main(output: str, *volumes: str) -> None:
    """Draw ``NAME=FILE`` of each of the volumes, which have one shape, into a PNG file."""
    named = dict(volume.split("=", 1) for volume in volumes)
    opened = {name: mrc.open_volume(path) for name, path in named.items()}
    figure = report.comparison_figure(opened, mrc_header.read_header(next(iter(named.values()))).voxel_size)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    # Nothing in them is coloured: greys take a third of the space.
    Image.open(drawn).convert("L").save(output, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""``python -m cryoden_core``: the same as the command ``cryoden``."""

import sys

from .cli import main

sys.exit(main())

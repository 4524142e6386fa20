"""``python -m repro``: the command ``repro``."""

import sys

from repro.cli import main

sys.exit(main())

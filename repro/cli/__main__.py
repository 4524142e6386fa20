"""``python -m repro``, and ``python -m repro.cli``, which launchers call."""

import sys

from repro.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""Python imports this at its start where PYTHONPATH names this folder: the papers gain the tests' toy paper."""

from pathlib import Path

import repro.papers

repro.papers.__path__.append(str(Path(__file__).parent))

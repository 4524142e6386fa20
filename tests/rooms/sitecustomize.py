"""Python imports this at its start where PYTHONPATH names this folder: the papers' rooms gain the tests' toy room."""

from pathlib import Path

import repro.papers

repro.papers.__path__.append(str(Path(__file__).parent))

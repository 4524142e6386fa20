"""multivae's models behind the one interface, and training points in a model's place; nothing else imports multivae.

Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import repro.baselines.lightly  # noqa: F401  (before anything of multivae)

_LAZY = {
    "Baseline": "repro.baselines.models",
    "BaselineSettings": "repro.baselines.models",
    "METHODS": "repro.baselines.models",
    "build_baseline": "repro.baselines.models",
    "build_named": "repro.baselines.named",
    "multivae_fields": "repro.baselines.models",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'repro.baselines' has no attribute {name!r}")

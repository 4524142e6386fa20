"""Training: the loop, its checkpoints, and several processes that share a batch.

Names are imported on first use, so that a run is planned without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LAZY = {
    "NonFiniteLossError": "repro.training.loop",
    "TrainingSettings": "repro.training.loop",
    "TrainingStopped": "repro.errors",
    "default_key": "repro.training.loop",
    "epoch_seed": "repro.training.loop",
    "train": "repro.training.loop",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'repro.training' has no attribute {name!r}")

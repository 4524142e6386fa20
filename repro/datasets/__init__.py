"""Datasets of the four papers: ``load_dataset`` reads a card and returns resident tensors.

Names are imported on first use, so that reading a card needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LAZY = {
    "Dataset": "repro.datasets.base",
    "ModalitySpec": "repro.datasets.base",
    "available": "repro.datasets.registry",
    "hold_out": "repro.datasets.held_out",
    "hold_out_stratified": "repro.datasets.held_out",
    "load_card": "repro.datasets.card",
    "load_dataset": "repro.datasets.registry",
    "specs": "repro.datasets.base",
}

__all__ = [
    "Dataset",
    "ModalitySpec",
    "available",
    "hold_out",
    "hold_out_stratified",
    "load_card",
    "load_dataset",
    "specs",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'repro.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The command ``repro doctor``: what this machine and installation offer."""

from __future__ import annotations

import argparse

import torch

from repro.engine.devices import available_cores
from repro.engine.environment import environment, has_bfloat16
from repro.engine.speed import describe, speed
from repro.engine.store import default_runs_root

__all__ = ["doctor"]


def doctor(options: argparse.Namespace) -> None:
    """Prints versions, device, cores, and how fast they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in environment(device).items():
        print(f"{name:12s} {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    print(f"{'cores':12s} {available_cores()}")
    print(f"{'bfloat16':12s} {'in hardware' if has_bfloat16(device) else 'emulated, slow'}")
    auto = "bfloat16 where a run is planned so" if has_bfloat16(device) else "float32 for every run"
    print(f"{'precision':12s} auto is {auto}, on {device}")
    for line in describe(speed()):
        print(f"{'one core':12s} {line}")
    print(f"{'runs':12s} {default_runs_root().resolve()}")

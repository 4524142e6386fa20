"""What a record says of the machine and of the package that it was measured with."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["environment", "git"]

VERSIONED = ("torch", "numpy", "scipy", "pot", "multivae", "safetensors")


def git(*arguments: str) -> str | None:
    """What a git command prints in the package's checkout, None where there is none."""
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: str) -> dict[str, Any]:
    """Commit, versions, device and threads that a record carries.

    ``dirty`` says whether what determines results (the package, its cards and its lock) differed from the commit; it
    is None outside a checkout.
    """
    import torch

    status = git("status", "--porcelain", "--", "repro", "data_cards", "pyproject.toml", "requirements.lock")
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        try:
            models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
            name = models[0].split(":", 1)[1].strip() if models else name
        except OSError:
            pass  # no such file on this system
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "package": metadata.version("repro") if _installed("repro") else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: metadata.version(name) for name in VERSIONED if _installed(name)},
        "device": device,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

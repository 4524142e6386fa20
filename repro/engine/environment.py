"""What a record says of the machine and of the package that it was measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["bfloat16_units", "cpu_model", "environment", "git", "has_bfloat16"]

CPU_FACTS = Path("/proc/cpuinfo")
VERSIONED = ("torch", "numpy", "scipy", "pot", "multivae", "safetensors")


def git(*arguments: str) -> str | None:
    """What a git command prints in the package's checkout, None where there is none."""
    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model() -> str:
    """The CPU's name, as the system says it."""
    name = platform.processor() or platform.machine()
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no such file on this system
        return name
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)


def bfloat16_units() -> bool:
    """Whether the CPU multiplies in bfloat16, and torch's library of products is not kept from it (oneDNN's limit)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not any(name in limit for name in ("BF16", "FP16", "AMX", "ALL", "DEFAULT", "AVX10")):
        return False
    try:
        flags = CPU_FACTS.read_text(encoding="utf-8")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def has_bfloat16(device: str | None = None) -> bool:
    """Whether a device multiplies in bfloat16 by units of its own.

    Arguments:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``; the GPU if there is one, else the CPU, if None.
    """
    if device is None and bfloat16_units():
        return True  # and so do the GPUs of such machines: torch need not be asked
    if device is not None and not device.startswith("cuda"):
        return bfloat16_units()
    import torch

    # From compute capability 8 on (Ampere); earlier ones emulate it.
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 8


def environment(device: str) -> dict[str, Any]:
    """Commit, versions, device and threads that a record carries.

    ``dirty`` says whether what determines results (the package, its cards and its lock) differed from the commit; it
    is None outside a checkout.
    """
    import torch

    status = git("status", "--porcelain", "--", "repro", "data_cards", "pyproject.toml", "requirements.lock")
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_model()
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

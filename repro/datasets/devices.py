"""Where tensors live, checked before anything is put there."""

from __future__ import annotations

import torch

__all__ = ["as_device"]


def as_device(device: str | torch.device) -> torch.device:
    """A device that torch can use here.

    Arguments:
        device: Such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        ValueError: If there is no such device, in one line.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {str(device)!r}: {' '.join(str(error).split())}") from None
    return place

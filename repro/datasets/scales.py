"""What continuous modalities were standardised by, and the way back to their own units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from repro.datasets.values import as_tensor

__all__ = ["Scales"]

MEAN, DEVIATION = "mean.", "deviation."


class Scales(Mapping[str, tuple[Tensor, Tensor]]):
    r"""Mean and standard deviation of some modalities, value by value.

    .. math:: y = (x - \mu) / \sigma, \qquad x = y \sigma + \mu

    Both ways are computed in double precision, so that a mean far from zero costs no digits.

    Arguments:
        scales: Modality to :math:`\mu` and :math:`\sigma`, each of the shape of a sample and in the data's unit.

    Raises:
        ValueError: If the shapes of a modality differ, a mean is not finite, or a deviation is not positive and finite.
    """

    def __init__(self, scales: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> None:
        self._scales = {m: (mean, deviation) for m, (mean, deviation) in (scales or {}).items()}
        for m, (mean, deviation) in self._scales.items():
            positive = bool(((deviation > 0) & deviation.isfinite()).all())
            if mean.shape != deviation.shape or not positive or not bool(mean.isfinite().all()):
                raise ValueError(f"modality {m!r} needs a finite mean and a positive, finite deviation of one shape")

    @staticmethod
    def of(data: Mapping[str, Tensor]) -> Scales:
        """The scales of samples of shape ``(N, *shape)``; values that are constant are only shifted."""
        scales = {}
        for m, x in data.items():
            deviation = x.double().std(0, correction=0)
            scales[m] = x.double().mean(0), torch.where(deviation > 0, deviation, 1.0)
        return Scales(scales)

    def __getitem__(self, modality: str) -> tuple[Tensor, Tensor]:
        return self._scales[modality]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scales)

    def __len__(self) -> int:
        return len(self._scales)

    def __repr__(self) -> str:
        return f"Scales({', '.join(f'{m}: {tuple(mean.shape)}' for m, (mean, _) in self.items())})"

    def standardised(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values in their own units as a model of standardised data takes them, such as those of new samples.

        Arguments:
            values: Name to values of shape ``(*any, *shape)``, tensors, arrays or data frames; those of modalities
                without a scale stay as they are.

        Raises:
            ValueError: If a value is no real number, or values are not of the modality's shape.
        """
        return {m: self._moved(m, as_tensor(m, x), forth=True) for m, x in values.items()}

    def restored(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """The inverse of :meth:`standardised`: generated values in their own units."""
        return {
            m: self._moved(m, x if isinstance(x, Tensor) else as_tensor(m, x), forth=False) for m, x in values.items()
        }

    def _moved(self, modality: str, x: Tensor, *, forth: bool) -> Tensor:
        if modality not in self:
            return x
        mean, deviation = (v.to(x.device, torch.float64) for v in self[modality])
        shape = tuple(mean.shape)
        if tuple(x.shape[x.ndim - len(shape) :]) != shape:
            raise ValueError(f"modality {modality!r} has shape {tuple(x.shape)}, its scale is of samples of {shape}")
        y = x.double()
        y = (y - mean) / deviation if forth else y * deviation + mean
        return y.to(x.dtype if x.is_floating_point() else torch.float32)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, such as beside a saved model."""
        tensors = {MEAN + m: mean for m, (mean, _) in self.items()}
        tensors |= {DEVIATION + m: deviation for m, (_, deviation) in self.items()}
        Path(path).write_bytes(save({name: x.contiguous().cpu() for name, x in tensors.items()}))

    @staticmethod
    def load(path: str | Path) -> Scales:
        """What :meth:`save` has written.

        Raises:
            ValueError: If there is no such file, or it holds anything else.
        """
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read as scales: {' '.join(str(error).split())}") from None
        names = [name.removeprefix(MEAN) for name in found if name.startswith(MEAN)]
        if set(found) != {part + m for m in names for part in (MEAN, DEVIATION)}:
            raise ValueError(f"{path} holds {sorted(found)}, not the scales of modalities")
        return Scales({m: (found[MEAN + m], found[DEVIATION + m]) for m in names})

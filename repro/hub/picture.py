"""The picture on a model's card: what it draws, as images or as points."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel
from repro.report.plotting import GENERATED, draw_points, new_figure, render, use_style

__all__ = ["samples_picture"]

COLUMNS, POINTS, PANELS = 12, 500, 3
# Pixels between images, and the least height of one.
GAP, HEIGHT = 2, 56
SIZE = 2.0


def samples_picture(model: MultimodalModel, seed: int = 0) -> bytes:
    """Joint samples of a model as a PNG: images, a sample a column and a modality a row, or points of pairs.

    Where a modality is no image, points show the first coordinate of one modality against that of the next, for the
    first pairs. What is drawn are the decoders' means.

    Arguments:
        model: The model, in evaluation mode.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    images = all(s.kind == "image" and len(s.shape) == 3 for s in model.modalities.values())
    samples = model.generate(COLUMNS if images else POINTS, generator=generator)
    return _images(samples, model) if images else _points(samples)


def _images(samples: dict[str, Tensor], model: MultimodalModel) -> bytes:
    rows = [_row(samples[m], spec) for m, spec in model.modalities.items()]
    height = sum(len(r) + GAP for r in rows) - GAP
    sheet = np.full((height, max(r.shape[1] for r in rows), 3), 255, dtype=np.uint8)
    top = 0
    for row in rows:
        sheet[top : top + len(row), : row.shape[1]] = row
        top += len(row) + GAP
    buffer = BytesIO()
    Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _row(images: Tensor, spec: ModalitySpec) -> np.ndarray:
    """Images ``(N, C, H, W)`` side by side, ``(H, N W, 3)``, enlarged by a whole number where they are small."""
    low, high = spec.range or (float(images.min()), float(images.max()))
    scaled = ((images.double() - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    channels = scaled if scaled.shape[1] == 3 else scaled[:, :1].repeat(3, 1)
    factor = max(1, -(-HEIGHT // channels.shape[2]))
    tiles = channels.transpose(0, 2, 3, 1).repeat(factor, 1).repeat(factor, 2)
    return np.concatenate([np.pad(t, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for t in tiles], 1)[:, :-GAP]


def _points(samples: dict[str, Tensor]) -> bytes:
    names = list(samples)
    pairs = list(pairwise(names))[:PANELS]
    with use_style():
        figure = new_figure((SIZE + 0.7) * len(pairs), SIZE + 0.7)
        for axes, (one, two) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            x, y = (samples[m].flatten(1)[:, 0].double().numpy() for m in (one, two))
            both = np.concatenate([x, y])
            margin = 0.05 * max(float(np.ptp(both)), 1e-6)
            draw_points(axes, [(x, y, GENERATED)], (both.min() - margin, both.max() + margin), size=SIZE)
            axes.set(xlabel=one, ylabel=two)
        figure.tight_layout()
    return render(figure, "png", max_bytes=60_000)

"""Contact sheets: some samples of a split, one row a modality, labelled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec
from repro.datasets.card import load_card

__all__ = ["contact_sheet"]

GAP, TITLE, CELL = 4, 16, 96
GROUND, INK, BAR = (215, 215, 215), (0, 0, 0), (70, 110, 170)
WHOLE = "whole"


def contact_sheet(dataset: Dataset, samples: Sequence[int] | None = None, *, columns: int = 12) -> Image.Image:
    """Draws samples side by side, one row a modality, with the class above each column.

    Images are shown as they are, enlarged by a whole number; other modalities as bars over their range. Where the card
    says that components overlay to a whole, that is one more row.

    Arguments:
        dataset: The split.
        samples: Indices of the samples; ``columns`` of them, evenly spread over the split, if None.
        columns: Number of samples where they are not given.

    Raises:
        ValueError: If there is nothing to show, or an index is outside the split.
    """
    if samples is None:
        count = min(columns, len(dataset))
        samples = [n * len(dataset) // count for n in range(count)] if count > 0 else []
    if not samples or not all(0 <= n < len(dataset) for n in samples):
        raise ValueError(f"{dataset.name} {dataset.split}: cannot show samples {list(samples)} of {len(dataset)}")
    shown = [dataset[n] for n in samples]
    rows = {m: [_cell(sample[m], spec) for sample in shown] for m, spec in dataset.modalities.items()}
    if load_card(dataset.name).generation.get("overlay") == "darkest":
        spec = next(iter(dataset.modalities.values()))
        rows = {WHOLE: [_cell(torch.stack(list(sample.values())).amin(0), spec) for sample in shown], **rows}
    font = ImageFont.load_default()
    margin = GAP + max(int(font.getlength(m)) for m in rows) + GAP
    widths = [max(row[c].width for row in rows.values()) for c in range(len(samples))]
    heights = {m: max(cell.height for cell in row) for m, row in rows.items()}
    size = (margin + sum(widths) + GAP * len(samples), 2 * TITLE + sum(heights.values()) + GAP * len(rows))
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 2), f"{dataset.name} · {dataset.split} · {len(dataset):,} samples", INK, font)
    left = margin
    for c, n in enumerate(samples):
        draw.text((left, TITLE + 2), _shortened(_class_of(dataset, n), widths[c], font), INK, font)
        top = 2 * TITLE
        for m, row in rows.items():
            sheet.paste(row[c], (left, top))
            if c == 0:
                draw.text((GAP, top + heights[m] // 2 - 6), m, INK, font)
            top += heights[m] + GAP
        left += widths[c] + GAP
    return sheet


def _class_of(dataset: Dataset, n: int) -> str:
    if dataset.labels is None:
        return f"#{n}"
    names = load_card(dataset.name).labels
    label = int(dataset.labels[n])
    return names[label] if names else str(label)


def _shortened(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-1]
    return text


def _cell(x: Tensor, spec: ModalitySpec) -> Image.Image:
    if len(spec.shape) == 3 and spec.shape[0] in (1, 3):
        low, high = spec.range or (float(x.min()), float(x.max()))
        unit = (x - low) / (high - low) if high > low else torch.zeros_like(x)
        pixels = unit.clamp(0.0, 1.0).mul(255.0).round().byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
        scale = max(1, round(CELL / max(image.size)))
        return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    return _bars(x.reshape(-1), spec)


def _bars(values: Tensor, spec: ModalitySpec) -> Image.Image:
    """Values as bars from zero, or from the lower end of the range; of many values, every k-th."""
    image = Image.new("RGB", (CELL, CELL), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    shown = values[:: -(-len(values) // CELL)].tolist()
    reach = max(map(abs, shown)) or 1.0
    low, high = spec.range or (-reach, reach)
    width = CELL / len(shown)
    base = CELL - 1 - round((max(low, 0.0) - low) / (high - low) * (CELL - 1))
    for k, value in enumerate(shown):
        end = CELL - 1 - round((value - low) / (high - low) * (CELL - 1))
        draw.rectangle((k * width, min(base, end), max(k * width, (k + 1) * width - 1), max(base, end)), BAR)
    return image

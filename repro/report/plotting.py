"""The look of the figures, and their writing as deterministic PDF and PNG files of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

__all__ = [
    "GENERATED",
    "MAX_BYTES",
    "PALETTE",
    "TRUE",
    "draw_points",
    "new_figure",
    "render",
    "use_style",
]

# Okabe and Ito, "Color universal design", 2008: blue, orange, green, vermilion, purple, sky blue, yellow, black.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
GENERATED, TRUE = PALETTE[:2]  # GMRF MCVAE, Figures 2, 5 and 6: true samples in orange, generated ones in blue
MAX_BYTES = 300_000
_DPI = (200, 170, 140, 120, 100, 85, 72)
# No date, and no version of the writing library: the same figure is the same file.
_METADATA = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}


@contextmanager
def use_style() -> Iterator[None]:
    """Applies the package's style inside a ``with`` block and restores the former settings after it.

    Figures take fonts, sizes and colours from the settings both when they are made and when they are written;
    :func:`render` applies the style itself.
    """
    with as_file(files("repro.report").joinpath("style.mplstyle")) as path, mpl.rc_context(fname=path):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure on the Agg canvas, outside pyplot's list of figures and its choice of a backend.

    Arguments:
        width: In inches.
        height: In inches.

    Raises:
        ValueError: If a size is not positive.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"figure size {width} x {height} inches must be positive")
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def draw_points(
    axes: Axes,
    layers: Sequence[tuple[ArrayLike, ArrayLike, str]],
    limits: tuple[float, float],
    *,
    size: float,
    diameter: float = 1.2,
    opacity: float = 0.7,
    dpi: int = 200,
) -> None:
    """Draws layers of points into square axes as one image with as many colours as there are overlaps of layers.

    A scatter plot of many translucent points takes megabytes, as a vector layer for the points' number and as a raster
    one for its shades. Here the points of one layer are a mask, so that few flat colours remain and compress well.

    Arguments:
        axes: The axes; limits and aspect are set.
        layers: Horizontal and vertical values, each of shape ``(N,)``, and the colour of each layer, the lowest first.
        limits: The lowest and highest value on both axes; points outside are not drawn.
        size: Side of the axes in inches.
        diameter: Of a point, in typographic points (1/72 inch).
        opacity: Of a layer over those below; the lowest is opaque.
        dpi: Dots an inch of the image.

    Raises:
        ValueError: If the values of a layer differ in length, or the limits are not increasing.
    """
    low, high = limits
    if not low < high:
        raise ValueError(f"limits {limits} must increase")
    pixels, radius = round(size * dpi), diameter / 72 * dpi / 2
    reach = np.arange(-int(radius), int(radius) + 1)
    dy, dx = (offset.ravel() for offset in np.meshgrid(reach, reach, indexing="ij"))
    inside = dx**2 + dy**2 <= radius**2
    image = np.ones((pixels, pixels, 3))
    painted = np.zeros((pixels, pixels), dtype=bool)
    for x, y, colour in layers:
        x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"a layer has values of shapes {x.shape} and {y.shape}, expected (N,) twice")
        kept = (x >= low) & (x <= high) & (y >= low) & (y <= high)
        column, row = (((v[kept, None] - low) / (high - low) * (pixels - 1)).round().astype(int) for v in (x, y))
        column, row = (column + dx[inside]).ravel(), (row + dy[inside]).ravel()
        visible = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
        mask = np.zeros_like(painted)
        mask[row[visible], column[visible]] = True
        rgb = np.array(to_rgb(colour))
        image[mask & painted] += opacity * (rgb - image[mask & painted])
        image[mask & ~painted] = rgb
        painted |= mask
    axes.imshow((image * 255).round().astype(np.uint8), extent=(*limits, *limits), origin="lower", interpolation="none")
    axes.set(xlim=limits, ylim=limits, aspect="equal")


def render(figure: Figure, suffix: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns a figure as the bytes of a file, at the highest resolution from 200 dots an inch down that fits.

    In a PDF only layers that were drawn with ``rasterized=True`` have this resolution; the rest stays vector art. A PNG
    that is too large in full colour is reduced to a palette of 256 colours before its resolution is. The bytes depend
    on the figure and on the versions of the libraries alone: no date is written.

    Arguments:
        figure: The figure.
        suffix: ``"pdf"`` or ``"png"``.
        max_bytes: The largest size.

    Raises:
        ValueError: If the suffix is unknown, or the file is too large even at 72 dots an inch.
    """
    if suffix not in _METADATA:
        raise ValueError(f"cannot write figures as {suffix!r}; one of {', '.join(_METADATA)}")
    content = b""
    with use_style():
        for dpi in _DPI:
            buffer = BytesIO()
            figure.savefig(buffer, format=suffix, dpi=dpi, metadata=_METADATA[suffix])
            content = buffer.getvalue()
            if suffix == "png" and len(content) > max_bytes:
                content = _to_palette(content, dpi)
            if len(content) <= max_bytes:
                return content
    size = f"{len(content):,} bytes as {suffix} at {_DPI[-1]} dots an inch"
    raise ValueError(f"figure takes {size}, more than {max_bytes:,}")


def _to_palette(png: bytes, dpi: int) -> bytes:
    """Returns a PNG with at most 256 colours, without dithering."""
    buffer = BytesIO()
    image = Image.open(BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(buffer, "png", optimize=True, dpi=(dpi, dpi))
    return buffer.getvalue()

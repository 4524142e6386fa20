"""Anti-aliased drawing of many small images at once, in exactly specified arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Point"]

Array = NDArray[np.float64]
Point = tuple[Array, Array]


class Canvas:
    """Ink on N images of one size, each with its own place in the plane.

    A shape covers of a pixel what it covers of an interval of one pixel's length across its outline, which is exact for
    straight edges along the grid and lets lines thinner than a pixel fade instead of vanish. Overlapping shapes keep
    the darker ink.

    Arguments:
        side: Pixels a side.
        pixel: Length of a pixel of every image, of shape ``(N,)``.
        left: x of every image's left edge.
        bottom: y of every image's lower edge.
    """

    def __init__(self, side: int, pixel: Array, left: Array, bottom: Array) -> None:
        cell = np.arange(side) + 0.5
        self.pixel = np.asarray(pixel, dtype=np.float32)[:, None, None]
        self._x = (left[:, None] + pixel[:, None] * cell).astype(np.float32)[:, None, :]
        self._y = (bottom[:, None] + pixel[:, None] * cell[::-1]).astype(np.float32)[:, :, None]
        self.ink = np.zeros((len(pixel), side, side), dtype=np.float32)

    def segment(self, a: Point, b: Point, width: Array | float, end_width: Array | float | None = None,
                ink: Array | float = 1.0) -> None:  # fmt: skip
        """Draws a line with round ends, whose width goes from ``width`` at a to ``end_width`` at b.

        Arguments:
            a: Its start: x and y, each of shape ``(N,)``.
            b: Its end.
            width: Width at the start; nothing is drawn where it is 0.
            end_width: Width at the end, that at the start if None.
            ink: Darkness, in [0, 1].
        """
        ax, ay, bx, by = (self._each(v) for v in (*a, *b))
        first = self._each(width) / 2
        dx, dy = bx - ax, by - ay
        px, py = self._x - ax, self._y - ay
        along = (px * dx + py * dy) / np.maximum(dx * dx + dy * dy, np.float32(1e-6))
        along = np.minimum(np.maximum(along, np.float32(0)), np.float32(1))
        ox, oy = px - along * dx, py - along * dy
        half = first if end_width is None else first + along * (self._each(end_width) / 2 - first)
        self._cover(np.sqrt(ox * ox + oy * oy), half, ink)

    def ring(self, centre: Point, radius: Array | float, width: Array | float, ink: Array | float = 1.0) -> None:
        """Draws a circle of the given mean radius and line width; nothing where the width is 0."""
        away = self._distance(centre) - self._each(radius)
        self._cover(np.abs(away), self._each(width) / 2, ink)

    def disc(self, centre: Point, radius: Array | float, ink: Array | float = 1.0) -> None:
        """Draws a filled circle; nothing where the radius is 0."""
        self._cover(self._distance(centre), self._each(radius), ink)

    def pictures(self) -> NDArray[np.uint8]:
        """The images, white where there is no ink, uint8 of shape ``(N, side, side)``."""
        return np.uint8(255) - (self.ink * np.float32(255) + np.float32(0.5)).astype(np.uint8)

    def _distance(self, centre: Point) -> NDArray[np.float32]:
        dx, dy = self._x - self._each(centre[0]), self._y - self._each(centre[1])
        return np.sqrt(dx * dx + dy * dy)

    def _cover(self, away: NDArray[np.float32], half: NDArray[np.float32], ink: Array | float) -> None:
        reach = self.pixel / 2
        inside = np.minimum(away + reach, half) - np.maximum(away - reach, -half)
        covered = np.minimum(np.maximum(inside / self.pixel, np.float32(0)), np.float32(1))
        np.maximum(self.ink, covered * self._each(ink), out=self.ink)

    @staticmethod
    def _each(value: Array | float) -> NDArray[np.float32]:
        return np.asarray(value, dtype=np.float32).reshape(-1, 1, 1)

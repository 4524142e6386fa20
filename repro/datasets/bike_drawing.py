"""Bicycles drawn from their geometry, component by component."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from repro.datasets.bike_table import BikeTable
from repro.datasets.exact import cosine_sine
from repro.datasets.raster import Array, Canvas, Point

__all__ = ["COMPONENTS", "Geometry", "draw"]

COMPONENTS = ("saddle", "frame", "crank", "wheels", "handlebars")
TOOTH = 12.7 / (2 * math.pi)  # radius a tooth of a chainring adds, in mm: a chain's pitch over a turn
DROP, FLAT, BULLHORN = 0, 1, 2
SUSPENSION = 2


class Geometry:
    """Points and sizes of N bicycles in mm: origin at the bottom bracket, x forward, y up.

    Arguments:
        table: The bicycles, one row each.
    """

    def __init__(self, table: BikeTable) -> None:
        self._table = table
        get = table.numbers
        zero = np.zeros(len(table))
        drop, stay = get("Frame|BB drop"), get("Frame|Chain stay length")
        head, seat = get("Frame|Head angle"), get("Frame|Seat angle")
        self.bracket: Point = (zero, zero)
        self.rear: Point = (-np.sqrt(stay * stay - drop * drop), drop)
        self.front: Point = (self.rear[0] + get("Frame|Wheelbase"), drop)
        self.head_down: Point = _direction(-head)
        self.head_top: Point = (get("Frame|Reach"), get("Frame|Stack"))
        self.head_bottom = _along(self.head_top, self.head_down, get("Frame|Head tube length"))
        self.seat_up: Point = _direction(180.0 - seat)
        self.seat_top = _along(self.bracket, self.seat_up, get("Frame|Seat tube length (c-t)"))
        self.saddle: Point = (
            -get("Components/General|Saddle from BB (X)"),
            get("Components/General|Saddle from BB (Y)"),
        )
        self.bar: Point = (
            get("Components/General|Handlebar from BB (X)"),
            get("Components/General|Handlebar from BB (Y)"),
        )
        self.rear_radius = self.size("Wheels/Rear|Tire ∅", 300, 1000) / 2
        self.front_radius = self.size("Wheels/Front|Tire ∅", 300, 1000) / 2

    def size(self, column: str, low: float, high: float) -> Array:
        """A column limited to what can be drawn, ``low`` where it is empty."""
        return np.clip(np.nan_to_num(self._table.numbers(column), nan=low), low, high)

    def text(self, column: str) -> np.ndarray:
        """A column's cells."""
        return np.array(self._table.text(column))

    def view(self, side: int, pixel: float) -> tuple[Array, Array, Array]:
        """Pixel length, left and lower edge of every image.

        The bicycle stands in the middle, with the ground at a quarter of the height. Pixels are ``pixel`` mm, more
        only where the bicycle would not fit in.
        """
        left = self.rear[0] - self.rear_radius
        right = self.front[0] + self.front_radius
        ground = np.minimum(self.rear[1] - self.rear_radius, self.front[1] - self.front_radius)
        top = np.maximum(np.maximum(self.saddle[1], self.bar[1]) + 60.0, self.rear[1] + self.rear_radius)
        size = np.maximum(np.maximum((right - left) / (side - 2), (top - ground) / (side * 0.75 - 1)), pixel)
        return size, (left + right) / 2 - size * side / 2, ground - size * (side // 4)


def draw(table: BikeTable, side: int, pixel: float) -> dict[str, np.ndarray]:
    """Draws the components of every bicycle.

    Arguments:
        table: The bicycles, one row each.
        side: Pixels a side.
        pixel: Millimetres a pixel.

    Returns:
        Component to images, uint8 of shape ``(N, 1, side, side)``, white ground.
    """
    bikes = Geometry(table)
    view = bikes.view(side, pixel)
    artists = {"saddle": _saddle, "frame": _frame, "crank": _crank, "wheels": _wheels, "handlebars": _handlebars}
    pictures = {}
    for component in COMPONENTS:
        canvas = Canvas(side, *view)
        artists[component](canvas, bikes)
        pictures[component] = canvas.pictures()[:, None]
    return pictures


def _frame(canvas: Canvas, g: Geometry) -> None:
    top_head = _along(
        g.head_top, g.head_down, g.size("Frame|Head tube - top tube junction to top of head tube", 0, 200)
    )
    low_head = _along(
        g.head_bottom, g.head_down, -g.size("Frame|Head tube - Down tube junction to bottom of head tube", 0, 200)
    )
    joint = _along(g.seat_top, g.seat_up, -g.size("Frame|Seat tube - top tube junction to top of seat tube", 0, 400))
    tube = {t: (g.size(f"Tubing/{t}|G", 22, 90), g.size(f"Tubing/{t}|J", 22, 90)) for t in ("Down tube", "Top tube")}
    canvas.segment(g.head_top, g.head_bottom, g.size("Tubing/Head tube|∅", 28, 70))
    canvas.segment(low_head, g.bracket, *tube["Down tube"])
    canvas.segment(top_head, joint, *tube["Top tube"])
    canvas.segment(
        g.bracket,
        g.seat_top,
        g.size("Tubing/Seat tube|∅ at bottom", 24, 80),
        g.size("Tubing/Seat tube|∅ at top", 24, 80),
    )
    canvas.segment(g.bracket, g.rear, 26.0, 18.0)
    canvas.segment(joint, g.rear, 18.0, 15.0)
    canvas.disc(g.bracket, 24.0)
    blade = g.size("Fork|Blade width", 20, 70)
    sprung = g.size("Fork|Style", 1, 3) == SUSPENSION
    middle = _between(g.head_bottom, g.front, 0.45)
    canvas.segment(g.head_bottom, g.front, blade, np.where(sprung, blade, 0.45 * blade))
    canvas.segment(middle, g.front, np.where(sprung, 1.5 * blade, 0.0))


def _wheels(canvas: Canvas, g: Geometry) -> None:
    for which, centre, radius in (("Rear", g.rear, g.rear_radius), ("Front", g.front, g.front_radius)):
        style = g.text(f"Wheels/{which}|Style")
        tyre = g.size(f"Wheels/{which}|W", 20, 130)
        rim = np.minimum(g.size(f"Wheels/{which}|Bead seat diameter", 200, 900) / 2, radius - tyre / 2)
        canvas.ring(centre, radius - tyre / 2, np.maximum(tyre, 26.0))
        canvas.ring(centre, rim - 8.0, 16.0, ink=0.7)
        canvas.disc(centre, np.where(style == "Disc", rim, 0.0), ink=0.45)
        canvas.disc(centre, 26.0, ink=0.9)
        spokes = np.where(style == "Spoked", 7.0, 0.0)
        for n in range(9):
            canvas.segment(*_diameter(centre, rim, 10.0 + 20.0 * n), spokes, ink=0.9)
        blades = np.where(style == "Trispoke", 1.0, 0.0)
        for n in range(3):
            tip = _along(centre, _direction(np.full(len(radius), 90.0 + 120.0 * n)), rim)
            canvas.segment(centre, tip, 50.0 * blades, 75.0 * blades, ink=0.8)


def _crank(canvas: Canvas, g: Geometry) -> None:
    rings = _teeth(g.text("Components/Cranks|Range"))
    count = np.clip(g.size("Components/Cranks|Chainrings", 1, 3), 1, 3)
    for n in range(3):
        shown = (rings[:, n] > 0) & (n < count)
        canvas.ring(g.bracket, rings[:, n] * TOOTH, np.where(shown, 13.0, 0.0), ink=0.9 if n == 0 else 0.5)
    outer = rings[:, 0] * TOOTH
    for n in range(5):
        spider = _along(g.bracket, _direction(np.full(len(outer), 18.0 + 72.0 * n)), outer)
        canvas.segment(g.bracket, spider, 10.0, ink=0.6)
    length = g.size("Components/Cranks|A", 100, 220)
    start, end = g.size("Components/Cranks|B", 24, 60), g.size("Components/Cranks|C", 20, 50)
    for degrees in (-35.0, 145.0):
        pedal = _along(g.bracket, _direction(np.full(len(length), degrees)), length)
        canvas.segment(g.bracket, pedal, start, end)
        canvas.segment((pedal[0] - 42.0, pedal[1]), (pedal[0] + 42.0, pedal[1]), 20.0)
    canvas.disc(g.bracket, start * 0.6)


def _saddle(canvas: Canvas, g: Geometry) -> None:
    length, tilt = g.size("Components/Saddle|L", 150, 400), g.size("Components/Saddle|Angle", -30, 30)
    ahead = _direction(tilt)
    back, nose = _along(g.saddle, ahead, -0.45 * length), _along(g.saddle, ahead, 0.55 * length)
    middle = _along(g.saddle, ahead, 0.05 * length)
    lowered = (g.saddle[0], g.saddle[1] - 16.0)
    height = g.size("Components/Saddle|H", 22, 60)
    canvas.segment(_below(back, height / 2), _below(middle, height / 4), height, height / 2)
    canvas.segment(_below(middle, height / 4), _below(nose, 9.0), height / 2, 18.0)
    post = g.size("Tubing/Seat tube|∅ at top", 24, 36)
    clamp = _below(lowered, 30.0)
    canvas.segment(g.seat_top, clamp, post)
    canvas.segment(clamp, lowered, post * 0.8)


def _handlebars(canvas: Canvas, g: Geometry) -> None:
    style = g.size("Components/Handlebar|Style", 0, 2)
    tilt = g.size("Components/Handlebar|∠", -60, 60)
    canvas.segment(g.head_top, g.bar, 32.0, 30.0)
    canvas.disc(g.bar, 19.0)
    _drop_bar(canvas, g, np.where(style == DROP, 1.0, 0.0), tilt)
    _flat_bar(canvas, g, np.where(style == FLAT, 1.0, 0.0), tilt)
    _bullhorn(canvas, g, np.where(style == BULLHORN, 1.0, 0.0), tilt)


def _drop_bar(canvas: Canvas, g: Geometry, shown: Array, tilt: Array) -> None:
    """Ramp forward, hook down and back, and a brake hood with its lever at the bend."""
    reach, drop = g.size("Components/Handlebar|A", 60, 130), g.size("Components/Handlebar|B", 90, 180)
    at = _placed(g.bar, -tilt * 0.5)
    radius = drop / 2
    width = 28.0 * shown
    bend = reach - radius * 0.7
    canvas.segment(g.bar, at(bend, 0.0), width)
    points = [at(bend + radius * c, -radius + radius * s) for c, s in _arc(90.0, -90.0, 8)]
    for a, b in pairwise(points):
        canvas.segment(a, b, width)
    canvas.segment(points[-1], at(bend - 45.0, -drop - 6.0), width)
    hood = at(bend + radius + 22.0, 26.0)
    canvas.segment(at(bend + radius * 0.4, -4.0), hood, 38.0 * shown, 30.0 * shown)
    canvas.segment(hood, at(bend + radius + 34.0, -radius * 0.7), 14.0 * shown, 8.0 * shown, ink=0.7)


def _flat_bar(canvas: Canvas, g: Geometry, shown: Array, tilt: Array) -> None:
    """Rise, then the grip swept back, and a brake lever ahead of it."""
    rise, sweep = g.size("Components/Handlebar|B", 0, 220), g.size("Components/Handlebar|A", 0, 120)
    at = _placed(g.bar, np.clip(tilt, -30.0, 30.0))
    canvas.segment(g.bar, at(0.0, rise), 26.0 * shown)
    canvas.segment(at(0.0, rise), at(-70.0 - sweep * 0.5, rise + 8.0), 36.0 * shown)
    canvas.segment(at(0.0, rise - 4.0), at(48.0, rise - 34.0), 14.0 * shown)


def _bullhorn(canvas: Canvas, g: Geometry, shown: Array, tilt: Array) -> None:
    """Forward, slightly down, then up at the tips."""
    reach, drop = g.size("Components/Handlebar|A", 90, 220), g.size("Components/Handlebar|B", 0, 60)
    tip = g.size("Components/Handlebar|C", 30, 90)
    at = _placed(g.bar, np.clip(tilt, -30.0, 30.0))
    canvas.segment(g.bar, at(reach * 0.25, -drop), 28.0 * shown)
    canvas.segment(at(reach * 0.25, -drop), at(reach * 0.8, -drop), 28.0 * shown)
    canvas.segment(at(reach * 0.8, -drop), at(reach + 10.0, -drop + tip), 30.0 * shown)


def _direction(degrees: Array) -> Point:
    return cosine_sine(np.where(degrees > 180.0, degrees - 360.0, degrees) * (math.pi / 180.0))


def _along(start: Point, direction: Point, length: Array) -> Point:
    return start[0] + length * direction[0], start[1] + length * direction[1]


def _between(a: Point, b: Point, part: float) -> Point:
    return a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])


def _below(point: Point, depth: Array | float) -> Point:
    return point[0], point[1] - depth


def _diameter(centre: Point, radius: Array, degrees: float) -> tuple[Point, Point]:
    direction = _direction(np.full(len(radius), degrees))
    return _along(centre, direction, -radius), _along(centre, direction, radius)


def _placed(origin: Point, degrees: Array) -> Callable[[Array | float, Array | float], Point]:
    """Function from coordinates of a part, turned by ``degrees`` about ``origin``, to the plane."""
    c, s = _direction(degrees)
    return lambda x, y: (origin[0] + c * x - s * y, origin[1] + s * x + c * y)


def _arc(start: float, end: float, count: int) -> list[tuple[float, float]]:
    c, s = _direction(np.linspace(start, end, count))
    return list(zip(c.tolist(), s.tolist(), strict=True))


def _teeth(ranges: np.ndarray) -> Array:
    """Teeth of up to three chainrings, largest first, from cells such as ``53/39``; 0 where there are fewer."""
    teeth = np.zeros((len(ranges), 3))
    for n, cell in enumerate(ranges):
        found = sorted((int(t) for t in str(cell).split("/") if t.strip().isdigit()), reverse=True)[:3]
        teeth[n, : len(found)] = [min(max(t, 18), 64) for t in found]
    return teeth

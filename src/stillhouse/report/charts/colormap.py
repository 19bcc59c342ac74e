"""Colours of a matrix, as even to the eye as they are in number.

A ramp is a straight line in OKLab (Ottosson, 2020), whose distances are those that people see. Each
begins near the colour of the page, by day or by night, so that nothing looks like nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

SHADES = 255  # of a picture with 256 colours; the last is that of no value
SEQUENTIAL = {"day": ("#edf2f6", "#06375c"), "night": ("#1d252e", "#a9dcff")}
DIVERGING = {
    "day": ("#8f3700", "#f0f2f4", "#08437f"),
    "night": ("#ffb27d", "#20272f", "#8fcbff"),
}

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def lab(colours: Rows) -> Rows:
    """OKLab of sRGB colours between 0 and 1: (N, 3) -> (N, 3)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    found: Rows = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return found


def rgb(points: Rows) -> Rows:
    """The sRGB colours of points in OKLab, cut off where a screen has no such colour."""
    linear = (points @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = linear.clip(0, 1)
    bent: Rows = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return bent


def parsed(colour: str) -> tuple[float, ...]:
    """`#ff8000` as three shares of one."""
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


@cache
def ramp(time: str, diverging: bool) -> bytes:
    """The colours of all shades, three bytes each, by day or by night."""
    stops = (DIVERGING if diverging else SEQUENTIAL)[time]
    fixed = lab(np.array([parsed(stop) for stop in stops]))
    along = np.linspace(0, len(stops) - 1, SHADES)
    points = np.stack([np.interp(along, range(len(stops)), fixed[:, i]) for i in range(3)], 1)
    return (rgb(points) * 255).round().astype(np.uint8).tobytes()

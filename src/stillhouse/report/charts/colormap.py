"""Perceptually uniform colour maps for a light and a dark page.

A colour map is a straight line in OKLab (Ottosson, 2020), where equal distances look equal. Each
starts near the background of the page.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

SHADES = 255  # of a palette of 256 colours; the last one is transparent, for no value
SEQUENTIAL = {"light": ("#edf2f6", "#06375c"), "dark": ("#1d252e", "#a9dcff")}
DIVERGING = {
    "light": ("#8f3700", "#f0f2f4", "#08437f"),
    "dark": ("#ffb27d", "#20272f", "#8fcbff"),
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


def srgb_to_oklab(colours: Rows) -> Rows:
    """OKLab of sRGB colours in [0, 1]: (N, 3) -> (N, 3)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    points: Rows = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return points


def oklab_to_srgb(points: Rows) -> Rows:
    """sRGB colours of points in OKLab, clipped to [0, 1]: (N, 3) -> (N, 3)."""
    linear = (points @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = linear.clip(0, 1)
    bent: Rows = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return bent


def parse_hex(colour: str) -> tuple[float, ...]:
    """`#ff8000` as three numbers in [0, 1]."""
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


@cache
def colormap(theme: str, diverging: bool) -> bytes:
    """The colours of all shades, three bytes each; the theme is `light` or `dark`."""
    stops = (DIVERGING if diverging else SEQUENTIAL)[theme]
    fixed = srgb_to_oklab(np.array([parse_hex(stop) for stop in stops]))
    along = np.linspace(0, len(stops) - 1, SHADES)
    points = np.stack([np.interp(along, range(len(stops)), fixed[:, i]) for i in range(3)], 1)
    return (oklab_to_srgb(points) * 255).round().astype(np.uint8).tobytes()

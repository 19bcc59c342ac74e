"""Losses on feature maps [n][c][h][w] of one size, image by image, in loops."""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from itertools import chain
from typing import Any

from references.plain import Row, mean, size

Maps = Sequence[Any]


def flat(image: Any) -> list[complex]:
    return [z for plane in image for z in chain.from_iterable(plane)]


def direction(row: Row) -> list[complex]:
    length = cmath.sqrt(sum(z * z for z in row))
    return [z / length for z in row]


def attention(image: Any, power: float = 2.0) -> list[complex]:
    height, width = len(image[0]), len(image[0][0])
    strength = [
        mean([size(plane[h][w]) ** power for plane in image])
        for h in range(height)
        for w in range(width)
    ]
    return direction(strength)


def attention_transfer(student: Maps, teacher: Maps, power: float = 2.0) -> list[complex]:
    return [
        mean([(a - b) ** 2 for a, b in zip(attention(s, power), attention(t, power), strict=True)])
        for s, t in zip(student, teacher, strict=True)
    ]


def factor_transfer(student: Maps, teacher: Maps) -> list[complex]:
    rows = ([direction(flat(image)) for image in maps] for maps in (student, teacher))
    return [absolute(s, t) for s, t in zip(*rows, strict=True)]


def attended_factor_transfer(student: Maps, teacher: Maps) -> list[complex]:
    rows = ([attention(image) for image in maps] for maps in (student, teacher))
    return [absolute(s, t) for s, t in zip(*rows, strict=True)]


def absolute(a: Row, b: Row) -> complex:
    return mean([size(x - y) for x, y in zip(a, b, strict=True)])


def class_map(image: Any, row: Row) -> list[list[complex]]:
    """What speaks for one class at each pixel."""
    return [
        [sum(w * plane[y][x] for w, plane in zip(row, image, strict=True)) for x in range(width)]
        for y, width in enumerate([len(image[0][0])] * len(image[0]))
    ]


def activation_boundary(student: Maps, teacher: Maps, margin: float = 1.0) -> list[complex]:
    losses = []
    for image, aim in zip(student, teacher, strict=True):
        loss: complex = 0
        for s, t in zip(flat(image), flat(aim), strict=True):
            if t.real <= 0 and s.real > -margin:
                loss += (s + margin) ** 2
            if t.real > 0 and s.real <= margin:
                loss += (s - margin) ** 2
        losses.append(loss)
    return losses


def partial_squares(student: Maps, teacher: Maps, margin: Sequence[float]) -> list[complex]:
    losses = []
    for image, aim in zip(student, teacher, strict=True):
        loss: complex = 0
        for plane, goal, m in zip(image, aim, margin, strict=True):
            pairs = zip(chain(*plane), chain(*goal), strict=True)
            for s, t in pairs:
                if t.real <= m:
                    loss += (s - m) ** 2 if s.real > m else 0
                elif t.real <= 0:
                    loss += (s - t) ** 2 if s.real > t.real else 0
                else:
                    loss += (s - t) ** 2
        losses.append(loss)
    return losses


def averaged(image: Any, side: int) -> list[Any]:
    """Each plane cut into side x side areas, and their means."""
    height, width = len(image[0]) // side, len(image[0][0]) // side

    def area(plane: Any, r: int, c: int) -> complex:
        rows = plane[r * height : (r + 1) * height]
        return mean([z for row in rows for z in row[c * width : (c + 1) * width]])

    cells = range(side)
    return [[[area(plane, r, c) for c in cells] for r in cells] for plane in image]


def mean_square(image: Any, aim: Any) -> complex:
    return mean([(a - b) ** 2 for a, b in zip(flat(image), flat(aim), strict=True)])


def hierarchical_context(student: Maps, teacher: Maps) -> list[complex]:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        parts, weights = [mean_square(s, t)], [1.0]
        for side in (4, 2, 1):
            if side < len(s[0]):
                parts.append(mean_square(averaged(s, side), averaged(t, side)))
                weights.append(weights[-1] / 2)
        losses.append(mean(parts, weights))
    return losses


def gaussian(expected: Maps, teacher: Maps, variance: Sequence[complex]) -> list[complex]:
    losses = []
    for image, aim in zip(expected, teacher, strict=True):
        said = [
            ((a - b) ** 2 / v + cmath.log(v)) / 2
            for plane, goal, v in zip(image, aim, variance, strict=True)
            for a, b in zip(chain(*plane), chain(*goal), strict=True)
        ]
        losses.append(mean(said))
    return losses

"""CWD, mimic, PKD, and the channel and spatial relations of DIST+, on maps [n][c][h][w]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from references.plain import correlation, kl, mean, softmax, standardized

Maps = Sequence[Any]
Weight = Sequence[float] | None


def flat(plane: Any) -> list[complex]:
    return list(chain.from_iterable(plane))


def cwd(student: Maps, teacher: Maps, weight: Weight = None, tau: float = 4.0) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        channels = [
            kl(softmax(flat(b), tau), softmax(flat(a), tau)) for a, b in zip(s, t, strict=True)
        ]
        losses.append(tau**2 * mean(channels))
    return mean(losses, weight)


def mimic(student: Maps, teacher: Maps, weight: Weight = None) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(chain(*map(flat, s)), chain(*map(flat, t)), strict=True)
        losses.append(mean([(a - b) ** 2 for a, b in pairs]))
    return mean(losses, weight)


def channel(maps: Maps, c: int, kept: Sequence[float] | None) -> list[complex]:
    """All that a channel says in the images that are there."""
    kept = kept or [1.0] * len(maps)
    return [z for image, w in zip(maps, kept, strict=True) if w > 0 for z in flat(image[c])]


def pkd(student: Maps, teacher: Maps, weight: Weight = None) -> complex:
    """Half the mean squared difference of standardised channels."""
    losses = []
    for c in range(len(student[0])):
        s, t = (standardized(channel(maps, c, weight), 1, 1e-6) for maps in (student, teacher))
        losses += [(a - b) ** 2 for a, b in zip(s, t, strict=True)]
    return mean(losses) / 2


def correlations_of_channels(student: Maps, teacher: Maps, weight: Weight = None) -> list[complex]:
    return [
        correlation(channel(student, c, weight), channel(teacher, c, weight))
        for c in range(len(student[0]))
    ]


def channel_relation(student: Maps, teacher: Maps, weight: Weight = None) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        pixels = [
            1 - correlation([plane[h][w] for plane in s], [plane[h][w] for plane in t])
            for h in range(len(s[0]))
            for w in range(len(s[0][0]))
        ]
        losses.append(mean(pixels))
    return mean(losses, weight)


def spatial_relation(student: Maps, teacher: Maps, weight: Weight = None) -> complex:
    losses = []
    for s, t in zip(student, teacher, strict=True):
        a, b = (
            [sum(values) for values in zip(*map(flat, planes), strict=True)] for planes in (s, t)
        )
        losses.append(1 - correlation(a, b))
    return mean(losses, weight)

"""Relations of the images of a batch: RKD, PKT, CC, SP; NST and FSP within an image; CRD's loss.

Rows are [n][e], maps of one image [c][place].
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from references.plain import Row, Rows, mean, size

Relation = Callable[[Rows], list[complex]]


def dot(a: Row, b: Row) -> complex:
    return sum((x * y for x, y in zip(a, b, strict=True)), 0j)


def length(a: Row) -> complex:
    return cmath.sqrt(dot(a, a))


def minus(a: Row, b: Row) -> list[complex]:
    return [x - y for x, y in zip(a, b, strict=True)]


def unit(a: Row) -> list[complex]:
    """A vector without a length stays as it is."""
    long = length(a)
    return [x / long for x in a] if abs(long) > 1e-12 else [0j for _ in a]


def smooth_l1(values: Row) -> complex:
    return mean([v * v / 2 if abs(v) < 1 else size(v) - 0.5 for v in values])


def distances(rows: Rows) -> list[complex]:
    """Of all ordered pairs, a sample and itself too, in units of the mean over real pairs."""
    n = len(rows)
    far = [
        [0j if i == j else max(length(minus(rows[i], rows[j])), 1e-6, key=abs) for j in range(n)]
        for i in range(n)
    ]
    unit_of = sum(map(sum, far)) / (n * (n - 1))
    return [d / unit_of for row in far for d in row]


def angles(rows: Rows) -> list[complex]:
    """The cosine at every second of three samples."""
    return [dot(unit(minus(a, b)), unit(minus(c, b))) for b in rows for a in rows for c in rows]


def rkd_distance(student: Rows, teacher: Rows) -> complex:
    return smooth_l1(minus(distances(student), distances(teacher)))


def rkd_angle(student: Rows, teacher: Rows) -> complex:
    return smooth_l1(minus(angles(student), angles(teacher)))


def affinities(rows: Rows) -> list[complex]:
    near = [[(dot(unit(a), unit(b)) + 1) / 2 for b in rows] for a in rows]
    return [x / sum(row) for row in near for x in row]


def pkt(student: Rows, teacher: Rows, eps: float = 1e-7) -> complex:
    pairs = zip(affinities(teacher), affinities(student), strict=True)
    return mean([t * cmath.log((t + eps) / (s + eps)) for t, s in pairs])


def squares(values: Row) -> complex:
    return mean([v * v for v in values])


def similarities(rows: Rows) -> list[complex]:
    return [x for a in rows for x in unit([dot(a, b) for b in rows])]


def sp(student: Rows, teacher: Rows) -> complex:
    return squares(minus(similarities(student), similarities(teacher)))


def kernels(rows: Rows, gamma: float, order: int) -> list[complex]:
    found = []
    for a in rows:
        for b in rows:
            cosine = dot(unit(a), unit(b))
            terms = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
            found.append(math.exp(-2 * gamma) * sum(terms))
    return found


def cc(student: Rows, teacher: Rows, gamma: float = 0.4, order: int = 2) -> complex:
    return squares(minus(kernels(student, gamma, order), kernels(teacher, gamma, order)))


def cc_neighbours(student: Rows, teacher: Rows) -> complex:
    gaps = [[size(x) for x in minus(s, t)] for s, t in zip(student, teacher, strict=True)]
    return mean([dot(a, b) for a, b in pairwise(gaps)])


def alike(a: Rows, b: Rows) -> complex:
    return mean([dot(unit(x), unit(y)) ** 2 for x in a for y in b])


def nst(student: Rows, teacher: Rows) -> complex:
    """Of one image."""
    return alike(student, student) + alike(teacher, teacher) - 2 * alike(student, teacher)


def flow(first: Rows, second: Rows) -> list[complex]:
    return [dot(a, b) / len(a) for a in first for b in second]


def fsp(student: Sequence[Rows], teacher: Sequence[Rows]) -> complex:
    """Of two stages of one image."""
    return squares(minus(flow(*student), flow(*teacher)))


def crd(
    anchor: Row, memory: Rows, drawn: Sequence[int], tau: float, scale: float, eps: float = 1e-7
) -> complex:
    """One image against its own row of a memory, the first drawn, and those of others."""
    first, *others = [cmath.exp(dot(anchor, memory[k]) / tau) / scale for k in drawn]
    noise = len(others) / len(memory)
    found = -cmath.log(first / (first + noise + eps))
    return found - sum(cmath.log(noise / (h + noise + eps)) for h in others)

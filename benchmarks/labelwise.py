"""What CD and ID cost, all groups at once, beside loops over classes or images.

`.venv/bin/python benchmarks/labelwise.py` prints a table, and writes it to
benchmarks/results/labelwise.csv. A row is one forward and backward, from the embeddings of both
networks to the gradient in the student's. It is timed beside two loops that have the same value:

- "loop" as the authors' code goes: all embeddings are multiplied by the labels, then each class
  (image) is taken out of them, its rows that are not zero are found in each network apart, and
  their distances come from products of rows;
- "unbound" as kind to a loop as can be: embeddings are cut into classes (images) once, so that
  backward does not write a gradient of the whole for each of them, and rows are found by labels.

All three are timed in turn, again and again; given are medians of processor time, and of the ratios
within a round. Labels are three an image on average: "uniform" has all classes alike, "skewed" has
one in half of the images and the rest falling off as 1, 1/2, 1/3, ... Values must be those of the
loop to a millionth. Gradients are held against those of the loop in double precision; how far the
loop's own gradient is from them stands beside.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rows import Row, options, write
from stillhouse.functional.labelwise import group_pairs
from stillhouse.methods.labelwise import (
    CD,
    ID,
    PAIRS,
    ClassAware,
    EmbeddingDistances,
    InstanceAware,
)
from stillhouse.types import Clock, Lesson, Terms, Trace

IMAGES, CLASSES, WIDTH = 64, 80, 512
LABELS = 3.0  # an image
ROUNDS, WARMUP = 31, 3
LEAST = 25  # times faster than the loop
SAME, NEAR = 1e-6, 1e-5  # of values, and of gradients, whose digits are those of small differences
METHODS: dict[str, tuple[EmbeddingDistances, int]] = {  # and the axis that is looped over
    "cd": (ClassAware(CD(), PAIRS), 1),
    "id": (InstanceAware(ID(), PAIRS), 0),
}
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def uniform() -> Tensor:
    return torch.full((CLASSES,), LABELS / CLASSES)


def skewed() -> Tensor:
    rest = 1 / torch.arange(1.0, CLASSES)
    return torch.cat((torch.tensor([0.5]), rest * (LABELS - 0.5) / rest.sum()))


def matrix(rows: Tensor) -> Tensor:
    """Distances in units of their mean, from products of rows."""
    products = rows @ rows.T
    squares = products.diag()
    squared = squares[:, None] + squares[None] - 2 * products
    distances = squared.clamp(min=1e-12).sqrt()
    distances = distances * (1 - torch.eye(len(rows), dtype=rows.dtype))
    return distances / distances[distances > 0].mean()


def group(student: Tensor, teacher: Tensor) -> Tensor:
    with torch.no_grad():
        target = matrix(teacher)
    return F.smooth_l1_loss(matrix(student), target, reduction="sum") / len(student)


def loop(student: Tensor, teacher: Tensor, labels: Tensor, axis: int) -> Tensor:
    mask = labels[:, :, None].repeat(1, 1, student.shape[2])
    ours, theirs = student * mask, teacher * mask
    total = student.new_zeros(())
    for number in range(labels.shape[axis]):
        one, other = ours.select(axis, number), theirs.select(axis, number)
        one, other = one[(one != 0).any(1)], other[(other != 0).any(1)]
        if len(one) > 1:
            total = total + group(one, other)
    return total


def unbound(student: Tensor, teacher: Tensor, labels: Tensor, axis: int) -> Tensor:
    total = student.new_zeros(())
    parts = zip(*(x.unbind(axis) for x in (student, teacher, labels > 0)), strict=True)
    for one, other, there in parts:
        if there.sum() > 1:
            total = total + group(one[there], other[there])
    return total


def at_once(method: EmbeddingDistances, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    (ours,), (theirs,) = method.student_taps, method.teacher_taps
    traces = Trace(None, {ours: student}), Trace(None, {theirs: teacher})
    terms: Terms = method(Lesson(*traces, {}, Clock(1, 10, 5), labels=labels))
    (term,) = terms.values()
    return term.total


def seconds(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor) -> float:
    """Processor time of one forward and backward."""
    student.grad = None
    since = time.process_time()
    loss(student, teacher, labels).backward()
    return time.process_time() - since


def measure(name: str, kind: str, chances: Tensor, rounds: int, warmup: int) -> Row:
    """Medians of one method on one kind of labels."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, IMAGES, CLASSES, WIDTH)
    labels = (torch.rand(IMAGES, CLASSES) < chances).float()
    method, axis = METHODS[name]
    losses: dict[str, Loss] = {
        "at_once": partial(at_once, method),
        "loop": partial(loop, axis=axis),
        "unbound": partial(unbound, axis=axis),
    }
    student.requires_grad_()
    spent: dict[str, list[float]] = {way: [] for way in losses}
    for number in range(warmup + rounds):
        for way, loss in losses.items():
            took = seconds(loss, student, teacher, labels)
            if number >= warmup:
                spent[way].append(took)
    groups = labels.nonzero()[:, 0] if axis == 0 else labels.T.nonzero()[:, 0]
    return {
        "method": name,
        "labels": kind,
        "images": IMAGES,
        "classes": CLASSES,
        "width": WIDTH,
        "labels_an_image": round(float(labels.sum()) / IMAGES, 2),
        "pairs": len(group_pairs(groups, 3).first),
        **{f"{way}_ms": round(1e3 * statistics.median(spent[way]), 3) for way in spent},
        **{f"{way}_ratio": ratio(spent, way) for way in ("loop", "unbound")},
        **errors(losses, student, teacher, labels),
        "rounds": rounds,
    }


def ratio(spent: dict[str, list[float]], way: str) -> float:
    """How many times longer a loop takes than all groups at once, the median over rounds."""
    rounds = zip(spent[way], spent["at_once"], strict=True)
    return round(statistics.median(slow / fast for slow, fast in rounds), 1)


def errors(losses: dict[str, Loss], student: Tensor, teacher: Tensor, labels: Tensor) -> Row:
    """How far values and gradients lie apart, relatively."""
    values, slopes = {}, {}
    for way in ("at_once", "loop"):
        value = losses[way](student, teacher, labels)
        values[way] = value.item()
        (slopes[way],) = torch.autograd.grad(value, student)
    double = student.double()
    exact = losses["loop"](double, teacher.double(), labels.double())
    (slope,) = torch.autograd.grad(exact, double)
    found = {
        "value_difference": abs(values["at_once"] / values["loop"] - 1),
        "gradient_error": float((slopes["at_once"] - slope).norm() / slope.norm()),
    }
    if found["value_difference"] > SAME or found["gradient_error"] > NEAR:
        raise SystemExit(f"all groups at once are not the loop: {found}")
    found["loop_gradient_error"] = float((slopes["loop"] - slope).norm() / slope.norm())
    return {name: f"{value:.1e}" for name, value in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "labelwise", rounds=ROUNDS, warmup=WARMUP)
    torch.set_num_threads(1)
    found = [
        measure(name, kind, chances(), chosen.rounds, chosen.warmup)
        for kind, chances in (("uniform", uniform), ("skewed", skewed))
        for name in METHODS
    ]
    write(chosen.out, found)
    for row in found:
        sys.stdout.write(
            "{method} {labels:<8} {pairs:>5} pairs {at_once_ms:>7} ms, loop {loop_ms:>8} ms "
            "({loop_ratio:>5} x), unbound {unbound_ms:>7} ms ({unbound_ratio:>5} x)\n".format(**row)
        )
    slow = [row for row in found if float(row["loop_ratio"]) < LEAST]
    if slow:
        sys.stdout.write(f"below {LEAST} times the loop: {len(slow)} of {len(found)}\n")


if __name__ == "__main__":
    main()

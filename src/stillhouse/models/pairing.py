"""Pairs of a student's and a teacher's stages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

Shapes = Mapping[str, torch.Size]  # of the taps of a network, by their aliases
PairStages = Callable[[Shapes, Shapes], list[tuple[str, str]]]

_STAGE = re.compile(r"stage(\d+)")


def suggest_pairs(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    """Pairs of stages, from the shallow to the deep, of two networks' aliases with their shapes.

    Stages whose maps (N, C, H, W), or tokens (N, T, C), are of one size make a pair, of several in
    one network the last. Where none are, they are paired in order from the deep end, as many as the
    shorter network has. The last pair is ("last", "last") where both have that alias.
    """
    student_stages, teacher_stages = _by_size(student), _by_size(teacher)
    pairs = [
        (stage, teacher_stages[size])
        for size, stage in student_stages.items()
        if size in teacher_stages
    ]
    if not pairs:
        ends = zip(reversed(_stages(student)), reversed(_stages(teacher)), strict=False)
        pairs = [(s, t) for s, t in ends if len(student[s]) == len(teacher[t])][::-1]
    both = "last" in student and "last" in teacher
    return pairs + [("last", "last")] * both


def pair_stages_in_order(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    """Pairs of stages by their numbers, from the shallow to the deep, as many as both have."""
    return list(zip(_stages(student), _stages(teacher), strict=False))


def pair_last_stages(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    """The deepest stage of the student and that of the teacher."""
    return list(zip(_stages(student)[-1:], _stages(teacher)[-1:], strict=False))


def _stages(shapes: Shapes) -> list[str]:
    """The stages by number, without the other aliases."""
    numbers = sorted(int(match[1]) for name in shapes if (match := _STAGE.fullmatch(name)))
    return [f"stage{number}" for number in numbers]


def _by_size(shapes: Shapes) -> dict[tuple[int, ...], str]:
    """The last stage of each size of map, or of each number of tokens."""
    named = ((_size(shapes[name]), name) for name in _stages(shapes))
    return {size: name for size, name in named if size}


def _size(shape: torch.Size) -> tuple[int, ...]:
    return tuple(shape[2:]) if len(shape) == 4 else tuple(shape[1:2])

"""Stratified parts of a source that are held out of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stillhouse.data.source import Pixels, Source, SourceSubset, classes_of, take
from stillhouse.data.stratify import stratify
from stillhouse.errors import UserError


def hold_out(
    source: Source, held_out: int | float, seed: int = 0
) -> tuple[Pixels | SourceSubset, Pixels | SourceSubset]:
    """The remaining samples and the held-out ones, a stratified number or fraction of the source.

    The two are disjoint and cover the source; they depend on the targets and the seed only. Raises
    UserError for a number of samples that cannot be held out.
    """
    train, val = hold_out_parts(source, held_out, ("val",), seed)
    return train, val


def hold_out_parts(
    source: Source, held_out: int | float, names: Sequence[str], seed: int = 0
) -> tuple[Pixels | SourceSubset, ...]:
    """The same with a part for each name, all of this number or fraction of the source.

    The first part is the one of `hold_out`.
    """
    size, count = len(source), len(names)
    number = round(held_out * size) if isinstance(held_out, float) else held_out
    if not 0 < number * count < size:
        each = f" for each of {' and '.join(names)}" if count > 1 else ""
        raise UserError(
            f"{source.name}: cannot hold out {held_out} of {size} samples{each}; give a count "
            f"below {size / count:g} or a fraction between 0 and {1 / count:g}"
        )
    classes, left, parts = classes_of(source), torch.arange(size), []
    for name in names:
        chosen = stratify(classes[left], len(source.classes), number, seed)
        parts.append(take(source, left[chosen], f"{source.name}/{name}"))
        kept = torch.ones(len(left), dtype=torch.bool)
        kept[chosen] = False
        left = left[kept]
    return take(source, left, f"{source.name}/train"), *parts

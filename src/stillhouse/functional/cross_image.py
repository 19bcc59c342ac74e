"""Similarities between pixels of different images (Yang C. et al., 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stillhouse.functional.divergence import kl

ENTRIES = 2**24  # similarities that are held at a time


def similarity_divergence(
    student: Tensor,
    teacher: Tensor,
    student_others: Tensor,
    teacher_others: Tensor,
    temperature: float,
    entries: int = ENTRIES,
) -> Tensor:
    """KL between the similarities of pixels to groups of others, averaged over the groups.

    (R, C), (R, D), (G, P, C), (G, P, D) -> (R,). Similarities are inner products over the
    temperature, with a softmax over the P pixels of a group. Rows are taken in chunks, so that no
    more than `entries` similarities are held at a time; backward computes those of each chunk
    again.
    """
    groups, pixels = student_others.shape[:2]
    length = max(1, entries // max(1, groups * pixels))
    starts = range(0, max(1, len(student)), length)
    parts = []
    for start in starts:
        rows = slice(start, start + length)
        chunk = student[rows], teacher[rows], student_others, teacher_others, temperature
        if len(starts) > 1 and torch.is_grad_enabled():
            parts.append(
                checkpoint(row_divergence, *chunk, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            parts.append(row_divergence(*chunk))
    return torch.cat(parts)


def row_divergence(
    student: Tensor,
    teacher: Tensor,
    student_others: Tensor,
    teacher_others: Tensor,
    temperature: float,
) -> Tensor:
    """The same for all rows at once: (R, C), (R, D), (G, P, C), (G, P, D) -> (R,)."""
    groups = student_others.shape[:2]
    s, t = (
        F.log_softmax((rows @ others.flatten(0, 1).mT / temperature).unflatten(1, groups), -1)
        for rows, others in ((student, student_others), (teacher, teacher_others))
    )
    return kl(s, t).sum(1) / max(1, groups[0])


def draw_by_class(
    labels: Tensor, draws: Tensor, number: int, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """At most `number` pixels of each class in each image, those with the lowest draws.

    (N, P), (N, P) -> image (K,), pixel (K,), and the place (K,) of the pixel among those of its
    class and image. They are sorted by image and class; pixels without a class, -1, are never
    taken.
    """
    image, pixel = (labels >= 0).nonzero(as_tuple=True)
    group = image * classes + labels[image, pixel]
    place = place_in_group(group)
    order = draws[image, pixel].argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    kept = order[place_in_group(group[order]) < number]
    return image[kept], pixel[kept], place[kept]


def place_in_group(group: Tensor) -> Tensor:
    """How many earlier entries are equal to each entry: (K,) -> (K,)."""
    order = group.argsort(stable=True)
    ranked = group[order]
    place = torch.empty_like(order)
    first = torch.searchsorted(ranked, ranked)
    place[order] = torch.arange(len(group), device=group.device) - first
    return place

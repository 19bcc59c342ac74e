"""Maps of a student with the channel statistics of its teacher's, over the images of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.distributed import sum_over_ranks
from stillhouse.functional.dtype import full_precision, upcast

EPS = 1e-6  # added to the deviation of the student's channels


def align_channels(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """The student's maps with the mean and deviation of each channel of the teacher's maps.

    K maps (N, C, H, W) of each network -> K maps (N, C, H, W), in float32 or float64. Statistics
    are over the images and pixels of all ranks, those of the student with a gradient. A constant
    channel of the student becomes the teacher's mean.
    """
    with full_precision(student[0]):
        s = [upcast(x) for x in student]
        t = [x.detach().to(s[0].dtype) for x in teacher]
        mean, deviation = channel_statistics([*s, *t])
        factor = deviation[len(s) :] / (deviation[: len(s)] + EPS)
        shift = mean[len(s) :] - mean[: len(s)] * factor
        parts = zip(s, factor, shift, strict=True)
        return [x * f[:, None, None] + b[:, None, None] for x, f, b in parts]


def channel_statistics(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and sample deviation of each channel: K maps (N, C, H, W) -> (K, C), (K, C).

    They are over the images and pixels of all ranks; 0 where there are none. The deviation has no
    gradient where it is 0.
    """
    count = torch.stack([x.new_full((), x[:, 0].numel()) for x in maps])[:, None]
    total = torch.stack([x.sum((0, 2, 3)) for x in maps])
    sums = sum_over_ranks(torch.cat([count, total], 1))
    count, mean = sums[:, :1], sums[:, 1:] / sums[:, :1].clamp(min=1)
    centred = [x - m[:, None, None] for x, m in zip(maps, mean, strict=True)]
    squares = sum_over_ranks(torch.stack([x.square().sum((0, 2, 3)) for x in centred]))
    variance = squares / (count - 1).clamp(min=1)
    varies = variance > 0
    return mean, variance.where(varies, 1).sqrt().where(varies, 0)

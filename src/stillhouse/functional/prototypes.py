"""The mean feature of each class in each image, and how similar pixels are to it."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.functional.distance import unit_vectors


def class_groups(labels: Tensor, classes: int) -> Tensor:
    """The number of the image and class of each pixel: (N, P) -> (N, P).

    It is image * classes + class; pixels without a class, -1, have the number N * classes.
    """
    images = torch.arange(len(labels), device=labels.device)[:, None]
    return (images * classes + labels).where(labels >= 0, len(labels) * classes)


def class_means(features: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The mean of the pixels of each group, and their number: (N, P, C), (N, P) -> (G, C), (G,).

    The mean of a group without pixels is 0.
    """
    index = groups.flatten()
    ones = torch.ones_like(index, dtype=features.dtype)
    count = ones.new_zeros(number).index_add(0, index, ones)
    sums = features.new_zeros(number, features.shape[2])
    sums = sums.index_add(0, index, features.flatten(0, 1))
    return sums / count.clamp(min=1)[:, None], count


def prototype_similarity(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The cosine of each pixel and the mean feature of its class in its image.

    Wang Y. et al., 2020: (N, P, C), (N, P) -> (N, P). It is 0, without a gradient, for pixels
    without a class, -1.
    """
    groups = class_groups(labels, classes)
    means, _ = class_means(features, groups, len(labels) * classes + 1)
    own = unit_vectors(means)[groups.flatten()].view_as(features)
    similarity = (unit_vectors(features) * own).sum(2)
    return similarity.where(labels >= 0, 0.0)

"""The memories of CIRKD: pixels and class means of earlier batches, features of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather
from stillhouse.functional.cross_image import (
    draw_by_class,
    place_in_group,
    similarity_divergence,
)
from stillhouse.functional.distance import unit_vectors
from stillhouse.functional.dtype import upcast
from stillhouse.functional.prototypes import class_groups, class_means
from stillhouse.methods.draws import image_draws
from stillhouse.methods.segmentation import PixelMaps
from stillhouse.models.connectors import init_kaiming, pointwise_norm_relu


class RelationMemory(nn.Module):
    """The projector of the student's pixels, and the queues that they are compared with.

    `widths` are the channels of both networks. `lengths` and `samples` are the vectors of each
    class that a queue holds and that are drawn from it, by its kind: "pixel" or "region". With
    `displaced`, the n pixels of a class in an image are taken from its first n places instead.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        classes: int,
        lengths: Mapping[str, int],
        samples: Mapping[str, int],
        enqueued: int,
        displaced: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.samples = classes, dict(samples)
        self.enqueued, self.displaced = enqueued, displaced
        student, teacher = widths
        last = init_kaiming(nn.Conv2d(teacher, teacher, 1, bias=False))
        self.projector = nn.Sequential(*pointwise_norm_relu(student, teacher), last)
        self.queues = nn.ModuleDict(
            {kind: ClassQueue(classes, length, teacher) for kind, length in lengths.items()}
        )

    def forward(
        self, maps: PixelMaps, weight: Tensor | None, generator: torch.Generator, tau: float
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Total and mass of the pixels with a class, by kind, at the temperature `tau`.

        In training, the pixels of this batch are remembered first. `weight` is that of all images,
        (images,), also of those that are not in the maps.
        """
        student = unit_vectors(upcast(self.projector(maps.student)).flatten(2).mT)
        teacher = unit_vectors(maps.teacher.flatten(2).mT)
        if self.training:
            self.remember(teacher, maps.labels, weight, generator)
        labelled = maps.labels >= 0
        rows = student[labelled], teacher[labelled]
        counted = maps.weight[:, None].expand_as(labelled)[labelled]
        sums = {}
        for kind, queue in self.queues.items():
            assert isinstance(queue, ClassQueue)
            others = queue.sample(self.samples[kind], generator).to(teacher.dtype)[None]
            losses = similarity_divergence(*rows, others, others, tau)
            sums[kind] = (losses * counted).sum(), counted.sum()
        return sums

    @torch.no_grad()
    def remember(
        self, features: Tensor, labels: Tensor, weight: Tensor | None, generator: torch.Generator
    ) -> None:
        """Add pixels and class means of all ranks: unit vectors (N, P, D), (N, P), (images,)."""
        number = len(labels) if weight is None else len(weight)
        draws = image_draws(labels.shape[1:], number, weight, generator)
        draws = draws if weight is None else draws[weight > 0]
        found = {
            "pixel": self.some_pixels(features, labels, draws),
            "region": mean_of_regions(features, labels, self.classes),
        }
        for kind, queue in self.queues.items():
            assert isinstance(queue, ClassQueue)
            queue.put(*found[kind])

    def some_pixels(self, features: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Random pixels of each class and image: (N, P, D), (N, P), (N, P) -> (K, D), (K,)."""
        image, pixel, place = draw_by_class(labels, draws, self.enqueued, self.classes)
        return features[image, place if self.displaced else pixel], labels[image, pixel]


class ClassQueue(nn.Module):
    """A ring of unit vectors for each class, the same on all ranks; it starts with random ones."""

    equal_buffers: ClassVar[bool] = True
    vectors: Tensor  # (classes, length, width)
    start: Tensor  # (classes,) where the next vector of each class is written

    def __init__(self, classes: int, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", unit_vectors(torch.randn(classes, length, width)))
        self.register_buffer("start", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def put(self, rows: Tensor, label: Tensor) -> None:
        """Write the vectors of all ranks, in the order of ranks, over the oldest: (K, D), (K,).

        Of more vectors of a class than the ring has places, the last are kept.
        """
        rows, label = gather(rows), gather(label)
        classes, length = self.vectors.shape[:2]
        count = torch.bincount(label, minlength=classes)
        place = place_in_group(label)
        kept = place >= count[label] - length
        slot = (self.start[label] + place) % length
        self.vectors[label[kept], slot[kept]] = rows[kept].to(self.vectors.dtype)
        self.start.copy_((self.start + count) % length)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """A copy of the vectors at random places, the same of each class: -> (K, D).

        They are `number` of each class, all where there are fewer.
        """
        length = self.vectors.shape[1]
        index = torch.randperm(length, generator=generator, device=self.vectors.device)[:number]
        return self.vectors[:, index].flatten(0, 1)


def mean_of_regions(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The unit mean of each class in each image that has it: (N, P, D), (N, P) -> (K, D), (K,)."""
    number = len(labels) * classes
    means, count = class_means(features, class_groups(labels, classes), number + 1)
    present = count[:number].nonzero(as_tuple=True)[0]
    return unit_vectors(means[present]), present % max(1, classes)

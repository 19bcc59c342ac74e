"""Cross-image relational distillation (Yang C. et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.distributed import gather, rank, sum_over_ranks, world_size
from stillhouse.functional.cross_image import similarity_divergence
from stillhouse.functional.distance import unit_vectors
from stillhouse.functional.pooling import pool
from stillhouse.methods.base import Method
from stillhouse.methods.draws import step_generator
from stillhouse.methods.maps import MapPair, check_maps
from stillhouse.methods.paired import PairedSpec
from stillhouse.methods.relation_memory import RelationMemory
from stillhouse.methods.segmentation import AtMaps, PixelMaps, check_weights, number_of_classes
from stillhouse.methods.setting import Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Term, Terms


@spec
class CIRKD(PairedSpec):
    """Matches similarities to pixels of other images, and to memories of pixels and regions.

    `weight` is that of pairs of images of the batch, whose maps are first averaged over `pool` x
    `pool` pixels. The memories hold `pixels` and `regions` vectors of each class, features of the
    teacher; at each step, `enqueued` random pixels of each class and image, and the mean of each
    class and image, are added. Pixels with a class are compared with about `pixel_samples` and
    `region_samples` vectors, the same number of each class. A weight of 0 leaves a term out.
    `variant` "reference" takes the added pixels from the first places of the image instead of those
    of their class, as the authors' code does. `seed` changes the random draws.
    """

    weight: float = 1.0
    pixel_weight: float = 0.1
    region_weight: float = 0.1
    temperature: float = 0.1
    pool: int = 1
    pixels: int = 20000
    regions: int = 2000
    pixel_samples: int = 4096
    region_samples: int = 1024
    enqueued: int = 16
    variant: Variant = "paper"
    seed: int = 0
    name: Literal["cirkd"] = "cirkd"
    card: ClassVar[Card] = Card(
        "Cross-image relational distillation",
        "weight / (N^2 P) * sum_ijp KL( softmax_q(t_ip . t_jq / tau) || softmax_q(s_ip . s_jq / "
        "tau) ) + pixel_weight * mean_p KL( softmax_v(t_p . v / tau) || softmax_v(r(s_p) . v / "
        "tau) ) + region_weight * the same,  all vectors of unit length, v of a memory, "
        "r = conv1x1(ReLU(BN(conv1x1)))",
        "Yang C. et al.: Cross-image relational knowledge distillation for semantic segmentation, "
        "CVPR 2022",
        ("features", "masks", "batch"),
        "N^2 matrices of pixels x pixels, 67 million numbers each for maps of 64 x 128; they are "
        "taken in parts and computed again in backward; maps of all ranks are gathered; memories "
        "of classes x (pixels + regions) x channels of the teacher, which are part of checkpoints; "
        "the projector is discarded after training",
        "Published beside kd of weight 1 at site pixel; VOC with memory weights of 0.01. The "
        "memories start with random vectors. The authors compare the images of each GPU only, here "
        "those of all ranks are compared, and their images need one size.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("weight", "pixel_weight", "region_weight")
        check_weights([(name, getattr(self, name)) for name in names])
        require(self.temperature > 0, "temperature", "positive", self.temperature)
        for name in ("pool", "pixels", "regions", "pixel_samples", "region_samples", "enqueued"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.seed >= 0, "seed", "non-negative", self.seed)

    def build(self, setting: Setting) -> Method:
        """The method; raises UserError for taps without maps, and for outputs that are not."""
        maps = check_maps(setting, self.taps(setting))
        return CrossImage(self, maps, number_of_classes(setting))


class CrossImage(AtMaps):
    """The terms `TAP/batch`, `TAP/pixel` and `TAP/region` of each pair of taps."""

    spec: CIRKD

    def __init__(self, published: CIRKD, maps: Sequence[MapPair], classes: int) -> None:
        super().__init__(published, tuple((pair.student, pair.teacher) for pair in maps), classes)
        lengths = {"pixel": published.pixels, "region": published.regions}
        samples = {"pixel": published.pixel_samples, "region": published.region_samples}
        self.weights = {
            kind: weight
            for kind, weight in (
                ("pixel", published.pixel_weight),
                ("region", published.region_weight),
            )
            if weight
        }
        self.memories = nn.ModuleList(
            RelationMemory(
                (pair.student_shape[1], pair.teacher_shape[1]),
                classes,
                {kind: lengths[kind] for kind in self.weights},
                # of each class, as in the authors' code
                {kind: samples[kind] // classes + 1 for kind in self.weights},
                published.enqueued,
                displaced=published.variant == "reference",
            )
            for pair in maps
            if self.weights
        )

    def compare(self, index: int, maps: PixelMaps, lesson: Lesson) -> Terms:
        """The terms of one pair; without images on any rank, or without labels, they are 0."""
        name, tau = self.names[index], self.spec.temperature
        terms: Terms = {}
        if self.spec.weight:
            terms[f"{name}/batch"] = self.compare_batch(maps)
        if self.weights:
            generator = step_generator(lesson.clock, self.spec.seed, maps.student.device)
            found = self.memories[index](maps, lesson.weight, generator, tau)
            terms |= {
                f"{name}/{kind}": Term(total, mass, self.weights[kind])
                for kind, (total, mass) in found.items()
            }
        return terms

    def compare_batch(self, maps: PixelMaps) -> Term:
        """The images of this rank compared with those of all ranks, themselves included."""
        height, width = maps.student.shape[2:]
        size = max(1, height // self.spec.pool), max(1, width // self.spec.pool)
        student, teacher = (
            unit_vectors(pool(side, *size).flatten(2).mT) for side in (maps.student, maps.teacher)
        )
        losses = similarity_divergence(
            student.flatten(0, 1),
            teacher.flatten(0, 1),
            gather_both_ways(student),
            gather(teacher),
            self.spec.temperature,
        )
        mass = losses.new_tensor(float(len(student)))
        return Term(losses.sum() / student.shape[1], mass, self.spec.weight)


def gather_both_ways(x: Tensor) -> Tensor:
    """The rows of all ranks, whose gradients are summed over ranks: (N, ...) -> (M, ...).

    For losses whose rows are divided among ranks, while each row is compared with all: the gradient
    of a row is that of its own loss and of those on other ranks.
    """
    if world_size() == 1:
        return x
    counts = gather(torch.full((1,), len(x), device=x.device)).tolist()
    before, after = sum(counts[: rank()]), sum(counts[rank() + 1 :])
    parts = x.new_zeros(before, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])
    return sum_over_ranks(torch.cat(parts))

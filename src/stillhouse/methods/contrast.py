"""Contrastive representation distillation (Tian et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.contrast import noise_contrastive_loss
from stillhouse.functional.distance import unit_vectors
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.negatives import Negatives
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.relational import PENULTIMATE, vector_sizes
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import gather_rows, row_term
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class CRD(PairedSpec):
    """Contrasts each image with samples of other classes from a memory of the other network.

    The features of both networks are projected to `dim` numbers by trained linear layers; the
    teacher's features have no gradient. Two memories hold a vector for each training sample. `seed`
    changes which negatives are drawn.
    """

    weight: float = 0.8
    temperature: float = 0.07
    negatives: int = 16384
    dim: int = 128
    momentum: float = 0.5
    eps: float = 1e-7
    seed: int = 0
    pairs: PairsOption = field(default=PENULTIMATE, kw_only=True)
    name: Literal["crd"] = "crd"
    movable: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        "Contrastive representation distillation",
        "weight / N * sum over both directions of -log h+/(h+ + c + eps) - sum_K log c/(h- + c + "
        "eps),  h = exp(v . m / tau) / Z, c = negatives / samples, m of the other network's memory",
        "Tian, Krishnan, Isola: Contrastive representation distillation, ICLR 2020",
        ("features", "keys", "class"),
        "two memories of samples x dim numbers, which are part of checkpoints; each image is "
        "compared with its negatives in both; two linear layers; memory updates are gathered from "
        "all ranks",
        "It needs the index of each sample in the training set, and the classes of all samples. Z "
        "is computed from the first batch and kept. Negatives are samples of other classes, so at "
        "least two classes are needed.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature", "positive", self.temperature)
        require(self.negatives >= 1, "negatives", "at least 1", self.negatives)
        require(self.dim >= 1, "dim", "at least 1", self.dim)
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        require(self.eps >= 0, "eps", "non-negative", self.eps)
        require(self.seed >= 0, "seed", "non-negative", self.seed)

    def build(self, setting: Setting) -> Method:
        """The method, with memories for all training samples. Raises UserError without labels."""
        labels = setting.labels()
        parts = [ContrastMemory(self, *pair, len(labels)) for pair in vector_sizes(self, setting)]
        return Contrastive(self, self.taps(setting), parts, labels)


class Contrastive(Method):
    """One term per pair of taps, each with its own memories; all pairs use the same negatives."""

    def __init__(
        self, spec: CRD, pairs: TapPairs, parts: Sequence[ContrastMemory], labels: Tensor
    ) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])
        self.parts = nn.ModuleList(parts)
        self.negatives = Negatives(labels, spec.negatives, spec.seed)

    def forward(self, lesson: Lesson) -> Terms:
        """The loss of this rank's images; in training, all ranks' images update the memories."""
        if lesson.keys is None:
            raise UserError(
                "crd needs the index of each sample, but the task gives no keys; use a task whose "
                "lessons have keys"
            )
        keys, factor = lesson.keys, self.spec.weight * self.spec.ramp_factor(lesson.clock)
        samples = torch.cat((keys[:, None], self.negatives(keys, lesson.weight, lesson.clock)), 1)
        terms = {}
        for index, (place, part) in enumerate(zip(self.names, self.parts, strict=True)):
            student = upcast(lesson.student.taps[self.student_taps[index]])
            teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
            with full_precision(student):
                losses = part(student, teacher, samples, lesson.weight)
            terms[place] = row_term(losses, lesson.weight, factor)
        return terms


class ContrastMemory(nn.Module):
    """The projections of one pair of taps, and the last projection of each training sample."""

    equal_buffers: ClassVar[bool] = True
    memory: Tensor  # (2, samples, dim) of the student and of the teacher
    log_scale: Tensor  # (2,) log Z of each direction; minus infinity before the first batch

    def __init__(self, spec: CRD, student: int, teacher: int, samples: int) -> None:
        super().__init__()
        self.temperature, self.momentum, self.eps = spec.temperature, spec.momentum, spec.eps
        self.student, self.teacher = nn.Linear(student, spec.dim), nn.Linear(teacher, spec.dim)
        bound = (spec.dim / 3) ** -0.5
        memory = torch.empty(2, samples, spec.dim).uniform_(-bound, bound)
        self.register_buffer("memory", memory)
        self.register_buffer("log_scale", torch.full((2,), -math.inf))

    def forward(
        self, student: Tensor, teacher: Tensor, samples: Tensor, weight: Tensor | None
    ) -> Tensor:
        """The loss of each image, both directions: (N, E), (N, F), (N, 1 + K), (N,) -> (N,)."""
        vectors = unit_vectors(self.student(student)), unit_vectors(self.teacher(teacher))
        # each network's vectors are compared with the memory of the other network
        scores = [
            memory_scores(vector, self.memory[other], samples) / self.temperature
            for vector, other in zip(vectors, (1, 0), strict=True)
        ]
        scales = self.scales(scores, weight)
        if self.training:
            self.remember(samples[:, 0], vectors, weight, scales)
        number = self.memory.shape[1]
        finite = scales.nan_to_num(neginf=0.0)  # a batch in which all weights are 0 has no scale
        student_loss, teacher_loss = (
            noise_contrastive_loss(score, scale, number, self.eps)
            for score, scale in zip(scores, finite, strict=True)
        )
        return student_loss + teacher_loss

    @torch.no_grad()
    def scales(self, scores: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """log Z of each direction, that of the first batch of all ranks: 2 x (N, 1 + K) -> (2,)."""
        (sums,) = gather_rows(weight, torch.stack([score.logsumexp(1) for score in scores], 1))
        drawn = max(1, len(sums)) * scores[0].shape[1]
        estimate = sums.logsumexp(0) + math.log(self.memory.shape[1] / drawn)
        return estimate.where(self.log_scale.isneginf(), self.log_scale)

    @torch.no_grad()
    def remember(
        self, keys: Tensor, vectors: Sequence[Tensor], weight: Tensor | None, scales: Tensor
    ) -> None:
        """Update the memories with the samples of all ranks: (N,), 2 x (N, D), (N,), (2,)."""
        keys, *gathered = gather_rows(weight, keys, *vectors)
        if not len(keys):
            return
        same = keys[:, None] == keys  # copies of a sample all write the vector of the last copy
        newest = (same * torch.arange(len(keys), device=keys.device)).argmax(1)
        for memory, vector in zip(self.memory, gathered, strict=True):
            updated = self.momentum * memory[keys] + (1 - self.momentum) * vector[newest]
            memory[keys] = unit_vectors(updated)
        self.log_scale.copy_(scales)


def memory_scores(vectors: Tensor, memory: Tensor, samples: Tensor) -> Tensor:
    """Dot products with some samples: (N, D), (samples, D), (N, M) -> (N, M).

    The memory is updated in place before backward, so the products use a copy: of the selected
    samples, or of the whole memory where that is smaller.
    """
    if samples.numel() < len(memory):
        return (memory[samples] @ vectors[:, :, None]).squeeze(2)
    return (vectors @ memory.clone().mT).gather(1, samples)

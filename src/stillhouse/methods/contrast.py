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
from stillhouse.methods.relational import PENULTIMATE, widths
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term, rows_of_all
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class CRD(PairedSpec):
    """Each network finds an image among many of other classes, as the other network knew them.

    Both networks' features go through a trained linear layer to `dim` numbers; the raw features of
    the teacher carry no gradient. Two memories hold every training sample. `seed` moves the draws.
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
        "two memories of samples x dim numbers, which checkpoints hold; each image is compared "
        "with its negatives in both; two linear layers; what ranks learn is gathered",
        "It has to know which sample each image is, and the classes of all. Z stays what the first "
        "batch says. Negatives are of another class, which needs two classes at least.",
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
        """The method, its memories as large as the training set."""
        labels = setting.labels()
        parts = [Contrast(self, *pair, len(labels)) for pair in widths(self, setting)]
        return Contrastive(self, self.taps(setting), parts, labels)


class Contrastive(Method):
    """One term a pair of taps, each with its own memories, against the same negatives."""

    def __init__(
        self, spec: CRD, pairs: TapPairs, parts: Sequence[Contrast], labels: Tensor
    ) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps, self.teacher_taps = (tuple(side) for side in zip(*pairs, strict=True))
        self.names = term_names([AdaptedPair(*pair, nn.Identity()) for pair in pairs])
        self.parts = nn.ModuleList(parts)
        self.negatives = Negatives(labels, spec.negatives, spec.seed)

    def forward(self, lesson: Lesson) -> Terms:
        """The loss of own images, then what all ranks' images leave in the memories."""
        if lesson.keys is None:
            raise UserError("crd has to know which sample each image is, and the task does not say")
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


class Contrast(nn.Module):
    """Both networks' ways into one space, and where each last put every sample."""

    memory: Tensor  # (2, samples, dim), the student's and the teacher's
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
        # each network's image, among the samples as the memory of the other network has them
        scores = [
            looked_up(vector, self.memory[other], samples) / self.temperature
            for vector, other in zip(vectors, (1, 0), strict=True)
        ]
        scales = self.scales(scores, weight)
        if self.training:
            self.remember(samples[:, 0], vectors, weight, scales)
        number = self.memory.shape[1]
        known = scales.nan_to_num(neginf=0.0)  # of no images that count there is no scale
        ours, theirs = (
            noise_contrastive_loss(score, scale, number, self.eps)
            for score, scale in zip(scores, known, strict=True)
        )
        return ours + theirs

    @torch.no_grad()
    def scales(self, scores: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """log Z, that of the first batch of all ranks ever after: (N, 1 + K) twice -> (2,)."""
        (sums,) = rows_of_all(weight, torch.stack([score.logsumexp(1) for score in scores], 1))
        drawn = max(1, len(sums)) * scores[0].shape[1]
        found = sums.logsumexp(0) + math.log(self.memory.shape[1] / drawn)
        return found.where(self.log_scale.isneginf(), self.log_scale)

    @torch.no_grad()
    def remember(
        self, keys: Tensor, vectors: Sequence[Tensor], weight: Tensor | None, scales: Tensor
    ) -> None:
        """Move the samples of all ranks towards where they were seen: (N,), (N, D) twice, ..."""
        keys, *seen = rows_of_all(weight, keys, *vectors)
        if not len(keys):
            return
        same = keys[:, None] == keys  # of a sample that is there twice both write what the last saw
        newest = (same * torch.arange(len(keys), device=keys.device)).argmax(1)
        for memory, vector in zip(self.memory, seen, strict=True):
            moved = self.momentum * memory[keys] + (1 - self.momentum) * vector[newest]
            memory[keys] = unit_vectors(moved)
        self.log_scale.copy_(scales)


def looked_up(vectors: Tensor, memory: Tensor, samples: Tensor) -> Tensor:
    """Products with the samples named: (N, D), (samples, D), (N, M) -> (N, M).

    What is written into the memory later must not reach this backward, so there is a copy, of the
    samples named or of all, whichever are fewer.
    """
    if samples.numel() < len(memory):
        return (memory[samples] @ vectors[:, :, None]).squeeze(2)
    return (vectors @ memory.clone().mT).gather(1, samples)

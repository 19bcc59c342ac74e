"""Masked distillation with receptive tokens (Huang T. et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.batches import Objects
from stillhouse.distributed import combine, world_size
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.masks import mask_similarity, masked_difference
from stillhouse.methods.base import Method
from stillhouse.methods.generation import aligner
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.phases import check_length, in_first_phase
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import batch_term, row_term
from stillhouse.models.detectors.detector import Detector
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.models.detectors.two_stage_detector import TwoStageDetector
from stillhouse.models.places import declared_places
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.models.tokens import ReceptiveTokens
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Clock, Lesson, Term, Terms


@spec
class MasKD(LevelsSpec):
    """Squared differences in masks that tokens have learnt on the teacher in the first phase.

    During `init` (epochs, or below 1 a fraction of the run) the tokens are trained, and the student
    on labels only. Until `customise`, likewise from the start of the run, the masks are those of
    the teacher's maps; afterwards they are multiplied by those of the student's. The defaults are
    the 2,000 and 1,000 steps of the authors, on COCO for 12 epochs. `variant` "reference"
    multiplies maps by masks before they are squared, as the authors' code does.
    """

    weight: float = 10.0
    tokens: int = 6
    init: float = 0.023
    customise: float = 0.034
    variant: Variant = field(default="paper", kw_only=True)
    name: Literal["maskd"] = "maskd"
    card: ClassVar[Card] = Card(
        "Masked distillation with receptive tokens",
        "weight / N * sum over levels sum_k pi_k sum_hw m_k mean_c (f_t - W f_s)^2 / sum_hw m_k,  "
        "m_k = sigmoid(token_k . f_t), pi a softmax; during `init`, the label loss of the "
        "teacher's head for f_t sum_k pi_k m_k, plus the mean Dice coefficient of two masks",
        "Huang T. et al.: Masked distillation with receptive tokens, ICLR 2023",
        ("features", "boxes", "objects", "head"),
        "in the first phase the teacher's head, forward and backward; a 3x3 convolution per level "
        "at the teacher's width; discarded after training",
        "The authors learn the tokens before the student is trained; here the student learns from "
        "labels meanwhile. The teacher must be a detector of this library. All levels of its "
        "neck are compared. "
        "Weights of the authors: 1 two-stage, 7 RetinaNet, 10 FCOS and RepPoints. Beside it they "
        "compare predictions, which is another method here. Tokens are not trained after `init`.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tokens >= 1, "tokens", "at least 1", self.tokens)
        check_length(self.init)
        require(self.customise >= 0, "customise", "non-negative", self.customise)

    def build(self, setting: Setting) -> Method:
        """The method, with the tokens of each level."""
        detector = find_detector(setting.teacher)
        maps = self.level_pairs(setting)
        check_all_levels(setting.teacher, [pair.teacher for pair in maps])
        pairs = [AdaptedPair(pair.student, pair.teacher, aligner(pair)) for pair in maps]
        tokens = [ReceptiveTokens(self.tokens, pair.teacher_shape[1]) for pair in maps]
        return Masked(self, pairs, tokens, LabelLoss(detector, find_classes(setting.teacher)))


class Masked(AtLevels):
    """Trains the tokens in the first phase, then the student and the adapters.

    The terms are `tokens`, the label loss of masked maps, `diversity` and `masked`; those of the
    other phase are 0. The loss is that of the teacher itself, which is no part of the method.
    """

    spec: MasKD
    unused_parameters = True  # in each step, the tokens or the adapters have no gradient

    def __init__(
        self,
        published: MasKD,
        pairs: Sequence[AdaptedPair],
        tokens: Sequence[ReceptiveTokens],
        loss: LabelLoss,
    ) -> None:
        super().__init__(published, pairs)
        self.tokens = nn.ModuleList(tokens)
        self.power = 2.0 if published.variant == "reference" else 1.0
        self._loss = (loss,)  # in a tuple, so that nn.Module does not register it

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of one batch."""
        first_phase = in_first_phase(self.spec.init, lesson.clock)
        taps = [lesson.teacher.taps[tap] for tap in self.teacher_taps]
        zeros = upcast(taps[0]).new_zeros(len(taps[0]))
        ramp = self.spec.ramp_factor(lesson.clock)
        learnt, similarity, losses = batch_term(zeros.sum(), 0.0), zeros, zeros
        if first_phase:
            with full_precision(taps[0]):
                masked, similarity = self.mask([upcast(tap.detach()) for tap in taps])
            learnt = self.label_term(masked, lesson)
        else:
            with full_precision(taps[0]):
                levels = self.levels(lesson)
                parts = [self.distil(i, each, lesson.clock) for i, each in enumerate(levels)]
                losses = torch.stack(parts).sum(0)
        return {
            "tokens": learnt,
            "diversity": row_term(similarity, lesson.weight, float(first_phase)),
            "masked": row_term(
                losses, lesson.weight, 0.0 if first_phase else ramp * self.spec.weight
            ),
        }

    def mask(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The masked maps of all levels, and how alike masks are: L x (N, C, H, W), (N,)."""
        pairs = [tokens(each) for tokens, each in zip(self.tokens, maps, strict=True)]
        masked, masks = zip(*pairs, strict=True)
        return list(masked), torch.stack([mask_similarity(each) for each in masks]).sum(0)

    def label_term(self, maps: Sequence[Tensor], lesson: Lesson) -> Term:
        """The label loss of the teacher's head for masked maps, 0 for images without labels.

        It is the sum of terms that have masses of their own, so each is divided by that of all
        ranks. The parameters of the teacher get no gradient.
        """
        if lesson.objects is None:
            return batch_term(0 * torch.stack([each.sum() for each in maps]).sum())
        (loss_of,), out = self._loss, lesson.teacher.out
        parameters = {name: p.detach() for name, p in loss_of.named_parameters()}
        dtype = next(iter(parameters.values())).dtype
        levels = [each.to(dtype) for each in maps]
        size = out.size if isinstance(out, TwoStage) else None
        terms = functional_call(loss_of, parameters, (levels, lesson.objects, size))
        loss = combine(terms) / world_size()
        return Term(loss, torch.ones_like(loss), shared=True)

    def distil(self, index: int, level: LevelPair, clock: Clock) -> Tensor:
        """The masked differences of one level, for each image: -> (N,).

        The tokens get no gradient at all, so that the optimiser skips them.
        """
        tokens = self.tokens[index]
        assert isinstance(tokens, ReceptiveTokens)
        with torch.no_grad():
            masks, share = tokens.masks(level.teacher), tokens.share(level.teacher)
            if not in_first_phase(self.spec.customise, clock):
                masks = masks * tokens.masks(level.student)
        maps = (level.student.flatten(2), level.teacher.flatten(2))
        return masked_difference(*maps, masks, share, self.power)


class LabelLoss(nn.Module):
    """The label loss of a detector for given maps of its levels.

    `classes` (C,) are the numbers that the detector has for the classes of the labels, None where
    they are the same.
    """

    def __init__(self, detector: Detector | TwoStageDetector, classes: Tensor | None) -> None:
        super().__init__()
        self.detector, self.classes = detector, classes

    def forward(
        self, levels: list[Tensor], objects: Objects, size: tuple[int, int] | None
    ) -> Terms:
        """L x (N, C, H, W), and the size of the images in two stages -> the terms of the loss."""
        if self.classes is not None:
            objects = replace(
                objects, labels=self.classes.to(objects.labels.device)[objects.labels]
            )
        if isinstance(self.detector, TwoStageDetector):
            assert size is not None
            proposed = self.detector.predict(levels, size)
            return proposed.terms(proposed.assign(objects))
        dense = self.detector.predict(levels)
        return dense.terms(dense.assign(objects))


def find_detector(network: nn.Module) -> Detector | TwoStageDetector:
    """The detector of this library in a network; raises UserError for others."""
    for part in network.modules():
        if isinstance(part, Detector | TwoStageDetector):
            return part
    raise UserError(
        f"method maskd runs the teacher's head on masked maps, but {type(network).__name__} has no "
        "head that can be run alone; take a teacher such as detector/gfocal or "
        "detector/faster_rcnn"
    )


def find_classes(network: nn.Module) -> Tensor | None:
    """The numbers that a teacher has for the classes of the data; None where they are the same."""
    found = (part.select for part in network.modules() if isinstance(part, TeacherWrapper))
    return next(found, None)


def check_all_levels(network: nn.Module, taps: Sequence[str]) -> None:
    """Raise UserError unless the taps are all levels of a network, in their order."""
    levels = declared_places(network).levels
    if [levels.get(tap, tap) for tap in taps] != list(levels.values()):
        raise UserError(
            f"method maskd runs the teacher's head, which reads the levels {', '.join(levels)}, "
            f"but the pairs have {', '.join(taps)}; set method.pairs=levels"
        )

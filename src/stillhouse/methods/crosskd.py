"""CrossKD: the student's features in the teacher's detection head (Wang J. et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.errors import UserError
from stillhouse.functional.boxes import giou, iou
from stillhouse.functional.divergence import sigmoid_kl, softmax_kl
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.alignment import align_channels
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting, Side
from stillhouse.models.detectors.atss import ATSS
from stillhouse.models.detectors.detector import Detector
from stillhouse.models.detectors.fcos import FCOS
from stillhouse.models.detectors.gfocal import GFocal
from stillhouse.models.detectors.losses import SMALLEST, masked_sum
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.retinanet import RetinaNet
from stillhouse.models.detectors.tower import DenseHead
from stillhouse.objectives.activation import Sigmoid
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import CrossEntropy
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.reduction import PerObject
from stillhouse.objectives.weighting import Disagreement
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Site, Term, Terms

SITE = "class"
SIDES = 4


def giou_losses(cross: Dense, own: Dense) -> Tensor:
    """1 - GIoU of the decoded boxes of two outputs: -> (N, P)."""
    return 1 - giou(cross.decoded, own.decoded)


def log_iou_losses(cross: Dense, own: Dense) -> Tensor:
    """-log IoU of the decoded boxes of two outputs: -> (N, P)."""
    overlap = iou(cross.decoded, own.decoded)
    return -overlap.clamp(min=SMALLEST).log()


def bin_losses(cross: Dense, own: Dense) -> Tensor:
    """KL between the distributions of a side, the mean of the four: -> (N, P)."""
    rows = [one.boxes.unflatten(-1, (SIDES, -1)).flatten(0, 2) for one in (cross, own)]
    return softmax_kl(*rows).view(*own.boxes.shape[:2], SIDES).mean(-1)


class Settings(NamedTuple):
    """What the authors' configurations have for one family of teachers."""

    after: int
    weight: float
    box_weight: float
    compare: Callable[[Dense, Dense], Tensor] = giou_losses  # boxes -> (N, P)
    by_confidence: bool = False  # whether box losses are divided by the sum of their weights
    quality: bool = False  # whether centre-ness is compared


PUBLISHED: Mapping[type, Settings] = {
    RetinaNet: Settings(3, 1.0, 1.0),
    FCOS: Settings(2, 0.4, 0.75, log_iou_losses),
    ATSS: Settings(3, 1.0, 1.0, quality=True),
    GFocal: Settings(3, 1.0, 4.0, bin_losses, by_confidence=True),
}


@spec
class CrossKD(ComposedMethod):
    """The student's head features go through the rest of the teacher's head.

    What comes out is compared with the teacher's own predictions. `after` is the layer of the
    towers whose features cross over, 0 for the level of the neck. None stands for what the authors
    have for the teacher's family: see the card.
    """

    after: int | None = None
    weight: float | None = None  # of the classes
    box_weight: float | None = None
    beta: float = 1.0
    align: bool = True  # give the student's features the teacher's mean and deviation per channel
    name: Literal["crosskd"] = "crosskd"
    card: ClassVar[Card] = Card(
        "Cross-head distillation of detectors",
        "(weight * sum |q - p|^beta BCE(q, p) + box_weight * sum w L(boxes)) / positives,  "
        "p, q = sigmoid of the teacher's scores and of those that its head gives for the student's "
        "features, w = max_c p;  L = 1 - GIoU",
        "Wang J. et al.: CrossKD: Cross-head knowledge distillation for object detection, "
        "CVPR 2024",
        ("logits", "boxes", "features", "head", "batch"),
        "the last layers of the teacher's head, forward and backward; nothing trainable",
        "By the teacher's family (after; weight; box_weight, L): RetinaNet 3; 1; 1, GIoU. ATSS the "
        "same, and the KL of centre-ness at positives with weight 1. FCOS 2; 0.4; 0.75, -log IoU. "
        "GFocal 3; 1; 4, KL of bins over the sum of w. For FCOS the authors divide by the sum of "
        "centre-ness instead of positives. Features cross over before the ReLU of their layer. As "
        "in the authors' code, they first get the teacher's mean and deviation per channel (over "
        "images of all ranks), unless align is false. Both heads must have the same width.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.after is None or self.after >= 0, "after", "non-negative", self.after)
        require(self.beta >= 0, "beta", "non-negative", self.beta)

    def build(self, setting: Setting) -> Method:
        """The method for two detectors with towers of the same width; it trains nothing."""
        student, teacher = find_head(setting, "student"), find_head(setting, "teacher")
        published = PUBLISHED[type(teacher.family)]
        after = published.after if self.after is None else self.after
        for head in (student, teacher):
            head.check_depth(after)
        taps = student.taps(after), teacher.taps(after)
        shapes = setting.student_shapes(taps[0]), setting.teacher_shapes(taps[1])
        widths = [shape[taps[side][0]][1] for side, shape in enumerate(shapes)]
        if widths[0] != widths[1]:
            raise UserError(
                f"method crosskd puts features of the student into the teacher's head, but they "
                f"have {widths[0]} channels and the teacher's {widths[1]}; give both networks the "
                "same options.neck.width and options.head.width"
            )
        return CrossHead(self, published, after, teacher.head, taps)


class FoundHead(NamedTuple):
    """The head of a detector, its path, and the family of the detector."""

    side: Side
    path: str
    head: DenseHead
    family: object

    def check_depth(self, after: int) -> None:
        """Raise UserError if the towers have fewer layers."""
        depth = self.head.class_tower.depth
        if after > depth:
            raise UserError(
                f"method crosskd reads the features after layer {after} of the head, but the "
                f"towers of the {self.side} have {depth}; set method.after to {depth} or less"
            )

    def taps(self, after: int) -> tuple[str, ...]:
        """The features of all levels in the tower of classes, then those in that of boxes."""
        towers = {"class_tower": self.head.class_tower, "box_tower": self.head.box_tower}
        return tuple(
            f"{self.path}.{name}.{tower.place(after)}@{level}"
            for name, tower in towers.items()
            for level in range(len(self.head.scales))
        )


def find_head(setting: Setting, side: Side) -> FoundHead:
    """The head of a detector of one of the families; raises UserError for other networks."""
    network = setting.student if side == "student" else setting.teacher
    for path, part in network.named_modules():
        if not isinstance(part, Detector):
            continue
        if isinstance(part.head, DenseHead) and type(part.family) in PUBLISHED:
            return FoundHead(side, f"{path}.head".lstrip("."), part.head, part.family)
        network = part
    kind = type(network.family if isinstance(network, Detector) else network).__name__
    raise UserError(
        "method crosskd needs detectors whose head has a tower of convolutions for classes and one "
        f"for boxes, but the {side}, {kind}, is none; take detector/retinanet, fcos, atss or gfocal"
    )


class CrossHead(Method):
    """Compares the predictions of the teacher's head for features of both networks.

    The head is the teacher's own, not a copy, and not a part of the method.
    """

    sites = (SITE,)

    def __init__(
        self,
        spec: CrossKD,
        published: Settings,
        after: int,
        head: nn.Module,
        taps: tuple[tuple[str, ...], tuple[str, ...]],
    ) -> None:
        super().__init__()
        self.spec, self.published, self.after = spec, published, after
        self.label_share = spec.label_share
        self._head = (head,)  # in a tuple, so that nn.Module does not register it
        self.student_taps = taps[0]
        self.teacher_taps = taps[1] if spec.align else ()
        self.objective = LogitObjective(
            activation=Sigmoid(),
            distance=CrossEntropy(),
            weighting=Disagreement(spec.beta),
            reduction=PerObject(),
            weight=published.weight if spec.weight is None else spec.weight,
        )
        self.box_weight = published.box_weight if spec.box_weight is None else spec.box_weight

    def forward(self, lesson: Lesson) -> Terms:
        """`class/crosskd` and `box/crosskd`, and `quality/crosskd` for ATSS."""
        own: Dense = lesson.teacher.detached().out
        cross = self.predict(lesson, own)
        rows = replace(lesson.sites[SITE], student=cross.scores.flatten(0, 1))
        with full_precision(own.scores):
            terms = {
                SITE: self.objective(rows),
                "box": self.box_term(cross, own, rows),
            }
            if self.published.quality:
                terms["quality"] = quality_term(cross, own, rows)
        ramp = self.spec.ramp_factor(lesson.clock)
        return {
            f"{name}/crosskd": term._replace(weight=ramp * term.weight)
            for name, term in terms.items()
        }

    def predict(self, lesson: Lesson, own: Dense) -> Dense:
        """What the teacher's head makes of the student's features.

        It runs in the precision of the networks. Its parameters get no gradient.
        """
        features = [lesson.student.taps[tap] for tap in self.student_taps]
        if self.spec.align:
            features = align_channels(features, [lesson.teacher.taps[t] for t in self.teacher_taps])
        (head,), half = self._head, len(features) // 2
        parameters = {name: p.detach() for name, p in head.named_parameters()}
        dtype = next(iter(parameters.values())).dtype
        maps = [x.to(dtype) for x in features]
        raw = functional_call(head, parameters, (maps[:half], maps[half:], self.after))
        return replace(own, scores=raw.scores, boxes=raw.boxes, quality=raw.quality)

    def box_term(self, cross: Dense, own: Dense, rows: Site) -> Term:
        """The losses of boxes, weighted by the teacher's highest score of each prior."""
        assert rows.weight is not None and rows.mass is not None
        losses = self.published.compare(cross, own)
        confidence = upcast(own.scores).amax(-1).sigmoid() * rows.weight.view_as(losses)
        mass = confidence.sum() if self.published.by_confidence else rows.mass
        total = masked_sum(losses, confidence)
        return Term(total, mass.to(total.dtype), self.box_weight)


def quality_term(cross: Dense, own: Dense, rows: Site) -> Term:
    """KL between the centre-ness of positive priors."""
    assert cross.quality is not None and own.quality is not None
    assert rows.target is not None and rows.mass is not None
    losses = sigmoid_kl(upcast(cross.quality), own.quality)
    total = masked_sum(losses, (rows.target >= 0).view_as(losses))
    return Term(total, rows.mass.to(total.dtype))

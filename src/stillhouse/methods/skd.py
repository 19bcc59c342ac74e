"""Structured knowledge distillation (Liu Y. et al., 2019 and 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.pairwise import cell_maxima, cell_size, pairwise_difference
from stillhouse.methods.adversary import IMAGES, Adversary, make_adversary
from stillhouse.methods.base import Method
from stillhouse.methods.maps import MapPair, check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class SKD(PairedSpec):
    """Matches the similarities of the cells of a map, and class maps against a critic.

    `grid` is the number of cells a side of the map, or below 1 the share of the side that a cell
    covers. `variant` "reference" has no gradient through the norms of features, as the authors'
    code. `adversarial` trains a critic of class maps, with the hinge loss or as a Wasserstein
    critic whose gradient penalty is `penalty`; `adversarial_weight` is the weight of the student's
    loss and `critic_weight` that of the critic's. `seed` changes the random points of the penalty.
    """

    weight: float = 10.0
    grid: float = 2
    variant: Variant = "paper"
    adversarial: Literal["none", "hinge", "wgan"] = "none"
    adversarial_weight: float = 0.001
    critic_weight: float = 0.1
    penalty: float = 10.0
    seed: int = 0
    name: Literal["skd"] = "skd"
    card: ClassVar[Card] = Card(
        "Structured knowledge distillation",
        "weight / P^2 * sum_ij ( cos(s_i, s_j) - cos(t_i, t_j) )^2 over the maxima of P cells; "
        "- adversarial_weight * D(student, image),  D trained by critic_weight * (relu(1 - "
        "D(teacher)) + relu(1 + D(student))), or * (D(student) - D(teacher) + penalty * (|grad D| "
        "- 1)^2)",
        "Liu Y. et al.: Structured knowledge distillation for semantic segmentation, CVPR 2019; "
        "for dense prediction, TPAMI 2020",
        ("features",),
        "a cosine for each two cells; the critic, about as large as a small student, is discarded "
        "after training; optimiser group `critic`",
        "Its pixel-wise part is kd at site pixel, a method of its own. The authors' code has "
        "weight 0.5 beside kd of weight 10, and a wgan with weights 0.1 and 0.1, whose critic has "
        "Adam of learning rate 4e-4, betas (0.9, 0.99); the defaults are for kd of weight 1 and "
        "hinge. With weight 0 only the critic is left. A few cells say little of the scene.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.grid >= 2 and self.grid == int(self.grid)
        require(
            whole or 0 < self.grid < 1,
            "grid",
            "a whole number of 2 or more cells, or a share of the side below 1",
            self.grid,
        )
        for name in ("weight", "adversarial_weight", "critic_weight", "penalty", "seed"):
            require(getattr(self, name) >= 0, name, "non-negative", getattr(self, name))
        if not self.weight and self.adversarial == "none":
            raise ValueError("`weight` is 0 without a critic; set adversarial, or a weight above 0")

    def build(self, setting: Setting) -> Method:
        """The method, with a critic if it has one. Raises UserError for taps without maps."""
        maps = check_maps(setting, self.taps(setting))
        for pair in maps:
            check_cells(pair, self.grid)
        pairs = [AdaptedPair(pair.student, pair.teacher, nn.Identity()) for pair in maps]
        adversary = None
        if self.adversarial != "none":
            adversary = make_adversary(setting, self.adversarial, self.penalty, self.seed)
        return Structured(self, pairs, adversary)


class Structured(Paired):
    """One term a pair, and with a critic `holistic` of the student and `critic` of the critic."""

    spec: SKD

    def __init__(
        self, published: SKD, pairs: Sequence[AdaptedPair], adversary: Adversary | None
    ) -> None:
        super().__init__(published, pairs, [published.weight] * len(pairs))
        self.adversary = adversary
        if adversary is not None:
            self.student_taps = (*self.student_taps, IMAGES)

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of one batch; the critic's has its full weight from the start."""
        terms = super().forward(lesson)
        if self.adversary is not None:
            student, critic = self.adversary(lesson)
            factor = self.spec.ramp_factor(lesson.clock) * self.spec.adversarial_weight
            terms["holistic"] = row_term(student, lesson.weight, factor)
            terms["critic"] = row_term(critic, lesson.weight, self.spec.critic_weight)
        return terms

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The difference of similarities of each image: (N, C, H, W), (N, D, h, w) -> (N,)."""
        cells = [cell_maxima(maps, self.spec.grid) for maps in (student, teacher)]
        return pairwise_difference(cells[0], cells[1], self.spec.variant == "reference")

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The critic's parameters, in the group `critic`; there are no others."""
        return {} if self.adversary is None else {"critic": self.adversary.parameters()}


def check_cells(pair: MapPair, grid: float) -> None:
    """Raise UserError for maps that a share of the side divides into different numbers of cells."""
    if grid >= 1:
        return
    counts = []
    for _, _, height, width in (pair.student_shape, pair.teacher_shape):
        size = cell_size(height, width, grid)
        counts.append((-(-height // size[0]), -(-width // size[1])))
    if counts[0] != counts[1]:
        (rows, columns), (others, more) = counts
        raise UserError(
            f"grid={grid:g} divides the student's tap {pair.student!r} into {rows} x {columns} "
            f"cells and the teacher's {pair.teacher!r} into {others} x {more}; set method.grid to "
            "a number of cells, such as 2"
        )

"""Correlation congruence, as in its paper and as in public code (Peng et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.functional import relation
from stillhouse.methods.base import Method
from stillhouse.methods.relational import (
    PENULTIMATE,
    Relation,
    Relational,
    RelationSpec,
    vector_sizes,
)
from stillhouse.methods.setting import Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.spec import require, spec

WEIGHTS = {"paper": 100.0, "reference": 0.02}


@spec
class CC(RelationSpec):
    """Matches Gaussian kernels between the images of a batch.

    Variant "paper" computes the kernel from the features themselves, as a Taylor series of an
    `order`. Kernels do not depend on the width of features, so no embedding is trained that could
    collapse. Variant "reference" is the code of Tian et al.: features are projected by a trained
    linear layer of `dim` outputs in each network, and neighbouring images of the batch are
    multiplied. `weight` None is the value of public code: 100 for "paper", 0.02 for "reference".
    """

    variant: Literal["paper", "reference"] = "paper"
    weight: float | None = None
    gamma: float = 0.4
    order: int = 2
    dim: int = 128  # of the layers of the reference variant
    pairs: PairsOption = field(default=PENULTIMATE, kw_only=True)
    name: Literal["cc"] = "cc"
    movable: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        "Correlation congruence",
        "weight / N^2 * |K_s - K_t|_F^2,  K_ij = exp(-2 gamma) sum_p (2 gamma)^p / p! "
        "cos(f_i, f_j)^p up to the order;  reference: weight * mean_i sum |d_i| |d_i+1|, "
        "d = E_s f_s - E_t f_t",
        "Peng et al.: Correlation congruence for knowledge distillation, ICCV 2019",
        ("features", "batch"),
        "a cosine for each pair of images; the reference variant trains a linear layer on each "
        "network; features of all ranks are gathered",
        "It ignores the scale of features. The reference variant depends on the order of images, "
        "and its trained teacher layer may collapse to a constant.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gamma > 0, "gamma", "positive", self.gamma)
        require(self.order >= 1, "order", "at least 1", self.order)
        require(self.dim >= 1, "dim", "at least 1", self.dim)

    def relations(self) -> Mapping[str, tuple[Relation, float]]:
        """The kernel relation or the neighbour relation, by the variant."""
        weight = WEIGHTS[self.variant] if self.weight is None else self.weight
        kernel = partial(relation.kernel_relation, gamma=self.gamma, order=self.order)
        return {"cc": (kernel if self.variant == "paper" else relation.neighbour_relation, weight)}

    def build(self, setting: Setting) -> Method:
        """The method, with a trained linear layer per network in the reference variant."""
        if self.variant == "paper":
            return super().build(setting)
        return Correlation(self, self.taps(setting), vector_sizes(self, setting))


class Correlation(Relational):
    """Relations between features that are projected by a trained linear layer per network."""

    def __init__(self, spec: CC, pairs: TapPairs, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__(spec, pairs)
        self.student = nn.ModuleList(nn.Linear(student, spec.dim) for student, _ in sizes)
        self.teacher = nn.ModuleList(nn.Linear(teacher, spec.dim) for _, teacher in sizes)

    def embed(self, index: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The projected features: (N, E), (N, F) -> (N, D), (N, D)."""
        return self.student[index](student), self.teacher[index](teacher)

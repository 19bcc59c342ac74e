"""What a method may look at before training begins: both networks and an example batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.models.aliases import find_aliases, refusal
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.pairing import (
    PairStages,
    Shapes,
    pair_last_stages,
    pair_stages_in_order,
    suggest_pairs,
)
from stillhouse.models.places import PENULTIMATE, declared_places, is_stage
from stillhouse.models.pooled_head import PooledHead, find_pooled_head
from stillhouse.models.tap_path import PRE
from stillhouse.models.taps import tap_shapes
from stillhouse.objectives.presets.base import check_sites
from stillhouse.objectives.presets.feature import PairsOption, TapPairs
from stillhouse.objectives.published import Published
from stillhouse.spec import spec

Side = Literal["student", "teacher"]


PAIR_STAGES: dict[str, PairStages] = {
    "stages": suggest_pairs,
    "stage_order": pair_stages_in_order,
    "last_stage": pair_last_stages,
}


def no_labels() -> Tensor:
    """Raise UserError, in place of the classes of all samples that nobody gave."""
    raise UserError(
        "this method keeps a memory of every training sample and needs their classes: use it in a "
        "recipe, or give Distiller(..., labels=classes of all samples)"
    )


@dataclass(frozen=True)
class Setting:
    """The two networks, a batch of images for dry runs, and the classes of all samples."""

    student: nn.Module
    teacher: nn.Module
    example: Tensor
    labels: Callable[[], Tensor] = field(default=no_labels)  # -> (samples,)

    def student_shapes(self, taps: Iterable[str]) -> Shapes:
        """The shape of each tap of the student, batch axis first."""
        return tap_shapes(self.student, taps, self.example)

    def teacher_shapes(self, taps: Iterable[str]) -> Shapes:
        """The shape of each tap of the teacher, batch axis first."""
        return tap_shapes(self.teacher, taps, self.example)

    def student_output(self) -> Any:
        """What the student gives for the example."""
        with undisturbed(self.student):
            return self.student(self.example)

    def student_head(self) -> PooledHead:
        """The student's classifier, and the map whose mean it reads."""
        return find_pooled_head(self.student, self.example)

    def teacher_head(self) -> PooledHead:
        """The teacher's classifier, and the map whose mean it reads."""
        return find_pooled_head(self.teacher, self.example)

    def has_vectors(self) -> bool:
        """Whether the classifiers of both networks read one vector an image."""
        networks = (self.student, self.teacher)
        return all(PENULTIMATE in find_aliases(network, self.example) for network in networks)

    def resolve_pairs(self, pairs: PairsOption) -> TapPairs:
        """The pairs of taps that a recipe names, or those of the two networks that a word means.

        "stages": all stages, paired by the size of their maps. "stage_order": all stages, paired by
        their numbers, as public code for small images does. "last_stage": the deepest stage of
        each. "levels": the levels whose names both networks declare. Raises UserError where there
        are none to pair.
        """
        if not isinstance(pairs, str):
            return pairs
        if pairs == "levels":
            return self.level_pairs()
        return self.stage_pairs(PAIR_STAGES[pairs])

    def stage_pairs(self, pair: PairStages = suggest_pairs) -> TapPairs:
        """The stages of both networks that belong together, shallowest first."""
        student, teacher = (
            [name for name in find_aliases(network, self.example) if is_stage(name)]
            for network in (self.student, self.teacher)
        )
        pairs = pair(self.student_shapes(student), self.teacher_shapes(teacher))
        if not pairs:
            networks = (self.student, self.teacher)
            doubts = (refusal(network, "stage1", self.example) for network in networks)
            raise UserError(
                next(filter(None, doubts), None)
                or "the networks have no stages in common; name the taps under method.pairs, as in "
                "pairs: [[layer3, blocks.5]]"
            )
        return tuple(pairs)

    def level_pairs(self) -> TapPairs:
        """The levels of the same name that both networks declare, in the student's order."""
        student, teacher = declared_places(self.student), declared_places(self.teacher)
        remedy = "name the taps under method.pairs, as in pairs: [[neck.p3, neck.p3]]"
        for side, network, places in (
            ("student", self.student, student),
            ("teacher", self.teacher, teacher),
        ):
            if not places.levels:
                raise UserError(
                    f"pairs: levels needs networks that declare their levels, and the {side} "
                    f"{type(network).__name__} declares none; declare them "
                    f"(stillhouse.models.places), or {remedy}"
                )
        common = tuple((name, name) for name in student.levels if name in teacher.levels)
        if not common:
            raise UserError(
                f"the student has the levels {', '.join(student.levels)} and the teacher "
                f"{', '.join(teacher.levels)}, none of them in common; {remedy}"
            )
        return common

    def before_activation(self, pairs: TapPairs, side: Side) -> TapPairs:
        """The same pairs, the taps of one side moved before the ReLU that ends their stage.

        A stage that ends without a ReLU is tapped as it is.
        """
        network = self.student if side == "student" else self.teacher
        aliases = find_aliases(network, self.example)
        index = 0 if side == "student" else 1

        def moved(pair: tuple[str, str]) -> tuple[str, str]:
            name = f"{pair[index]}{PRE}"
            if name not in aliases:
                return pair
            return (name, pair[1]) if index == 0 else (pair[0], name)

        return tuple(moved(pair) for pair in pairs)


@spec
class ComposedMethod(Published):
    """A method of the literature that is more than points of the product space."""

    def reshape(self, setting: Setting) -> nn.Module:
        """The student that is trained; by default the network of the recipe, unchanged."""
        return setting.student

    def build(self, setting: Setting) -> Method:
        """The method for these two networks, with the parameters that it trains."""
        raise NotImplementedError


@spec
class AtSites(ComposedMethod):
    """A method that compares logits at one or more sites of a task."""

    sites: tuple[str, ...] = field(default=("class",), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)

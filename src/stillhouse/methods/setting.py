"""What a method with parts of its own may look at before training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.models.head import Head, head
from stillhouse.models.pairing import suggest
from stillhouse.models.probe import shapes
from stillhouse.models.stages import PRE, staged, stages
from stillhouse.objectives.presets.base import check_sites
from stillhouse.objectives.published import Published
from stillhouse.spec import spec

Pairs = tuple[tuple[str, str], ...]
Shapes = Mapping[str, torch.Size]


def unknown() -> Tensor:
    """The classes of samples that nobody named."""
    raise UserError(
        "this method keeps a memory of every training sample and needs their classes: use it in a "
        "recipe, or give Distiller(..., labels=classes of all samples)"
    )


@dataclass(frozen=True)
class Setting:
    """The two networks, a batch of images to look at them with, and the classes of all samples."""

    student: nn.Module
    teacher: nn.Module
    example: Tensor
    labels: Callable[[], Tensor] = field(default=unknown)  # -> (samples,)

    def student_shapes(self, taps: Iterable[str]) -> Shapes:
        """The shape of each tap of the student, batch axis first."""
        return shapes(self.student, taps, self.example)

    def teacher_shapes(self, taps: Iterable[str]) -> Shapes:
        """The shape of each tap of the teacher, batch axis first."""
        return shapes(self.teacher, taps, self.example)

    def student_head(self) -> Head:
        """The student's classifier, and the map whose mean it reads."""
        return head(self.student, self.example)

    def teacher_head(self) -> Head:
        """The teacher's classifier, and the map whose mean it reads."""
        return head(self.teacher, self.example)

    def has_vectors(self) -> bool:
        """Whether the classifiers of both networks read one vector an image."""
        networks = (self.student, self.teacher)
        return all("penultimate" in stages(network, self.example) for network in networks)

    def resolve_pairs(self, pairs: Pairs | Literal["stages"]) -> Pairs:
        """The pairs of taps; "stages" pairs all stages of the two networks by their size."""
        return self.stage_pairs() if isinstance(pairs, str) else pairs

    def stage_pairs(self) -> Pairs:
        """The stages of both networks that belong together, shallowest first."""
        ours, theirs = (
            {name: path for name, path in stages(network, self.example).items() if staged(name)}
            for network in (self.student, self.teacher)
        )
        found = suggest(self.student_shapes(ours), self.teacher_shapes(theirs))
        if not found:
            raise UserError(
                "the networks have no stages in common; name the taps under method.pairs, as in "
                "pairs: [[layer3, blocks.5]]"
            )
        return tuple(found)

    def before_activation(self, pairs: Pairs, who: Literal["student", "teacher"]) -> Pairs:
        """The same pairs, one side of them before the ReLU that ends its stage, where it has one.

        A stage that ends without one is tapped as it is.
        """
        network = self.student if who == "student" else self.teacher
        known = stages(network, self.example)
        index = 0 if who == "student" else 1

        def turned(pair: tuple[str, str]) -> tuple[str, str]:
            name = f"{pair[index]}{PRE}"
            if name not in known:
                return pair
            return (name, pair[1]) if index == 0 else (pair[0], name)

        return tuple(turned(pair) for pair in pairs)


@spec
class Composed(Published):
    """A method of the literature that is more than points of the product space."""

    def reshape(self, setting: Setting) -> nn.Module:
        """The student that is trained and shipped: the one of the recipe, unless a method says."""
        return setting.student

    def build(self, setting: Setting) -> Method:
        """The method, with whatever it trains, for these two networks."""
        raise NotImplementedError


@spec
class AtSites(Composed):
    """A method that compares logits at one or more sites of a task."""

    sites: tuple[str, ...] = field(default=("class",), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)

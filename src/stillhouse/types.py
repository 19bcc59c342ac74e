"""The types that all packages share. It imports torch and `errors` only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils._pytree import tree_map

from stillhouse.errors import UserError


class Term(NamedTuple):
    """A weighted mean that has not been taken yet.

    A loss stays a sum and the mass to divide it by until `combine` has seen the mass of every
    rank, so a ragged batch, an ignored pixel or an image without boxes cannot bias it.
    """

    total: Tensor  # ()
    mass: Tensor  # ()
    weight: float = 1.0
    shared: bool = False  # every rank holds the whole mass, so it is not summed over ranks
    least: float = 0.0  # the mass is at least this over all ranks: 1.0 for max(positives, 1)

    def mean(self) -> Tensor:
        """The mean on this process alone, without the weight: -> (). NaN without a mass."""
        mass = self.mass.clamp(min=self.least) if self.least else self.mass
        return self.total / divisor(self.total, mass)


def divisor(total: Tensor, mass: Tensor) -> Tensor:
    """What to divide totals by: (...), (...) -> (...).

    It is infinite where total and mass are both 0, so that the mean and its gradient are exactly
    0, and NaN where only the mass is 0, so that the mean is undefined instead of huge.
    """
    positive = mass.clamp(min=1e-12)
    without_mass = total.new_full(total.shape, math.nan).masked_fill(total == 0, math.inf)
    return positive.where(mass != 0, without_mass)


Terms = dict[str, Term]


@dataclass(frozen=True, slots=True)
class Trace:
    """What one network gave for one batch: its output, and the tensors that were tapped."""

    out: Any
    taps: Mapping[str, Tensor] = field(default_factory=dict)

    def detached(self) -> Trace:
        """The same without gradients."""
        taps = {name: tap.detach() for name, tap in self.taps.items()}
        return Trace(tree_map(_detached, self.out), taps)


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if is_dataclass(value) and not isinstance(value, type):
        parts = {p.name: tree_map(_detached, getattr(value, p.name)) for p in fields(value)}
        return replace(value, **parts)
    return value


STRONG = "strong"  # of the second view: the site `class@strong`
LEARNING = "teacher"  # whose teacher side has a gradient: `class@teacher`
MEMBERS = "members"  # of one of several teachers: `class@members.0`


def variant(site: str, name: str) -> str:
    """The name of a site's variant: `class@strong`."""
    return f"{site}@{name}"


@dataclass(frozen=True, slots=True)
class Site:
    """A place where two networks can be compared, row by row, and what is known of each row."""

    student: Tensor  # (N, C)
    teacher: Tensor  # (N, C)
    target: Tensor | None = None  # (N,) class index, or (N, C) multi-hot
    weight: Tensor | None = None  # (N,) zero drops the row
    mass: Tensor | None = None  # () what a sum over rows is to be divided by: objects, positives


Place = tuple[slice, ...]


class Pieces(Protocol):
    """The rows of a site in pieces, each made when it is needed."""

    @property
    def student(self) -> Tensor:
        """What the rows of the student are made of, and what has their gradient."""
        ...

    @property
    def mass(self) -> Tensor | None:
        """As that of a site."""
        ...

    @property
    def large(self) -> bool:
        """Whether a copy of all rows costs more than pieces."""
        ...

    def weights(self) -> Tensor:
        """The weight of each row of all pieces: (N,)."""
        ...

    def labelled(self) -> Pieces:
        """The same with weight 0 for rows of target -1, which then have any other."""
        ...

    def places(self) -> Sequence[Place]:
        """Where each piece is in `student`."""
        ...

    def site(self, part: Tensor, number: int) -> Site:
        """The rows of one piece, which is that part of `student`."""
        ...


class Sites(Mapping[str, Site]):
    """Sites by name, each made when it is first asked for.

    `pieces` are those of the sites that may be too large to be copied. Raises UserError for a site
    that a task may have, but that these two networks do not.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Site]],
        pieces: Mapping[str, Pieces] | None = None,
    ) -> None:
        self._makers = dict(makers)
        self._made: dict[str, Site] = {}
        self.pieces: Mapping[str, Pieces] = pieces or {}

    @staticmethod
    def of(sites: Mapping[str, Site]) -> Sites:
        """The same sites of any mapping."""
        return sites if isinstance(sites, Sites) else Sites({}).joined(sites)

    def __getitem__(self, name: str) -> Site:
        if name not in self._makers:
            raise missing_site(name, self)
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def joined(self, others: Mapping[str, Site], suffix: str = "") -> Sites:
        """These and other sites, the others under the names of a variant if `suffix` is given."""
        named = {variant(name, suffix) if suffix else name: name for name in others}
        pieces = others.pieces if isinstance(others, Sites) else {}
        return Sites(
            {name: partial(self.__getitem__, name) for name in self}
            | {new: partial(others.__getitem__, old) for new, old in named.items()},
            {**self.pieces, **{n: pieces[old] for n, old in named.items() if old in pieces}},
        )


def missing_site(name: str, known: Iterable[str]) -> UserError:
    """The error for a site that is not among those of two networks."""
    return UserError(
        f"the method compares the networks at site {name!r}, but these two networks have "
        f"{', '.join(known) or 'no sites'}; choose another method, or set its sites"
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """The step of a training."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def progress(self) -> float:
        """From 0, at the first step, towards 1."""
        return self.step / max(1, self.steps)

    @property
    def epoch(self) -> int:
        """Epochs begun, counted from 1."""
        return self.step // max(1, self.steps_per_epoch) + 1

    def every(self, period: int) -> bool:
        """Whether what happens each `period` steps, and at the end, happens after this one."""
        return period > 0 and ((self.step + 1) % period == 0 or self.step + 1 == self.steps)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch as a method sees it."""

    student: Trace
    teacher: Trace
    sites: Mapping[str, Site]
    clock: Clock
    regions: Mapping[str, Tensor] = field(default_factory=dict)  # (N, H, W) masks, by name
    keys: Tensor | None = None  # (N,) which sample each row is, for memory banks
    weight: Tensor | None = None  # (N,) of each image; zero drops it
    labels: Tensor | None = None  # (N,) class of each image, or (N, C) multi-hot
    objects: Any = None  # what is in the images, for methods that work on objects
    sizes: Tensor | None = None  # (N, 2) height and width of each image before padding
    assigned: Any = None  # which prediction each of them belongs to, in dense tasks

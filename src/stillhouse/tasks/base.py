"""The interfaces of tasks and meters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from stillhouse.batches import Batch, Target
from stillhouse.types import Clock, Lesson, Terms, Trace

T = TypeVar("T", bound=Target)
BatchType = TypeVar("BatchType", contravariant=True)


@dataclass(frozen=True)
class Facts:
    """What a task is built from: facts about the data."""

    data: str  # the name of the data set
    classes: tuple[str, ...]
    validation: Target  # targets of the validation split, or of its first samples


class Meter(Protocol[BatchType]):
    """Computes the scores of an evaluation from its batches.

    The state consists of sums, which are added over ranks, and rows, which are concatenated over
    ranks where sums are not enough: a ranking needs all scores.
    """

    @property
    def rows(self) -> frozenset[str]:
        """The names of the state's rows (N, ...); N is 0 on a rank without batches."""
        ...

    def update(self, trace: Trace, batch: BatchType) -> None:
        """Add the outputs for one batch."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far, in double precision, and the rows."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state, by that of all ranks for example."""
        ...

    def summary(self) -> Mapping[str, float]:
        """The scores by name."""
        ...


def run_network(task: Any, network: Callable[..., Any], batch: Batch[Any]) -> Trace:
    """What a network, or one with taps, gives for a batch in evaluation.

    A task may do this in a way of its own, by a method `run(network, batch)`.
    """
    run = getattr(task, "run", None)
    if run is not None:
        found: Trace = run(network, batch)
        return found
    out = network(*task.inputs(batch))
    return out if isinstance(out, Trace) else Trace(out)


class Task(Protocol[T]):
    """The meaning of a batch: network inputs, label terms, sites and scores.

    A task does not depend on methods.
    """

    @property
    def headline(self) -> str:
        """The name of the score in the meter's summary that networks are compared by."""
        ...

    @property
    def chance(self) -> float:
        """The headline score of random predictions."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites in every lesson."""
        ...

    def adapt(self, network: nn.Module) -> nn.Module:
        """The network with outputs as the task reads them; itself where it has them already.

        It is called before the network is trained or read, and after its weights are loaded.
        """
        ...

    def read(self, batch: Any) -> Batch[T]:
        """Convert a batch of any loader to a `Batch`."""
        ...

    def inputs(self, batch: Batch[T], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network; a student's may depend on the teacher's Trace."""
        ...

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output on `images` images that does not fit the task."""
        ...

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for outputs of student and teacher that cannot be compared."""
        ...

    def assign(self, student: Trace, batch: Batch[T]) -> Any:
        """The assignment of targets to predictions, once per batch; None for image tasks."""
        ...

    def supervise(self, student: Trace, batch: Batch[T], assigned: Any = None) -> Terms:
        """The loss terms of the labels; images without labels add no mass."""
        ...

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[T],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The batch as methods see it, with all sites of `sites`."""
        ...

    def select(self, output: Any, index: Tensor) -> Tensor:
        """The score of one class per image, for class activation maps: (N,) -> (N,)."""
        ...

    def storable(self, output: Any) -> Tensor:
        """The part of a teacher's output that is cached, one row per image: -> (N, C)."""
        ...

    def collect(self, trace: Trace) -> Tensor:
        """The scores that the diagnoses of `examine` read, one row per image: -> (N, C)."""
        ...

    def collect_target(self, batch: Batch[T]) -> Tensor:
        """The labels that they read, on the CPU: class indices -> (N,), or multi-hot -> (N, C)."""
        ...

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        """Whether a teacher with these scores on `images` images is clearly better than chance."""
        ...

    @property
    def examine(self) -> tuple[str, ...]:
        """The names of the diagnoses of `explain` that apply; none: no outputs are collected."""
        ...

    def meter(self) -> Meter[Batch[T]]:
        """A new, empty meter."""
        ...

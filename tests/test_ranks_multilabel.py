"""Three ranks with ragged shards against one process: what a meter sums up, and sums of losses.

A ranking is of all scores at once, and a plain sum has no mass that ranks could add up: both go
wrong silently where ranks are merged by halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gloo import RANKS
from stillhouse.batches import Batch
from stillhouse.distributed import combine, mean_terms, rank
from stillhouse.engine.evaluate import merge_ranks
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.base import Method
from stillhouse.models.taps import Tapped
from stillhouse.objectives.activation import Sigmoid
from stillhouse.objectives.distance import KL
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.reduction import Total
from stillhouse.tasks.base import Meter
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.types import Lesson, Terms, Trace
from tiny import CLOCK, Net, batch

IMAGES, CLASSES = 11, 5
CPU = torch.device("cpu")
SHARDS = {
    "ragged": (0, 2, 7, 11),
    "a first rank without images": (0, 0, 6, 11),
    "a last rank without images": (0, 3, 11, 11),
    "one rank with all": (0, 0, 11, 11),
}
every_shard = pytest.mark.parametrize("shards", SHARDS)


def images() -> Batch:
    """The same on each rank; one class is nowhere."""
    torch.manual_seed(1)
    rows = batch(IMAGES, CLASSES)
    label = (torch.rand(IMAGES, CLASSES) < 0.4).double()
    label[:, 2] = 0
    return replace(rows, target=label)


def scores() -> Tensor:
    """With ties across ranks."""
    torch.manual_seed(2)
    return torch.randint(-3, 4, (IMAGES, CLASSES)).double() / 2


class Census:
    """A meter of all kinds of state: a sum, rows of vectors, and rows of numbers."""

    rows = frozenset({"vectors", "numbers"})

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {
            "images": torch.zeros((), dtype=torch.double),
            "vectors": torch.zeros(0, 0, 0),
            "numbers": torch.zeros(0, dtype=torch.int64),
        }

    def update(self, trace: Trace, batch: Batch) -> None:
        pairs = torch.stack((trace.out, -trace.out), 2).float()
        self.parts = {
            "images": self.parts["images"] + len(batch.keys),
            "vectors": pairs,
            "numbers": batch.keys,
        }

    def state(self) -> Mapping[str, Tensor]:
        return self.parts

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.parts = dict(state)

    def summary(self) -> Mapping[str, float]:
        return {"images": float(self.parts["images"])}


METERS: dict[str, Callable[[], Meter[Batch]]] = {
    "multilabel": lambda: Multilabel().meter(),
    "multilabel of known classes": lambda: Multilabel(CLASSES).meter(),
    "classification": lambda: Classification(CLASSES).meter(),
}
every_meter = pytest.mark.parametrize("name", METERS)


def counted(meter: Any, shard: slice) -> Any:
    """A meter that saw some images, one at a time, as a rank without images sees none."""
    rows, out = images(), scores()
    if isinstance(meter, type(Classification().meter())):
        rows = replace(rows, target=rows.keys % CLASSES)
    if isinstance(meter, Census) and shard.start < shard.stop:
        meter.update(Trace(out[shard]), rows.rows(shard))
        return meter
    for n in range(shard.start, shard.stop):
        meter.update(Trace(out[n : n + 1]), rows.rows(slice(n, n + 1)))
    return meter


# ---------------------------------------------------------------------------------- sums of losses

OBJECTIVE = LogitObjective(activation=Sigmoid(), distance=KL(), reduction=Total(), weight=0.5)


class Summed(Method):
    """One objective at the one site."""

    def forward(self, lesson: Lesson) -> Terms:
        return {"kl": OBJECTIVE(lesson.sites["class"])}


def build(reduction: Any) -> tuple[Pupil[Any], Net]:
    """The same at each call and on each rank."""
    torch.manual_seed(3)
    student, teacher = Net(4, CLASSES).double(), Net(8, CLASSES).double()
    task = Multilabel(reduction=reduction)
    return Pupil(Tapped(student), Summed(), task), teacher


def learn(reduction: Any, wrap: Callable[[Any], Any], shard: slice) -> dict[str, Any]:
    """One step without an optimiser."""
    pupil, teacher = build(reduction)
    module, rows = wrap(pupil), images().rows(shard)
    with torch.no_grad():
        trace = Trace(teacher(rows.images))
    terms = module(rows, {"": trace}, CLOCK)
    loss = combine(terms)
    loss.backward()
    return {
        "loss": loss.detach(),
        "means": dict(mean_terms(terms)),
        "slopes": {name: p.grad for name, p in pupil.student.named_parameters()},
    }


def written_out(reduction: str) -> dict[str, Any]:
    """The same in one process, with none of our losses, terms or masses."""
    pupil, teacher = build(reduction)
    rows, student = images(), pupil.student.model
    z, t = student(rows.images), teacher(rows.images).detach().sigmoid()
    entropy = F.binary_cross_entropy(t, t, reduction="sum")
    kl = F.binary_cross_entropy_with_logits(z, t, reduction="sum") - entropy
    label = F.binary_cross_entropy_with_logits(z, rows.target, reduction="sum")
    label = label / {"sum": 1, "batch": IMAGES, "mean": IMAGES * CLASSES}[reduction]
    loss = label + 0.5 * kl
    loss.backward()
    slopes = [p.grad for p in student.parameters()]
    return {"loss": loss.detach(), "label": label.detach(), "kl": kl.detach(), "slopes": slopes}


# ------------------------------------------------------------------------------------- on each rank


def on_each_rank() -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for name, cuts in SHARDS.items():
        shard = slice(cuts[rank()], cuts[rank() + 1])
        for kind, make in METERS.items():
            meter = counted(make(), shard)
            merge_ranks(meter, CPU)
            found[kind, name] = dict(meter.summary())
        census = counted(Census(), shard)
        merge_ranks(census, CPU)
        found["census", name] = dict(census.state())
        for reduction in ("sum", "batch", "mean"):
            found[reduction, name] = learn(reduction, DistributedDataParallel, shard)
    for kind, make in METERS.items():
        meter = make()
        merge_ranks(meter, CPU)
        found[kind, "nobody"] = dict(meter.summary())
    return found


# ----------------------------------------------------------------------------------- what must hold


@every_shard
@every_meter
def test_ranks_sum_up_what_one_process_does(
    name: str, shards: str, ranks: list[dict[Any, Any]]
) -> None:
    want = counted(METERS[name](), slice(0, IMAGES)).summary()
    assert len({round(value, 6) for value in want.values()}) >= 4
    for found in ranks:
        assert found[name, shards] == pytest.approx(want, rel=1e-12)


def test_the_mean_of_what_each_rank_would_say_is_another_number() -> None:
    """So that the test above can fail."""
    cuts = SHARDS["ragged"]
    parts = [slice(*cuts[n : n + 2]) for n in range(RANKS)]
    apart = [counted(METERS["multilabel"](), part).summary()["map"] for part in parts]
    whole = counted(METERS["multilabel"](), slice(0, IMAGES)).summary()["map"]
    assert abs(sum(apart) / RANKS - whole) > 1


@every_meter
def test_ranks_that_all_saw_nothing_agree_on_zero(name: str, ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        assert found[name, "nobody"] == dict(METERS[name]().summary())
        assert found[name, "nobody"][METERS_HEADLINE[name]] == 0


METERS_HEADLINE = {
    "multilabel": "map",
    "multilabel of known classes": "map",
    "classification": "top1",
}


@every_shard
def test_sums_are_added_up_and_rows_put_one_after_another(
    shards: str, ranks: list[dict[Any, Any]]
) -> None:
    out = scores().float()
    for found in ranks:
        state = found["census", shards]
        assert state["images"] == IMAGES
        assert state["numbers"].tolist() == list(range(IMAGES))
        assert torch.equal(state["vectors"], torch.stack((out, -out), 2))


def near(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def average(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


@every_shard
@pytest.mark.parametrize("reduction", ["sum", "batch", "mean"])
def test_a_sum_over_all_ranks_has_the_gradient_of_the_plain_sum(
    reduction: str, shards: str, ranks: list[dict[Any, Any]]
) -> None:
    want = written_out(reduction)
    near(average(found[reduction, shards]["loss"] for found in ranks), want["loss"])
    for found in ranks:
        got = found[reduction, shards]
        near(torch.stack(list(got["means"].values())), torch.stack((want["label"], want["kl"])))
        for name, slope in zip(got["slopes"], want["slopes"], strict=True):
            assert slope.abs().sum() > 0, name
            near(got["slopes"][name], slope)


@pytest.mark.parametrize("reduction", ["sum", "batch", "mean"])
def test_one_process_has_the_same_gradient_too(reduction: str) -> None:
    want = written_out(reduction)
    got = learn(reduction, lambda pupil: pupil, slice(0, IMAGES))
    near(got["loss"], want["loss"])
    for slope, other in zip(got["slopes"].values(), want["slopes"], strict=True):
        near(slope, other)

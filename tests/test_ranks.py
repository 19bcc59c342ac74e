"""Three ranks with ragged shards against one process with the whole batch: the same gradients.

The ranks are spawned once for all such files; what each found is held against one process here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gloo import RANKS
from stillhouse import distributed
from stillhouse.batches import Batch
from stillhouse.distributed import (
    combine,
    gather,
    gather_objects,
    gather_site,
    mean_terms,
    on_first_rank,
    rank,
    world_size,
)
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined
from stillhouse.methods.feature import AdaptedPair, Features
from stillhouse.methods.logit import Logits
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Lesson, Site, Term, Terms, Trace
from tiny import CLOCK, Net, batch


@dataclass(frozen=True)
class Shards:
    """How a batch is cut, and what each of its rows counts."""

    cuts: tuple[int, ...]
    weight: list[float] | None = None

    def of(self, number: int, rows: Batch) -> Batch:
        return rows.rows(slice(self.cuts[number], self.cuts[number + 1]))


SCENES = {
    "ragged": Shards((0, 2, 7, 11)),
    "a rank without weight": Shards((0, 2, 7, 11), [1, 0.5, 0, 0, 0, 0, 0, 2, 1, 0, 0.25]),
    "a rank without images": Shards((0, 4, 4, 11)),
}
every_scene = pytest.mark.parametrize("scene", SCENES)


@dataclass(frozen=True)
class Weighed(Classification):
    """Classification whose rows count differently."""

    rows: Tensor | None = field(default=None, kw_only=True)

    def lesson(self, student: Trace, teacher: Trace, batch: Batch, *rest: Any) -> Lesson:
        lesson = super().lesson(student, teacher, batch, *rest)
        if self.rows is None:
            return lesson
        weight = self.rows[batch.keys]
        sites = {name: replace(site, weight=weight) for name, site in lesson.sites.items()}
        return replace(lesson, sites=sites, weight=weight)


class ScaledGram(Method):
    """A parameter that acts after the gather."""

    student_taps = teacher_taps = ("flat",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.turn = nn.Linear(16, 8)

    def forward(self, lesson: Lesson) -> Terms:
        s = self.scale * gather(lesson.student.taps["flat"])
        t = self.turn(gather(lesson.teacher.taps["flat"]))
        loss = (s @ s.T - t @ t.T).square().mean()
        return {"gram": Term(loss, torch.ones_like(loss))}


def every_method() -> Combined:
    to_teacher = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)
    return Combined(
        {
            "dkd": Logits(presets.dkd(warmup=3)),
            "kd": Logits(presets.kd()),
            "wttm": Logits(presets.wttm(beta=0.3)),
            "bcd": Logits(presets.bcd()),
            "dist": Logits(presets.dist(temperature=2)),
            "tld_dist": Logits(presets.tld_dist()),
            "lskd": Logits(presets.lskd(base=presets.dist())),
            "cwd": Features(presets.cwd(), [AdaptedPair("stem", "stem", to_teacher[0])]),
            "pkd": Features(presets.pkd(), [AdaptedPair("body", "body", to_teacher[1])]),
            "sr": Features(
                presets.spatial_relation(), [AdaptedPair("body", "body", to_teacher[2])]
            ),
            "gram": ScaledGram(),
        }
    )


def build(shards: Shards) -> tuple[Pupil[Any], Frozen[Any], Batch]:
    """The same at each call and on each rank."""
    torch.manual_seed(0)
    weight = None if shards.weight is None else torch.tensor(shards.weight).double()
    method, task = every_method(), Weighed(classes=5, rows=weight)
    pupil = Pupil(Tapped(Net(4), method.student_taps), method, task).double()
    return pupil, Frozen(Net(8).double(), task.inputs, method.teacher_taps), batch(11)


def learn(module: nn.Module, teacher: Frozen[Any], rows: Batch) -> dict[str, Any]:
    """One step without an optimiser: the loss, each term's mean, and every gradient."""
    terms = module(rows, observe(teacher, rows), CLOCK)
    loss = combine(terms)
    loss.backward()
    pupil = getattr(module, "module", module)
    return {
        "loss": loss.detach(),
        "means": dict(mean_terms(terms)),
        "slopes": {name: p.grad for name, p in pupil.named_parameters()},
    }


def learn_on_a_rank(shards: Shards) -> dict[str, Any]:
    pupil, teacher, rows = build(shards)
    return learn(DistributedDataParallel(pupil), teacher, shards.of(rank(), rows))


# ------------------------------------------------------------------------------------- on each rank


def only_first() -> str:
    return f"said by {rank()}"


def fail() -> None:
    raise UserError(f"rank {rank()} has no file")


def first_rank_talks() -> dict[str, Any]:
    try:
        on_first_rank(fail)
    except UserError as error:
        complaint = str(error)
    else:
        complaint = "none"
    return {"said": on_first_rank(only_first), "complaint": complaint}


def collect() -> dict[str, Any]:
    """Ragged rows of every rank, and a gradient that differs by rank."""
    mine = torch.full((rank(), 2), float(rank()), dtype=torch.double, requires_grad=True)
    rows = gather(mine)
    (rows * torch.arange(6.0).view(3, 2)).sum().backward()
    labels = torch.arange(rank()) + 10 * rank()
    site = gather_site(Site(mine.detach(), mine.detach(), labels, torch.ones(rank()) * rank()))
    return {
        "rows": rows.detach(),
        "slope": mine.grad,
        "labels": site.target,
        "weight": site.weight,
        "objects": gather_objects(("rank", rank())),
        "world": world_size(),
    }


def masses() -> dict[str, Any]:
    """Two terms with a least mass of 4, one of which has more, and terms without any mass."""
    x, one, none = torch.tensor(2.0, requires_grad=True), torch.tensor(1.0), torch.tensor(0.0)
    terms = {
        "few": Term(x * (rank() + 1), torch.tensor(float(rank() == 1)), least=4.0),
        "many": Term(x * 8, torch.tensor(2.0 * rank()), 0.5, least=4.0),
    }
    (slope,) = torch.autograd.grad(combine(terms), x)
    only_first = x * 1.5 if rank() == 0 else x * 0
    try:
        combine({"label": Term(x, one), "class/bcd": Term(only_first, none)})
    except UserError as error:
        complaint = str(error)
    else:
        complaint = "none"
    (with_empty,) = torch.autograd.grad(
        combine({"label": Term(x, one), "empty": Term(x - 2, none)}), x
    )
    return {
        "slope": slope,
        "means": dict(mean_terms(terms)),
        "complaint": complaint,
        "slope with an empty term": with_empty,
    }


def on_each_rank() -> dict[str, Any]:
    found: dict[str, Any] = {name: learn_on_a_rank(shards) for name, shards in SCENES.items()}
    return found | {"talk": first_rank_talks(), "collect": collect(), "masses": masses()}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """What one process with the whole batch finds."""
    found = {}
    for name, shards in SCENES.items():
        pupil, teacher, rows = build(shards)
        found[name] = learn(pupil, teacher, rows)
    return found


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


# ----------------------------------------------------------------------------------- what must hold


@every_scene
def test_the_gradient_of_every_parameter_is_that_of_one_process(
    scene: str, ranks: list[dict[str, Any]], alone: dict[str, dict[str, Any]]
) -> None:
    want = alone[scene]["slopes"]
    assert {name.split(".")[2] for name in want if name.startswith("method")} == {
        "cwd",
        "pkd",
        "sr",
        "gram",
    }
    for found in ranks:
        assert found[scene]["slopes"].keys() == want.keys()
        for name, slope in want.items():
            assert slope.abs().sum() > 0, name
            close(found[scene]["slopes"][name], slope)


@every_scene
def test_the_losses_of_the_ranks_have_the_mean_of_one_process(
    scene: str, ranks: list[dict[str, Any]], alone: dict[str, dict[str, Any]]
) -> None:
    losses = torch.stack([found[scene]["loss"] for found in ranks])
    close(losses.mean(), alone[scene]["loss"])
    assert len(set(losses.tolist())) == RANKS  # each holds its own share


@every_scene
def test_the_means_for_the_record_are_those_of_one_process_on_all_ranks(
    scene: str, ranks: list[dict[str, Any]], alone: dict[str, dict[str, Any]]
) -> None:
    want = alone[scene]["means"]
    assert len(want) == 16  # the labels, two each of dkd and three relations, seven more
    for found in ranks:
        assert list(found[scene]["means"]) == list(want)
        for name, value in want.items():
            close(found[scene]["means"][name], value)
            assert torch.equal(found[scene]["means"][name], ranks[0][scene]["means"][name])


def test_rows_that_count_differently_make_another_loss(alone: dict[str, dict[str, Any]]) -> None:
    """So that the scenes above are not the same one thrice."""
    ragged, weighed = (alone[name]["means"] for name in ("ragged", "a rank without weight"))
    for name in ragged:
        alike = name == "label" or name.startswith("gram")
        assert torch.isclose(ragged[name], weighed[name]).item() == alike, name


def test_what_only_the_first_rank_does_reaches_all(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["talk"] == {"said": "said by 0", "complaint": "rank 0 has no file"}


def test_rows_are_gathered_in_rank_order_whatever_their_number(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        got = found["collect"]
        assert got["rows"].tolist() == [[1, 1], [2, 2], [2, 2]]
        assert got["labels"].tolist() == [10, 20, 21]
        assert got["weight"].tolist() == [1, 2, 2]
        assert got["objects"] == [("rank", 0), ("rank", 1), ("rank", 2)]
        assert got["world"] == RANKS


def test_each_rank_gets_the_gradient_of_its_own_rows_times_the_ranks(
    ranks: list[dict[str, Any]],
) -> None:
    slopes = [found["collect"]["slope"].tolist() for found in ranks]
    assert slopes == [[], [[0, 3]], [[6, 9], [12, 15]]]


def test_a_least_mass_counts_once_whatever_the_ranks(ranks: list[dict[str, Any]]) -> None:
    slopes = torch.stack([found["masses"]["slope"] for found in ranks])
    assert slopes.mean() == 6 / 4 + 0.5 * 24 / 6  # DDP averages over ranks
    for found in ranks:
        assert {k: float(v) for k, v in found["masses"]["means"].items()} == {"few": 3, "many": 8}


def test_all_ranks_refuse_a_total_without_mass_on_one_of_them(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["masses"]["complaint"] == (
            "term 'class/bcd' has a total of 3 but no mass; give it a mass or a least mass"
        )
        assert found["masses"]["slope with an empty term"] == 1


# -------------------------------------------------------------------------------- without any ranks


def test_one_process_is_a_world_of_its_own() -> None:
    rows = torch.randn(3, 2)
    assert (rank(), world_size()) == (0, 1)
    assert gather(rows) is rows
    assert gather_objects("mine") == ["mine"]
    assert on_first_rank(only_first) == "said by 0"
    with pytest.raises(UserError, match="rank 0 has no file"):
        on_first_rank(fail)


def test_a_loss_is_the_weighted_sum_of_means() -> None:
    three, seven = torch.tensor(3.0, requires_grad=True), torch.tensor(7.0)
    terms = {"a": Term(three, torch.tensor(2.0), 10.0), "b": Term(seven, torch.tensor(7.0))}
    loss = combine(terms)
    loss.backward()
    assert loss == 16.0
    assert three.grad == 5.0
    assert {name: float(value) for name, value in mean_terms(terms).items()} == {"a": 1.5, "b": 1.0}


def test_a_term_without_total_and_mass_adds_an_exact_zero() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    terms = {
        "empty": Term(3 * (x - 2), torch.tensor(0.0)),  # 0, and not because its gradient is
        "b": Term(torch.tensor(7.0), torch.tensor(7.0)),
    }
    loss = combine(terms)
    loss.backward()
    assert loss == 1.0
    assert x.grad == 0
    assert mean_terms(terms)["empty"] == 0
    assert terms["empty"].mean() == 0


def test_a_total_without_mass_is_refused_by_name() -> None:
    one, none = torch.tensor(1.0), torch.tensor(0.0)
    terms = {"label": Term(one, one), "class/bcd": Term(one * 3, none, weight=0.0)}
    with pytest.raises(UserError) as caught:
        combine(terms)
    assert str(caught.value) == (
        "term 'class/bcd' has a total of 3 but no mass; give it a mass or a least mass"
    )
    assert terms["class/bcd"].mean().isnan() and mean_terms(terms)["class/bcd"].isnan()


def test_a_total_without_mass_is_not_a_number_where_the_device_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "_refuse_without_mass", lambda terms, mass: None)
    one, none = torch.tensor(1.0), torch.tensor(0.0)
    terms = {"label": Term(one, one), "class/bcd": Term(one * 3, none)}
    assert distributed.weighted_means(terms).isnan().tolist() == [False, True]
    assert combine(terms).isnan()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nonfinite_total_without_mass_is_left_to_the_watch(value: float) -> None:
    terms = {"a": Term(torch.tensor(value), torch.tensor(0.0))}
    assert not combine(terms).isfinite()


@pytest.mark.parametrize(("mass", "mean"), [(0.0, 1.5), (1.0, 1.5), (2.0, 1.5), (4.0, 0.75)])
def test_a_mass_is_at_least_what_its_term_says(mass: float, mean: float) -> None:
    x = torch.tensor(3.0, requires_grad=True)
    terms = {
        "dense": Term(x, torch.tensor(mass), 10.0, least=2.0),
        "b": Term(torch.tensor(7.0), torch.tensor(7.0)),
    }
    combine(terms).backward()
    assert x.grad == 10 * mean / 3
    assert mean_terms(terms)["dense"] == mean
    assert terms["dense"].mean() == mean

"""What networks take: measured once, kept, and measured again for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from quick import quick
from stillhouse.build.networks import example_of
from stillhouse.build.session import Session
from stillhouse.models import cost, zoo
from stillhouse.recipes.schema import Network
from stillhouse.runs import costs
from stillhouse.runs.costs import (
    BATCH,
    COST_FILE,
    costs_of,
    measure_costs,
    measure_network,
    network_specs,
    read_costs,
)


def test_a_network_is_measured_as_it_is_built() -> None:
    session = Session.open(quick(), quiet=True)
    found = measure_network(quick().student, session)
    network, one = zoo.create("stillhouse/tiny", 10, 1), example_of(session.sources)[:1]
    assert found["name"] == "stillhouse/tiny"
    assert found["parameters"] == sum(p.numel() for p in network.parameters()) == 1382
    assert found["flops"] == cost.flops(network, one)
    assert 0 < found["latency_1"] < 1 and 0 < found["latency_32"] < 1
    assert found["memory"] == cost.peak_memory(network.eval(), one.repeat(BATCH, 1, 1, 1))
    assert found["memory"] > 4 * 1382


def test_costs_include_a_teacher() -> None:
    assert [*network_specs(quick())] == ["teacher", "student"]
    assert [*network_specs(quick("method=none", "teacher=null"))] == ["student"]


def test_they_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, specs = Session.open(quick(), quiet=True), network_specs(quick())
    first = costs_of(tmp_path, session, specs)
    assert first.machine and [*first.networks] == ["teacher", "student"]
    measured: list[str] = []
    monkeypatch.setattr(costs, "measure_network", lambda one, _: measured.append(one.name) or {})
    assert costs_of(tmp_path, session, specs) == read_costs(tmp_path / COST_FILE) == first
    assert measured == []
    costs_of(tmp_path, session, {"student": Network("stillhouse/small")})
    assert measured == ["stillhouse/small"]
    (tmp_path / COST_FILE).write_text("{")
    costs_of(tmp_path, session, specs)
    assert measured[1:] == ["stillhouse/little", "stillhouse/tiny"]


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, AssertionError])
def test_a_value_that_cannot_be_measured_is_none(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise error("no counter for this operation")

    monkeypatch.setattr(cost, "flops", refuse)
    found = measure_network(quick().student, Session.open(quick(), quiet=True))
    assert found["flops"] is None and found["latency_1"] > 0


def test_a_network_that_cannot_be_built_is_named_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(costs, "untrained_teacher", refuse)
    session, specs = Session.open(quick(), quiet=True), network_specs(quick())
    for found in (measure_costs(session, specs), costs_of(tmp_path, session, specs)):
        assert [*found.networks] == ["student"]
        assert found.failures == (
            "The size and speed of the teacher could not be measured: RuntimeError: no room; run "
            "`stillhouse explain RUN --debug` for the traceback.",
        )
    assert not (tmp_path / COST_FILE).exists()  # they are measured again next time


def test_a_large_batch_is_not_measured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.open(quick(), quiet=True)
    limit = cost.flops(zoo.create("stillhouse/tiny", 10, 1), example_of(session.sources)[:1])
    for most, known in ((limit * BATCH, True), (limit * BATCH - 1, False)):
        monkeypatch.setattr(costs, "MOST_ON_CPU", most)
        found = measure_network(quick().student, session)
        assert ({"latency_32", "memory"} <= found.keys()) is known
        assert found["latency_1"] > 0 and found["flops"] == limit

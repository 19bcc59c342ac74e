"""What networks take: measured once, kept, and measured again for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quick import quick
from stillhouse.build.networks import example_of
from stillhouse.build.session import Session
from stillhouse.models import cost, zoo
from stillhouse.recipes.schema import Network
from stillhouse.runs import costs
from stillhouse.runs.costs import BATCH, COSTS, costs_of, measure, named_networks


def test_a_network_is_measured_as_it_is_built() -> None:
    session = Session.open(quick(), quiet=True)
    found = measure(quick().student, session)
    network, one = zoo.create("stillhouse/tiny", 10, 1), example_of(session.sources)[:1]
    assert found["name"] == "stillhouse/tiny"
    assert found["parameters"] == sum(p.numel() for p in network.parameters()) == 1382
    assert found["flops"] == cost.flops(network, one)
    assert 0 < found["latency_1"] < 1 and 0 < found["latency_32"] < 1
    assert found["memory"] == cost.peak_memory(network.eval(), one.repeat(BATCH, 1, 1, 1))
    assert found["memory"] > 4 * 1382


def test_the_teacher_is_among_them_where_there_is_one() -> None:
    assert [*named_networks(quick())] == ["teacher", "student"]
    assert [*named_networks(quick("method=none", "teacher=null"))] == ["student"]


def test_they_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, named = Session.open(quick(), quiet=True), named_networks(quick())
    first = costs_of(tmp_path, session, named)
    assert first["machine"] and [*first["networks"]] == ["teacher", "student"]
    asked: list[str] = []
    monkeypatch.setattr(costs, "measure", lambda one, session: asked.append(one.name) or {})
    assert costs_of(tmp_path, session, named) == json.loads((tmp_path / COSTS).read_text()) == first
    assert asked == []
    costs_of(tmp_path, session, {"student": Network("stillhouse/small")})
    assert asked == ["stillhouse/small"]
    (tmp_path / COSTS).write_text("{")
    costs_of(tmp_path, session, named)
    assert asked[1:] == ["stillhouse/little", "stillhouse/tiny"]


def test_what_cannot_be_measured_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise RuntimeError("no counter for this operation")

    monkeypatch.setattr(cost, "flops", refuse)
    found = measure(quick().student, Session.open(quick(), quiet=True))
    assert found["flops"] is None and found["latency_1"] > 0

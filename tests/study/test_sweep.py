"""Sweeps: the search space, trials, the split they use, and continuation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from alone import Alone
from quick import kept_teacher, quick
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.methods.attention import AT
from stillhouse.methods.flow import FSP
from stillhouse.methods.mlkd import MLKD
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.study.arguments import GridValue, fixed_options
from stillhouse.study.plan import make_plan
from stillhouse.study.space import (
    OneOf,
    Range,
    check_space,
    default_space,
    initial_values,
    options_at_edge,
    parse_space,
    select_space,
    suggest_values,
)
from stillhouse.study.sweep import SEED_OFFSET, run_sweep


def go(folder: Path, methods: str = "kd,mse", seeds: int = 1, *words: str, **options: Any):
    kept_teacher()
    messages: list[str] = []
    workers = Alone()
    plan = make_plan(quick("train.epochs=3", *words), methods, seeds)
    result = run_sweep(plan, folder, workers, messages.append, **options)
    return result.recipe, messages + result.choices, workers


def trials(folder: Path) -> list[dict[str, str]]:
    return [*csv.DictReader((folder / "trials.csv").open())]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Alone]:
    kept_teacher()
    patch = pytest.MonkeyPatch()
    patch.setattr(Session, "measured", lambda self: pytest.fail("a search looked at test"))
    try:
        return go(tmp_path_factory.mktemp("done") / "sweep", trials=5)
    finally:
        patch.undo()


def test_every_method_has_equal_trials(done: tuple[Path, list[str], Alone]) -> None:
    lines = trials(done[0].parent)
    assert [line["method"] for line in lines] == ["kd"] * 5 + ["mse"] * 5
    assert {line["state"] for line in lines} <= {"complete", "pruned"}
    assert len({line["options"] for line in lines}) == 10
    assert lines[0]["options"] == "method.temperature=4 method.weight=0.9"  # the recipe's own
    assert "2 methods x 5 trials x 1 seeds, evaluated on the validation split only" in done[1]


def test_the_chosen_recipe_has_the_best_options_and_the_cost_of_the_search(
    done: tuple[Path, list[str], Alone],
) -> None:
    recipe = load.load(done[0])
    assert recipe.study is not None
    for label in ("kd", "mse"):
        complete = [
            x for x in trials(done[0].parent) if x["method"] == label and x["state"] == "complete"
        ]
        best = max(complete, key=lambda line: float(line["validation"]))
        (method,) = recipe.study.methods[label]
        for word in best["options"].split():
            key, _, value = word.removeprefix("method.").partition("=")
            assert getattr(method, key) == float(value)
        result = recipe.study.searched[label]
        assert result.trials == 5 and result.score == pytest.approx(
            float(best["validation"]), abs=1e-4
        )
        assert result.pruned == 5 - len(complete) and result.epochs == 3
        assert result.images == Session.open(recipe, quiet=True).sources.val.fingerprint
    assert recipe.study.searched["kd"].space["method.temperature"] == "1 … 16 (log)"
    again = make_plan(recipe, seeds=2)
    assert [arm.label for arm in again.arms] == ["none", "kd", "mse"]


def test_a_study_repeats_no_seed_of_the_search(done: tuple[Path, list[str], Alone]) -> None:
    seeds = {load.load(path).seed for path in done[0].parent.glob("*/*/recipe.yaml")}
    assert seeds == {SEED_OFFSET}


def test_a_second_search_only_reads_and_gives_the_same_result(
    done: tuple[Path, list[str], Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.engine import train as training

    before = done[0].read_text(), trials(done[0].parent)
    steps: list[int] = []
    monkeypatch.setattr(training, "set_rates", lambda run, clock: steps.append(clock.step))
    go(done[0].parent, trials=5)
    assert steps == []
    assert (done[0].read_text(), trials(done[0].parent)) == before


def test_a_search_can_be_extended(done: tuple[Path, list[str], Alone], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "sweep"
    shutil.copytree(done[0].parent, folder)
    go(folder, trials=6)
    before, after = trials(done[0].parent), trials(folder)
    assert [x for x in after if int(x["trial"]) < 5] == before and len(after) == 12


def test_an_unpromising_trial_is_pruned_after_a_third(tmp_path: Path) -> None:
    space = parse_space(["train.optimiser.lr=0.1|0.1001|0.1002|0.1003|1e-6"])
    path, _, _ = go(tmp_path / "sweep", "kd", 1, "train.epochs=6", trials=8, space=space, seed=3)
    lines = trials(path.parent)
    pruned = [line for line in lines if line["state"] == "pruned"]
    complete = [float(x["validation"]) for x in lines if x["state"] == "complete"]
    assert pruned and all(float(line["validation"]) <= max(complete) for line in pruned)
    for line in pruned:
        cell = path.parent / "kd" / f"{line['trial']}-0"
        assert (cell / "state.pt").is_file() and not (cell / "result.json").exists()
    best = max((x for x in lines if x["state"] == "complete"), key=lambda x: float(x["validation"]))
    chosen = make_plan(load.load(path), seeds=1)
    assert chosen.recipe.study.changes == {"kd": (best["options"],)}
    rates = {arm.label: arm.recipe.train.optimiser.lr for arm in chosen.arms}
    assert rates["kd"] == float(best["options"].partition("=")[2])
    assert rates[f"none {best['options']}"] == rates["kd"] and len(rates) == 3
    whole, _, _ = go(tmp_path / "whole", "kd", 1, trials=4, space=space, prune=False)
    assert {line["state"] for line in trials(whole.parent)} == {"complete"}


def test_a_search_needs_an_option_and_one_teacher(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mse:weight=1 has no option to search"):
        go(tmp_path / "sweep", "mse:weight=1", trials=1)
    with pytest.raises(UserError, match="a sweep needs exactly one teacher"):
        plan = make_plan(quick(), "kd", 1, "stillhouse/little,stillhouse/medium")
        run_sweep(plan, tmp_path / "two", Alone())


def test_an_error_if_all_trials_fail(tmp_path: Path) -> None:
    space = parse_space(["method.weight=1e12|2e12"])
    with pytest.raises(UserError, match="all trials of mse failed"):
        go(tmp_path / "sweep", "mse", trials=2, space=space)
    assert {line["state"] for line in trials(tmp_path / "sweep")} == {"failed"}


def test_the_ends_of_a_space_are_tried_before_any_training(tmp_path: Path) -> None:
    space = parse_space(["method.pairs=[[stage1, stage1]]|[[stage9, last]]"])
    with pytest.raises(UserError, match=r"arm cwd at method.pairs=\[\[stage9, .*'stage9'"):
        go(tmp_path / "sweep", "cwd", trials=2, space=space)
    space = parse_space(["method.weight=1..1e39"])
    with pytest.raises(UserError, match="arm kd at the high ends: .*must be non-negative and fin"):
        go(tmp_path / "sweep", "kd", trials=2, space=space)
    assert not (tmp_path / "sweep").exists()


# ------------------------------------------------------------------------------------------- where


def test_every_number_has_the_same_relative_range() -> None:
    assert default_space((presets.kd(),)) == {
        "method.temperature": Range(1, 16, True),
        "method.weight": Range(0.25, 4, True),
    }
    assert "method.warmup" not in default_space((presets.dkd(warmup=3.0),))
    both = (presets.dist(), presets.mse())
    assert default_space(both).keys() == {
        "method.0.beta",
        "method.0.gamma",
        "method.0.temperature",
        "method.1.weight",
    }
    assert default_space(both, fixed=fixed_options("dist:beta=1+mse:weight=3")).keys() == {
        "method.0.gamma",
        "method.0.temperature",
    }
    assert default_space((presets.dist(temperature=4),), fixed={"temperature"}).keys() == {
        "method.beta",
        "method.gamma",
    }
    cwd = default_space((presets.cwd(),), ["stage1", "stage2"])
    own = "[[last, last]]"  # the method's own taps come first
    assert cwd["method.pairs"] == OneOf((own, "[[stage1, stage1]]", "[[stage2, stage2]]"))
    at = default_space((AT(),), ["stage1", "stage2"])
    assert at["method.pairs"].choices[0] == "stages"
    assert "method.pairs" not in default_space((FSP(),), ["stage1", "stage2"])  # needs two of them


def test_the_weight_of_the_base_is_searched() -> None:
    space = default_space((MLKD(),))
    assert space == {"method.base.weight": Range(0.225, 3.6, True)}
    assert initial_values(space, (MLKD(),)) == {"method.base.weight": 0.9}


def test_taps_are_the_stages_of_both_networks(tmp_path: Path) -> None:
    path, _, _ = go(tmp_path / "sweep", "cwd", trials=2)
    searched = load.load(path).study.searched["cwd"]
    assert (
        searched.space["method.pairs"] == "[[last, last]] | [[stage1, stage1]] | [[stage2, stage2]]"
    )


def test_values_near_the_end_of_a_range_are_reported() -> None:
    space = {
        "method.beta": Range(1, 16, True),
        "method.gamma": Range(-1, 1, False),
        "method.pairs": OneOf(("a", "b")),
    }

    def at(beta: float, gamma: float) -> tuple[str, ...]:
        choices = [GridValue("method.beta", str(beta)), GridValue("method.gamma", str(gamma))]
        return options_at_edge([*choices, GridValue("method.pairs", "a")], space)

    assert at(1.14, 0) == ("beta",) and at(1.16, 0) == ()  # 16 ** 0.05 = 1.149
    assert at(14, -0.91) == ("beta", "gamma") and at(13.9, -0.89) == ()


def test_space_arguments() -> None:
    assert parse_space(["method.beta=1..8", "method.gamma=-1..1", "train.epochs=1|2"]) == {
        "method.beta": Range(1, 8, True),
        "method.gamma": Range(-1, 1, False),
        "train.epochs": OneOf(("1", "2")),
    }
    assert parse_space(["method.beta=1..8:linear"])["method.beta"] == Range(1, 8, False)
    given = parse_space(["method.beta=1..8"])
    assert select_space({"method.weight": Range(1, 2, True)}, given, (presets.mse(),)).keys() == {
        "method.weight"
    }
    assert select_space({}, given, (presets.dist(),)) == given


def test_a_key_applies_to_each_method_or_to_one_by_index() -> None:
    both, axis = (presets.mse(), presets.mld()), Range(1, 8, True)
    given = parse_space(["method.weight=1..8", "method.beta=1..2"])
    assert select_space({}, given, both) == {"method.0.weight": axis, "method.1.weight": axis}
    one = parse_space(["method.1.weight=1..8"])
    assert select_space({}, one, both) == {"method.1.weight": axis}
    assert select_space({}, parse_space(["method.2.weight=1..8"]), both) == {}


def test_methods_of_a_list_are_searched(tmp_path: Path) -> None:
    space = parse_space(["method.weight=0.5..2"])
    path, _, _ = go(tmp_path / "sweep", "mse+mld", trials=2, space=space)
    assert {"method.0.weight", "method.1.weight"} == set(
        load.load(path).study.searched["mse+mld"].space
    )
    mse, mld = load.load(path).study.methods["mse+mld"]
    options = [line["options"] for line in trials(path.parent)]
    assert f"method.0.weight={mse.weight:.3g} method.1.weight={mld.weight:.3g}" in options


@pytest.mark.parametrize(
    "word",
    ["beta=1..2", "method.beta", "method.beta=2..1", "method.beta=a..b", "method.beta=1..2:lin"],
)
def test_a_wrong_space_is_an_error(word: str) -> None:
    with pytest.raises(UserError, match="--space: "):
        parse_space([word])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("method.temp=1..2", "no method of this sweep has an option 'method.temp'; did you mean"),
        ("method.1.weight=1..2", "no method of this sweep has an option 'method.1.weight'"),
        ("train.epoch=1..2", "unknown key train.epoch"),
    ],
)
def test_a_key_that_nothing_has_is_refused(word: str, sentence: str) -> None:
    recipe = quick()
    with pytest.raises(UserError, match=sentence):
        check_space(parse_space([word]), recipe, [(presets.kd(),), (presets.mse(),)])
    words = ["method.temperature=1..2", "method.label_weight=0.1|0.5", "train.epochs=1|2"]
    known = parse_space(words)
    check_space(known, recipe, [(presets.kd(),), (presets.mse(),)])
    assert "method.label_weight" in select_space({}, known, (presets.kd(),))


def test_suggested_numbers_have_three_digits() -> None:
    class FakeTrial:
        def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
            return 1.23456789

        def suggest_categorical(self, name: str, words: list[str]) -> str:
            return words[-1]

    space = {"method.beta": Range(1, 2, True), "method.pairs": OneOf(("[[a, a]]", "[[b, b]]"))}
    assert [c.override for c in suggest_values(FakeTrial(), space)] == [
        "method.beta=1.23",
        "method.pairs=[[b, b]]",
    ]


def test_the_first_trial_has_the_options_of_the_method() -> None:
    own = presets.cwd(pairs=(("stage1", "stage1"),))
    space = default_space((own,), ["stage1", "stage2"])
    assert initial_values(space, (own,)) == {
        "method.pairs": "[[stage1, stage1]]",
        "method.temperature": 4.0,
        "method.weight": 3.0,
    }
    assert initial_values(space, (presets.cwd(),)) is None  # `last` is none of the stages
    assert initial_values({"method.weight": Range(5, 6, True)}, (own,)) is None
    assert initial_values({"train.epochs": OneOf(("1",))}, (own,)) is None

"""The teacher as a recipe wants it asked: what a store changes, and what it does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

from quick import kept_teacher, quick, run
from stillhouse.build.data import make_filling_loader, make_training_loader
from stillhouse.build.networks import TeacherNetwork, load_teacher
from stillhouse.build.session import Session
from stillhouse.build.store import batches_from, describe_store, make_store, prefill
from stillhouse.build.teacher import check_storable, make_teacher
from stillhouse.data.cache import cache_folder
from stillhouse.engine.interrupt import Stopped
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, StoreSpec
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.execute import Result, run_job
from stillhouse.teachers.store.cached import DiskCached

STORE = ("teacher.remember=false", "teacher.store=true")
AUGMENTED = "data.transforms=[{kind: crop, padding: 1}, {kind: flip}]"
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def teacher() -> Path:
    return kept_teacher()


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """A store that no other test has filled, of one teacher for all data."""
    given = (f"teacher.weights={kept_teacher()}", "teacher.train=null")
    return (*given, "teacher.remember=false", f"teacher.store.path={tmp_path}/store")


def opened(*words: str) -> tuple[Recipe, Session, TeacherNetwork]:
    recipe = quick(*words)
    assert recipe.teacher is not None
    session = Session.open(recipe, quiet=True)
    return recipe, session, load_teacher(recipe.teacher, [kept_teacher()], session)


def weights_of(result: Result) -> Tensor:
    state = safetensors.torch.load_file(result.folder / "student.safetensors")
    return torch.cat([value.double().flatten() for _, value in sorted(state.items())])


# ------------------------------------------------------------------------------------ what it says


@pytest.mark.parametrize(
    "word, wanted",
    [
        ("true", StoreSpec()),
        ("false", None),
        ("null", None),
        ("{}", StoreSpec()),
        ("{top: 3}", StoreSpec(top=3)),
        ("{precision: full, path: here}", StoreSpec("full", path=Path("here"))),
    ],
)
def test_a_recipe_says_it_in_a_word_or_in_full(word: str, wanted: StoreSpec | None) -> None:
    recipe = quick("teacher.remember=false", f"teacher.store={word}")
    assert recipe.teacher is not None and recipe.teacher.store == wanted
    again = load.validate_recipe(yaml.safe_load(load.to_yaml(recipe)), Path("again"))
    assert again == recipe


def test_where_it_lies_is_no_part_of_a_run_and_how_it_is_kept_is(tmp_path: Path) -> None:
    def digest(*words: str) -> str:
        return load.digest(quick("teacher.remember=false", *words))

    here, there = (f"teacher.store.path={tmp_path / name}" for name in ("here", "there"))
    assert digest("teacher.store=true") == digest(here) == digest(there)
    kinds = {digest(f"teacher.store={w}") for w in ("false", "true", "{precision: full}")}
    assert len(kinds | {digest("teacher.store={top: 3}")}) == 4


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["teacher.store=true"], "teacher: remember caches outputs in memory and store on"),
        (["teacher.remember=false", "teacher.store.top=0"], "`top` must be at least 1, got 0"),
        (["teacher.remember=false", "teacher.store={tpo: 3}"], "unknown key .*did you mean 'top'"),
        (["teacher.remember=false", "teacher.store={precision: third}"], "'half' or 'full'"),
    ],
)
def test_what_a_recipe_cannot_say(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        quick(*words)


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([AUGMENTED], r"teacher\.store needs finitely many views of each image; set data\.views=1"),
        (["method=cwd"], "teacher.store keeps logits only, but method cwd needs the teacher's"),
        (["method=[kd, pkd]"], "but method pkd needs the teacher's last; set .*store=false"),
        (["teacher.store.top=10"], "top must be from 1 to 9 for 10 classes, got 10"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(tmp_path / "run", *STORE, *words)
    recipe, session, taught = opened(*STORE, *words)
    if "method" not in words[0]:
        with pytest.raises(UserError, match=sentence):
            check_storable(recipe)
            prefill(recipe.teacher, session, taught)


def test_endless_views_and_features_are_refused_before_a_teacher_is_trained(tmp_path: Path) -> None:
    said: list[str] = []
    for word in (AUGMENTED, "method=cwd"):
        with pytest.raises(UserError, match=r"teacher\.store "):
            run(tmp_path / "run", *STORE, "teacher.seed=99", word, say=said.append)
    assert said == [] and not (tmp_path / "run").exists()


def test_a_method_from_elsewhere_that_needs_features_is_refused() -> None:
    class Curious(Method):
        teacher_taps = ("stage1",)

    recipe, session, taught = opened(*STORE)
    with pytest.raises(UserError, match="keeps logits only, but .* needs the teacher's stage1"):
        make_teacher(recipe, session, taught, Curious())


# --------------------------------------------------------------------------------- what it changes


def test_a_run_with_a_store_is_the_run_with_the_teacher(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """In full precision up to the rounding of sums, which follows the batch that a row is in."""
    live = weights_of(run(tmp_path / "live", "teacher.remember=false"))
    full = weights_of(run(tmp_path / "full", *words, "teacher.store.precision=full"))
    torch.testing.assert_close(full, live, rtol=0, atol=1e-5)
    half = weights_of(run(tmp_path / "half", *STORE))
    torch.testing.assert_close(half, live, rtol=0, atol=1e-2)
    assert not torch.equal(half, live)
    one = weights_of(run(tmp_path / "one", *STORE, "teacher.store.top=1"))
    assert (one - live).abs().max() > 10 * (half - live).abs().max()


def unless_a_warning(said: list[str]) -> Callable[[str], None]:
    """Keeps what a run says, but for that so short a training reaches little."""

    def say(text: str) -> None:
        if not text.startswith("warning:"):
            said.append(text)

    return say


def test_a_store_is_filled_once_for_all_seeds_methods_and_processes(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said: list[str] = []
    more = (*words, AUGMENTED, "data.views=2")
    recipe, session, taught = opened(*more)
    prefill(recipe.teacher, session, taught, said.append)
    assert len(said) == 1 and said[0].startswith(
        f"teacher: storing 400 outputs of stillhouse/little in 9.6 kB at {tmp_path}/store, about"
    )
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()}
    prefill(recipe.teacher, session, taught, said.append)
    for seed, method in ((0, "kd"), (1, "kd"), (1, "dkd")):
        word = f"method={method}"
        run(tmp_path / f"{method}{seed}", *more, f"seed={seed}", word, say=unless_a_warning(said))
    assert run_job(quick(*more, "seed=2"), tmp_path / "cell")["seed"] == 2
    assert len([text for text in said if "storing" in text]) == 1
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()} == before


def test_its_answers_are_to_the_images_that_are_shown(words: tuple[str, ...]) -> None:
    more = (*words, "teacher.store.precision=full", AUGMENTED, "data.views=3")
    recipe, session, taught = opened(*more, "seed=5")
    stored = make_teacher(recipe, session, taught, Method())
    assert isinstance(stored, DiskCached) and stored.store.rows == 600
    loader, network = make_training_loader(recipe, session.sources, CPU), taught.network
    for epoch in range(4):
        for batch in loader.epoch(epoch):
            with torch.no_grad():
                out = network(batch.images)
            torch.testing.assert_close(stored(batch).out, out, rtol=1e-4, atol=1e-5)


def test_without_a_path_it_lies_in_the_cache_by_what_it_depends_on() -> None:
    recipe, session, taught = opened(*STORE)
    places = {make_store(recipe.teacher, session, taught).folder}
    for words in (["teacher.store.top=3"], ["data.transforms=[{kind: resize, size: 8}]"]):
        other, opened_anew, _ = opened(*STORE, *words)
        places.add(make_store(other.teacher, opened_anew, taught).folder)
    with torch.no_grad():
        next(taught.network.parameters()).add_(1)
    places.add(make_store(recipe.teacher, session, taught).folder)
    assert len(places) == 4 and {p.parent for p in places} == {cache_folder() / "outputs"}
    for words in (["seed=3"], ["method=dkd"], ["train.epochs=9"], ["data.batch=8"]):
        other, opened_anew, _ = opened(*STORE, *words)
        assert make_store(other.teacher, opened_anew, taught).folder in places


def test_another_recipe_at_the_same_place_is_refused(words: tuple[str, ...]) -> None:
    recipe, session, taught = opened(*words)
    prefill(recipe.teacher, session, taught)
    other = Session.open(quick(*words, "data.transforms=[{kind: resize, size: 8}]"), quiet=True)
    with pytest.raises(UserError, match=r"store was filled for other transforms; .*store\.path"):
        prefill(recipe.teacher, other, taught)
    fewer = Session.open(quick(*words, "data.train.count=100"), quiet=True)
    with pytest.raises(UserError, match=r"store was filled for other data; .*store\.path"):
        prefill(recipe.teacher, fewer, taught)
    with torch.no_grad():
        next(taught.network.parameters()).add_(1)
    with pytest.raises(UserError, match=r"store was filled by another teacher; .*store\.path"):
        prefill(recipe.teacher, session, taught)


def test_a_recipe_without_a_store_has_nothing_to_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for words in ([], ["teacher.remember=false"]):
        recipe, session, taught = opened(*words)
        prefill(recipe.teacher, session, taught, said.append)
    recipe, session, _ = opened(*STORE)
    prefill(recipe.teacher, session, None, said.append)
    assert said == []


def test_a_stop_while_it_is_filled_ends_the_run_and_keeps_the_answers(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if "storing" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        run(tmp_path / "run", *words, say=interrupt)
    run(tmp_path / "run", *words, say=unless_a_warning(said), resume=True)
    first, second = [text for text in said if "storing" in text]
    assert "storing 200 outputs" in first and "storing 136 more of 200 outputs" in second


# ------------------------------------------------------------------------------------- the views


def shown(seed: int, *words: str, filling: bool = False) -> dict[tuple[int, int], Tensor]:
    """Every image of four epochs, by sample and view."""
    recipe = quick(AUGMENTED, f"seed={seed}", *words)
    session = Session.open(recipe, quiet=True)
    if filling:
        loader = make_filling_loader(recipe.data, session.sources, CPU)
    else:
        loader = make_training_loader(recipe, session.sources, CPU)
    found = {}
    for batch in (batch for epoch in range(4) for batch in loader.epoch(epoch)):
        for key, view, image in zip(
            batch.keys.tolist(), batch.views.tolist(), batch.images, strict=True
        ):
            assert torch.equal(found.setdefault((key, view), image), image)
    return found


def test_numbered_views_are_the_same_for_every_seed_and_the_order_is_not() -> None:
    first, second, all_ = (
        shown(0, "data.views=2"),
        shown(1, "data.views=2"),
        shown(7, "data.views=2", filling=True),
    )
    assert len(all_) == 400 and {view for _, view in first} == {0, 1}
    for images in (first, second):
        assert all(torch.equal(image, all_[place]) for place, image in images.items())
    assert list(first) != list(second)
    apart = sum(not torch.equal(all_[key, 0], all_[key, 1]) for key in range(200))
    assert apart > 100


def test_endless_views_follow_the_seed() -> None:
    first, second = shown(0), shown(1)
    both = first.keys() & second.keys()
    assert sum(torch.equal(first[p], second[p]) for p in both) < len(both) / 3


@pytest.mark.parametrize("transforms", ["[{kind: flip}]", "[]"], ids=["random", "none"])
def test_batches_can_be_entered_at_any_row(transforms: str) -> None:
    recipe, session, _ = opened(f"data.transforms={transforms}", "data.views=3")
    loader = make_filling_loader(recipe.data, session.sources, CPU)
    views = 3 if "flip" in transforms else 1
    whole = torch.cat([200 * b.views + b.keys for b in batches_from(0, loader, views)])
    assert whole.tolist() == list(range(200 * views))
    for row in (0, 63, 64, 199, *((200, 201, 599) if views > 1 else ())):
        rows = torch.cat([200 * b.views + b.keys for b in batches_from(row, loader, views)])
        assert rows.tolist() == list(range(row, 200 * views))
    assert list(batches_from(200 * views, loader, views)) == []


# ------------------------------------------------------------------------------------- the doctor


def test_the_doctor_says_what_a_store_takes_and_fills_none(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = {check.name: check.message for check in check_recipe(quick(*words))}["step"]
    place = f"200 outputs of stillhouse/little in 4.8 kB at {tmp_path}/store, about 1 s"
    assert said.endswith(f"; to store: {place}")
    assert list(tmp_path.iterdir()) == []
    recipe, session, taught = opened(*words)
    prefill(recipe.teacher, session, taught)
    assert (
        describe_store(recipe.teacher, session, taught)
        == f"stored: 200 outputs in 4.8 kB at {tmp_path}/store"
    )
    checks = {check.name: check for check in check_recipe(quick(*words))}
    assert "stored: 200" in checks["step"].message
    other = quick(*words, AUGMENTED, "data.views=1")
    checks = {check.name: check for check in check_recipe(other)}
    assert checks["step"].passed is False and "for other transforms" in checks["step"].message


@pytest.mark.parametrize("word, sentence", [(AUGMENTED, "finitely"), ("method=cwd", "logits")])
def test_the_doctor_says_what_cannot_be_stored(word: str, sentence: str) -> None:
    checks = {check.name: check for check in check_recipe(quick(*STORE, word))}
    assert checks["step"].passed is False and sentence in checks["step"].message

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from stillhouse.data.embedded import scenes as module
from stillhouse.data.embedded.scenes import Scenes, make_scenes, scene_classes, semantic_masks
from stillhouse.errors import UserError

LOOPED = 150  # as many as loops in Python are patient with


@cache
def many() -> Scenes:
    return make_scenes("train", 2000)


@cache
def few() -> Scenes:
    return make_scenes("val", 20)


def alike(a: Scenes, b: Scenes, count: int | None = None) -> bool:
    fields = ("images", "instances", "labels", "boxes")
    return all(torch.equal(getattr(a, f)[:count], getattr(b, f)[:count]) for f in fields)


def visible(instances: Tensor, number: int) -> list[tuple[int, int]]:
    """Where one object is seen, as (x, y)."""
    rows = instances.tolist()
    return [(x, y) for y, row in enumerate(rows) for x, at in enumerate(row) if at == number]


# --------------------------------------------------------------------------------------- the parts


def test_shapes() -> None:
    data = many()
    assert len(data) == 2000
    assert (data.images.shape, data.images.dtype) == ((2000, 3, 48, 48), torch.uint8)
    assert (data.instances.shape, data.instances.dtype) == ((2000, 48, 48), torch.uint8)
    assert (data.labels.shape, data.labels.dtype) == ((2000, 4), torch.int64)
    assert (data.boxes.shape, data.boxes.dtype) == ((2000, 4, 4), torch.float32)
    assert data.classes == tuple("0123456789")
    assert data.name == "digits/scenes/train"
    assert data.labels.min() == -1
    assert data.labels.max() == 9
    assert data.instances.max() == 4


def test_boxes_enclose_exactly_what_is_seen() -> None:
    data = many()
    found = 0
    for i in range(LOOPED):
        for k in range(4):
            box = data.boxes[i, k].tolist()
            if data.labels[i, k] < 0:
                assert box == [0, 0, 0, 0]
                continue
            found += 1
            xs, ys = zip(*visible(data.instances[i], k + 1), strict=True)
            assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
    assert found > LOOPED


def test_an_object_counts_when_enough_of_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 pixels and 35 %: what was drawn is overheard, what is seen is counted in a loop."""
    heard = []
    annotate = module._annotate

    def overhear(*given: Tensor) -> tuple[Tensor, Tensor]:
        heard.append(given)
        return annotate(*given)

    monkeypatch.setattr(module, "_annotate", overhear)
    data = make_scenes("train", 500, size=24)  # where digits are small enough to be dropped
    ((digits, _, areas),) = heard
    kinds = set()
    for i in range(500):
        for k in range(4):
            seen, drawn = len(visible(data.instances[i], k + 1)), int(areas[i, k])
            assert seen <= drawn
            counts = seen >= 12 and 100 * seen >= 35 * drawn
            kinds.add((counts, seen == drawn, seen > 0))
            assert data.labels[i, k] == (digits[i, k] if counts else -1)
    assert {(True, True, True), (True, False, True)} < kinds  # whole, and partly hidden
    assert (False, True, False) in kinds  # never there
    assert (False, False, True) in kinds  # too little of it is left


def test_both_rules_at_their_edges() -> None:
    """Five objects of which 12, 11, 35 %, a bit less, and nothing is seen."""
    cases = [(12, 12, True), (11, 11, False), (35, 100, True), (34, 100, False), (0, 0, False)]
    for seen, area, counts in cases:
        instances = torch.zeros(1, 24, 24, dtype=torch.uint8)
        instances.view(-1)[:seen] = 3
        areas = torch.tensor([[0, 0, area, 0]])
        labels, boxes = module._annotate(torch.tensor([[5, 6, 7, 8]]), instances, areas)
        assert labels.tolist() == [[-1, -1, 7 if counts else -1, -1]]
        width, height = min(seen, 24), math.ceil(seen / 24)
        assert boxes[0, 2].tolist() == ([0, 0, width, height] if counts else [0] * 4)


def test_objects_that_count_are_large_enough() -> None:
    data = many()
    for k in range(4):
        seen = (data.instances == k + 1).sum((1, 2))
        assert seen[data.labels[:, k] >= 0].min() >= 12


def test_semantic_map_is_that_of_a_loop() -> None:
    data = many()
    some = Scenes(
        *(getattr(data, f)[:LOOPED] for f in ("images", "instances", "labels", "boxes")),
        *(data.classes, data.fingerprint, data.name),
    )
    found = semantic_masks(some)
    assert found.shape == (LOOPED, 48, 48)
    for i in range(LOOPED):
        labels = data.labels[i].tolist()
        names = [0, *(label + 1 if label >= 0 else 255 for label in labels)]
        assert found[i].tolist() == [
            [names[at] for at in row] for row in data.instances[i].tolist()
        ]


def test_objects_that_do_not_count_are_ignored_not_background() -> None:
    data = make_scenes("train", 500, size=24)
    found = semantic_masks(data)
    ignored = found == 255
    assert ignored.any()
    assert ignored.double().mean() < 0.01
    assert torch.equal(found == 0, data.instances == 0)
    assert set(found.unique().tolist()) == {*range(11), 255}
    for i in ignored.flatten(1).any(1).nonzero().flatten().tolist():
        lost = [k + 1 for k in range(4) if data.labels[i, k] < 0]
        assert torch.equal(ignored[i], torch.isin(data.instances[i], torch.tensor(lost)))


def test_multilabel_is_that_of_a_loop() -> None:
    data = many()
    found = scene_classes(data)
    assert (found.shape, found.dtype) == ((2000, 10), torch.float32)
    for row, labels in zip(found.tolist(), data.labels.tolist(), strict=True):
        assert row == [float(digit in labels) for digit in range(10)]


# -------------------------------------------------------------------------------------- statistics


def test_one_to_four_objects_a_scene() -> None:
    drawn = many().instances.flatten(1).amax(1)
    # The last object drawn is always seen, because nothing covers it but the edge.
    shares = drawn.bincount(minlength=5)[1:] / 2000
    assert shares.min() > 0.22
    assert shares.max() < 0.28
    objects = (many().labels >= 0).sum(1).float()
    assert 2.2 < objects.mean() < 2.6


def test_classes_have_a_long_tail() -> None:
    frequency = scene_classes(many()).mean(0)
    assert frequency.max() == pytest.approx(0.51, abs=0.04)
    assert frequency.min() == pytest.approx(0.067, abs=0.02)
    assert frequency.max() / frequency.min() > 4
    assert scene_classes(many()).sum(1).mean() == pytest.approx(2.1, abs=0.1)


def test_classes_keep_company() -> None:
    """Themes make some pairs commoner, others rarer, than the same digits shuffled."""
    labels = many().labels
    there, between = labels >= 0, ~torch.eye(10, dtype=torch.bool)

    def pairs(labels: Tensor) -> Tensor:
        found = torch.stack([(labels == digit).any(1) for digit in range(10)], 1).double()
        return (found.T @ found)[between]

    shuffled = []
    for _ in range(20):
        digits = labels[there]
        shuffled.append(pairs(labels.masked_scatter(there, digits[torch.randperm(len(digits))])))
    by_chance = torch.stack(shuffled).mean(0)
    found = pairs(labels)

    def surprise(pairs: Tensor) -> Tensor:
        return (((pairs - by_chance) ** 2) / by_chance).mean()

    assert surprise(found) > 1.5 * max(surprise(one) for one in shuffled)
    lift = (found / by_chance)[by_chance > 50]
    assert lift.min() < 0.9
    assert lift.max() > 1.1


def test_objects_stand_out_from_the_ground() -> None:
    images = many().images[:500].double() / 255
    objects = (many().instances[:500] > 0)[:, None].expand_as(images)
    assert images[objects].mean() > 0.6
    assert images[~objects].mean() < 0.3
    assert objects.double().mean() == pytest.approx(0.13, abs=0.05)
    assert images.mean() == pytest.approx(0.2455, abs=0.015)
    assert images.std() == pytest.approx(0.2051, abs=0.015)


def test_objects_are_coloured() -> None:
    data = many()
    greys = colours = 0
    for i in range(LOOPED):
        for k in range(4):
            if data.labels[i, k] >= 0:
                inside = data.images[i][:, data.instances[i] == k + 1].double().median(1).values
                spread = (inside.max() - inside.min()) / inside.max()
                greys += spread < 0.2
                colours += spread > 0.4
    assert greys > 20
    assert colours > 20


# ------------------------------------------------------------------------------------- the options


def test_scenes_are_the_same_each_time() -> None:
    first = few()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = make_scenes("val", 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert alike(first, again)
    assert first.fingerprint == again.fingerprint


@pytest.mark.parametrize("count", [501])
def test_a_short_set_is_the_beginning_of_a_long_one(count: int) -> None:
    short = make_scenes("train", count)
    assert len(short) == count
    assert alike(short, many(), count)


def test_threads_change_nothing() -> None:
    first = few()
    torch.set_num_threads(2)
    try:
        second = make_scenes("val", 20)
    finally:
        torch.set_num_threads(1)
    assert alike(first, second)


@pytest.mark.parametrize("other", [{"split": "test"}, {"seed": 1}, {"size": 64}], ids=str)
def test_every_option_makes_other_scenes(other: dict[str, object]) -> None:
    options = {"split": "val", "count": 20}
    first, second = few(), make_scenes(**{**options, **other})
    assert first.fingerprint != second.fingerprint
    if "size" in other:
        assert second.images.shape == (20, 3, 64, 64)
        assert second.boxes.max() <= 64
    else:
        assert not torch.equal(first.labels, second.labels)
        assert not torch.equal(first.images, second.images)


def test_scenes_out_of_the_cache_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = make_scenes("test", 30, seed=4)
    assert alike(make_scenes("test", 30, seed=4, cache=True), fresh)
    monkeypatch.setattr(module, "_draw", None)
    assert alike(make_scenes("test", 30, seed=4, cache=True), fresh)


@pytest.mark.parametrize("option", [{"count": 0}, {"size": 23}])
def test_scenes_refuse_too_little(option: dict[str, int]) -> None:
    with pytest.raises(UserError) as error:
        make_scenes("train", **{"count": 1, **option})
    assert str(error.value) == "digits/scenes needs `count` of at least 1 and `size` of 24"


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"no split 'trian', only train, val, test; did you mean"):
        make_scenes("trian", 1)

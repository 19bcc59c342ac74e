"""CIRKD in plain loops: pairs of images, queues of classes, and what is drawn from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from segment_room import CLASSES, FIRST, IGNORED, SIDES, SIZE, STRIDE, SegmentRoom, masks, rows
from stillhouse.distributed import combine
from stillhouse.functional.cross_image import (
    draw_by_class,
    place_in_group,
    row_divergence,
    similarity_divergence,
)
from stillhouse.methods.cirkd import CIRKD
from stillhouse.methods.relation_memory import ClassQueue, RelationMemory, mean_of_regions
from stillhouse.types import Lesson, Trace

Vector = list[float]
PIXELS = SIZE[0] * SIZE[1]


def small(**options: Any) -> CIRKD:
    """With memories that fit a test."""
    known = {"pixels": 7, "regions": 5, "pixel_samples": 12, "region_samples": 8, "enqueued": 3}
    return CIRKD(**{**known, **options})


def unit(vector: Vector) -> Vector:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def pixels_of(maps: Any) -> list[Vector]:
    """Unit vectors of one image (C, H, W), row by row."""
    return [unit([c[y][x] for c in maps]) for y in range(SIZE[0]) for x in range(SIZE[1])]


def log_softmax(row: Vector) -> Vector:
    top = max(row)
    total = math.log(sum(math.exp(z - top) for z in row)) + top
    return [z - total for z in row]


def divergence(
    student: Vector, teacher: Vector, others: list[Vector], their: list[Vector], tau: float
) -> float:
    def scores(vector: Vector, vectors: list[Vector]) -> Vector:
        return [sum(a * b for a, b in zip(vector, v, strict=True)) / tau for v in vectors]

    s, t = log_softmax(scores(student, others)), log_softmax(scores(teacher, their))
    return sum(math.exp(b) * (b - a) for a, b in zip(s, t, strict=True))


def values(room: SegmentRoom, lesson: Lesson) -> dict[str, float]:
    return {name: float(term.mean().detach()) for name, term in room.terms(lesson).items()}


def memory_of(room: SegmentRoom) -> RelationMemory:
    found: RelationMemory = room.method.memories[0]
    return found


# -------------------------------------------------------------------------------- the three terms


def test_pairs_of_images_are_those_of_the_formula() -> None:
    room = SegmentRoom(small(weight=2.0, temperature=0.3))
    lesson = room.lesson()
    student, teacher = (
        [pixels_of(maps) for maps in trace.taps["last"].tolist()]
        for trace in (lesson.student, lesson.teacher)
    )
    total = 0.0
    for i in range(3):
        for j in range(3):
            for p in range(PIXELS):
                total += divergence(student[i][p], teacher[i][p], student[j], teacher[j], 0.3)
    term = room.terms(lesson)["last/batch"]
    assert float(term.mean().detach()) == pytest.approx(total / PIXELS / 9, rel=1e-9)
    assert term.weight == 2 and float(term.mass) == 3 and total > 1


def test_memories_are_those_of_the_formula() -> None:
    """Vectors of the queues as they are after this batch was added, the same places of all."""
    room = SegmentRoom(small(weight=0.0, pixel_weight=0.5, region_weight=0.25, temperature=0.2))
    room.method.memories[0].projector.eval()
    lesson = room.lesson(clock=FIRST)
    terms = room.terms(lesson)
    assert list(terms) == ["last/pixel", "last/region"]
    assert lesson.labels is not None
    memory = memory_of(room)
    projected = memory.projector(lesson.student.taps["last"]).tolist()
    random = torch.Generator().manual_seed(0)
    torch.rand(3, PIXELS, generator=random)  # the pixels that were added
    for kind, number in {"pixel": 4, "region": 3}.items():
        queue: Any = memory.queues[kind]
        index = torch.randperm(queue.vectors.shape[1], generator=random)[:number]
        others = queue.vectors[:, index].flatten(0, 1).tolist()
        assert len(others) == CLASSES * number
        total, count = 0.0, 0
        for n, mask in enumerate(lesson.labels.tolist()):
            ours = pixels_of(projected[n])
            theirs = pixels_of(lesson.teacher.taps["last"][n].tolist())
            for p in range(PIXELS):
                if mask[STRIDE * (p // SIZE[1])][STRIDE * (p % SIZE[1])] != IGNORED:
                    total += divergence(ours[p], theirs[p], others, others, 0.2)
                    count += 1
        term = terms[f"last/{kind}"]
        assert float(term.mean().detach()) == pytest.approx(total / count, rel=1e-9)
        assert float(term.mass) == count
    assert [term.weight for term in terms.values()] == [0.5, 0.25]


def test_gradients_reach_the_student_and_the_projector_only() -> None:
    room = SegmentRoom(small())
    for labels in ("some", None):
        lesson = room.lesson(labels=labels)
        room.method.zero_grad()
        combine(room.terms(lesson)).backward()
        assert lesson.student.taps["last"].grad.isfinite().all()
        assert lesson.teacher.taps["last"].grad is None
        for name, p in room.method.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name
            assert bool(p.grad.any()) == (labels is not None), name


def test_the_gradient_of_pairs_is_that_of_the_formula() -> None:
    room = SegmentRoom(small(pixel_weight=0.0, region_weight=0.0, temperature=0.5))
    lesson = room.lesson(2)
    assert len(room.method.memories) == 0

    def loss(maps: Tensor) -> Tensor:
        student = Trace(lesson.student.out, {"last": maps})
        return room.terms(replace(lesson, student=student))["last/batch"].mean()

    assert torch.autograd.gradcheck(loss, (lesson.student.taps["last"],))


def test_equal_features_have_no_loss() -> None:
    room = SegmentRoom(small(pixel_weight=0.0, region_weight=0.0), (6, 6))
    lesson = room.lesson()
    same = replace(lesson, teacher=lesson.student)
    term = room.terms(same)["last/batch"]
    term.total.backward()
    assert float(term.total.detach()) == 0
    assert float(lesson.student.taps["last"].grad.abs().max()) < 1e-15


def test_chunks_change_neither_values_nor_gradients() -> None:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.double).requires_grad_()

    given = draw(7, 3), draw(7, 4), draw(2, 5, 3), draw(2, 5, 4)
    found = []
    for entries in (1, 25, 10**9):
        losses = similarity_divergence(*given, 0.4, entries)
        found.append((losses, *torch.autograd.grad(losses.square().sum(), given)))
    for chunked in found[:2]:
        for part, whole in zip(chunked, found[2], strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(similarity_divergence(*given, 0.4, 1), found[2][0])


def test_groups_without_members_or_rows() -> None:
    for count, groups in ((0, 0), (0, 2)):
        row = torch.zeros(count, 3, requires_grad=True)
        others = torch.zeros(groups, 5, 3, requires_grad=True)
        losses = similarity_divergence(row, row.detach(), others, others.detach(), 0.1)
        assert losses.shape == (0,)
        losses.sum().backward()
        assert row.grad is not None and others.grad is not None
    assert row_divergence(torch.ones(1, 2), torch.ones(1, 2), *2 * [torch.ones(1, 3, 2)], 1.0) == 0


def test_pooled_maps_are_compared() -> None:
    options: Any = {"pixel_weight": 0.0, "region_weight": 0.0}
    room, plain = SegmentRoom(small(pool=2, **options)), SegmentRoom(small(**options))
    lesson = room.lesson()

    def pooled(trace: Trace) -> Trace:
        return Trace(trace.out, {"last": torch.nn.functional.avg_pool2d(trace.taps["last"], 2)})

    coarse = replace(
        lesson, student=pooled(lesson.student), teacher=pooled(lesson.teacher), labels=None
    )
    assert values(room, lesson) == pytest.approx(values(plain, coarse), rel=1e-12)
    room = SegmentRoom(small(pool=100, **options))
    assert values(room, room.lesson())["last/batch"] == 0  # one pixel an image


# ------------------------------------------------------------------------------------- the queues


def test_a_queue_is_a_ring_for_each_class() -> None:
    queue = ClassQueue(3, 4, 2)
    torch.testing.assert_close(queue.vectors.norm(dim=2), torch.ones(3, 4))
    before = queue.vectors.clone()

    def put(label: list[int], first: int) -> None:
        values = torch.arange(first, first + len(label)).float()
        queue.put(torch.stack([values, values], 1), torch.tensor(label, dtype=torch.int64))

    put([2, 0, 2, 2], 10)
    assert queue.vectors[2, :3, 0].tolist() == [10, 12, 13] and queue.start.tolist() == [1, 0, 3]
    assert torch.equal(queue.vectors[1], before[1])
    assert torch.equal(queue.vectors[2, 3], before[2, 3])
    put([2, 2, 1], 20)
    assert queue.vectors[2, :, 0].tolist() == [21, 12, 13, 20]
    assert queue.start.tolist() == [1, 1, 1]
    put([0] * 7, 30)  # more than it holds: the last four, where they would have ended up
    assert queue.vectors[0, :, 0].tolist() == [33, 34, 35, 36] and queue.start.tolist() == [0, 1, 1]
    put([], 0)
    assert queue.start.tolist() == [0, 1, 1]


def test_samples_are_the_same_places_of_all_classes() -> None:
    queue = ClassQueue(3, 5, 2)
    places = torch.arange(15.0).view(3, 5)
    queue.vectors.copy_(places[..., None].expand(3, 5, 2))
    found = queue.sample(2, torch.Generator().manual_seed(3))[:, 0].view(3, 2)
    assert torch.equal(found[1:], found[:-1] + 5) and len(set(found[0].tolist())) == 2
    everything = queue.sample(99, torch.Generator().manual_seed(3))
    assert sorted(everything[:, 0].tolist()) == list(range(15))
    found.zero_()
    assert torch.equal(queue.vectors[..., 0], places)  # it was a copy


def test_places_in_groups() -> None:
    assert place_in_group(torch.tensor([4, 1, 4, 4, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    assert place_in_group(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_pixels_are_drawn_from_their_class_and_image() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (4, 50), generator=random)
    labels[1][labels[1] == 2] = 0  # a class that is absent
    draws = torch.rand(4, 50, generator=random)
    image, pixel, place = draw_by_class(labels, draws, 5, 3)
    want = []
    for n in range(4):
        for c in range(3):
            own = [p for p in range(50) if labels[n, p] == c]
            lowest = sorted(own, key=lambda p: float(draws[n, p]))[:5]
            want.extend((n, p, own.index(p)) for p in lowest)
    assert list(zip(image.tolist(), pixel.tolist(), place.tolist(), strict=True)) == want


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_the_right_pixels_are_remembered(variant: Any) -> None:
    """The authors' code takes them from the first places of the image."""
    room = SegmentRoom(small(weight=0.0, enqueued=3, pixels=50, variant=variant))
    lesson = room.lesson(1, labels=torch.full((1, *SIDES), IGNORED, dtype=torch.uint8))
    assert lesson.labels is not None
    lesson.labels[0, STRIDE * (SIZE[0] - 1) :] = 2  # the last row of the map
    room.terms(lesson)
    queue: Any = memory_of(room).queues["pixel"]
    assert queue.start.tolist() == [0, 0, 3, 0]
    features = pixels_of(lesson.teacher.taps["last"][0].tolist())
    draws = torch.rand(1, PIXELS, generator=torch.Generator().manual_seed(99 * 1_000_003))[0]
    own = list(range(PIXELS - SIZE[1], PIXELS))
    chosen = sorted(own, key=lambda p: float(draws[p]))[:3]
    want = [features[p if variant == "paper" else own.index(p)] for p in chosen]
    torch.testing.assert_close(queue.vectors[2, :3], torch.tensor(want, dtype=torch.double))


def test_regions_are_unit_means_of_unit_vectors() -> None:
    room = SegmentRoom(small(weight=0.0, regions=50))
    lesson = room.lesson()
    assert lesson.labels is not None
    room.terms(lesson)
    queue: Any = memory_of(room).queues["region"]
    want: dict[int, list[Vector]] = {c: [] for c in range(CLASSES)}
    for maps, mask in zip(
        lesson.teacher.taps["last"].tolist(), lesson.labels.tolist(), strict=True
    ):
        vectors = pixels_of(maps)
        for c in want:
            own = [
                vectors[p]
                for p in range(PIXELS)
                if mask[STRIDE * (p // SIZE[1])][STRIDE * (p % SIZE[1])] == c
            ]
            if own:
                want[c].append(unit([sum(v) / len(own) for v in zip(*own, strict=True)]))
    for c, vectors in want.items():
        assert int(queue.start[c]) == len(vectors)
        torch.testing.assert_close(
            queue.vectors[c, : len(vectors)], torch.tensor(vectors, dtype=torch.double)
        )
    none = mean_of_regions(torch.zeros(2, 3, 5), torch.full((2, 3), -1), CLASSES)
    assert none[0].shape == (0, 5) and none[1].shape == (0,)


def test_only_training_fills_the_queues() -> None:
    room = SegmentRoom(small())
    room.method.eval()
    before = {name: buffer.clone() for name, buffer in room.method.named_buffers()}
    first = values(room, room.lesson())
    assert values(room, room.lesson()) == first
    assert all(torch.equal(before[name], b) for name, b in room.method.named_buffers())
    room.method.train()
    values(room, room.lesson())
    assert int(memory_of(room).queues["pixel"].start.sum()) > 0


def test_a_run_that_is_resumed_goes_on_as_before() -> None:
    room, other = SegmentRoom(small()), SegmentRoom(small())
    for step in range(3):
        room.terms(room.lesson(clock=replace(FIRST, step=step), seed=step))
    other.method.load_state_dict(room.method.state_dict())
    later = replace(FIRST, step=3)
    found = [values(one, one.lesson(clock=later, seed=3)) for one in (room, other)]
    assert found[0] == found[1]
    ours, theirs = (one.method.state_dict() for one in (room, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_draws_differ_between_steps_and_seeds() -> None:
    found = []
    for step, seed in ((0, 0), (0, 0), (1, 0), (0, 1)):
        room = SegmentRoom(small(weight=0.0, seed=seed))
        found.append(values(room, room.lesson(clock=replace(FIRST, step=step))))
    assert found[0] == found[1] and found[0] != found[2] and found[0] != found[3]


# --------------------------------------------------------------------------- images without labels


@pytest.mark.parametrize("labels", [None, "ignored"])
def test_without_labels_only_the_pairs_are_left(labels: str | None) -> None:
    mask = None if labels is None else torch.full((3, *SIDES), IGNORED, dtype=torch.uint8)
    room = SegmentRoom(small())
    lesson = room.lesson(labels=mask)
    terms = room.terms(lesson)
    assert [float(term.mass) for term in terms.values()] == [3, 0, 0]
    assert [float(terms[f"last/{kind}"].total.detach()) for kind in ("pixel", "region")] == [0, 0]
    assert int(memory_of(room).queues["pixel"].start.sum()) == 0


def test_images_of_weight_0_are_as_if_absent() -> None:
    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.double)
    room, other = SegmentRoom(small()), SegmentRoom(small())
    lesson = room.lesson(weight=weight)
    found = values(room, lesson), values(other, rows(lesson, [0, 2]))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    ours, theirs = (one.method.state_dict() for one in (room, other))
    for name, buffer in ours.items():
        torch.testing.assert_close(buffer, theirs[name], msg=name)


def test_one_image_and_none() -> None:
    room = SegmentRoom(small())
    assert all(math.isfinite(v) for v in values(room, room.lesson(1)).values())
    lesson = room.lesson(0)
    terms = room.terms(lesson)
    assert all(float(t.total.detach()) == float(t.mass) == 0 for t in terms.values())
    combine(terms).backward()
    assert all(p.grad is not None for p in room.method.parameters())
    assert lesson.student.taps["last"].grad is not None


def test_features_of_0_have_finite_gradients() -> None:
    room = SegmentRoom(small())
    lesson = room.lesson(size=0.0)
    combine(room.terms(lesson)).backward()
    assert lesson.student.taps["last"].grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in room.method.parameters())


# --------------------------------------------------------------------------------------- its parts


def test_a_weight_of_0_leaves_its_parts_out() -> None:
    assert set(values(*with_lesson(small(weight=0.0)))) == {"last/pixel", "last/region"}
    room, lesson = with_lesson(small(pixel_weight=0.0))
    assert set(values(room, lesson)) == {"last/batch", "last/region"}
    assert list(memory_of(room).queues) == ["region"]


def with_lesson(spec: CIRKD) -> tuple[SegmentRoom, Lesson]:
    room = SegmentRoom(spec)
    return room, room.lesson()


def test_published_sizes() -> None:
    memory = memory_of(SegmentRoom(CIRKD(pixels=20, regions=10)))
    assert memory.samples == {"pixel": 4096 // CLASSES + 1, "region": 1024 // CLASSES + 1}
    shapes = [tuple(layer.weight.shape) for layer in memory.projector if hasattr(layer, "weight")]
    assert shapes == [(9, 6, 1, 1), (9,), (9, 9, 1, 1)]
    spec = CIRKD()
    assert (spec.pixels, spec.regions, spec.enqueued) == (20000, 2000, 16)
    assert (spec.weight, spec.pixel_weight, spec.region_weight) == (1.0, 0.1, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"pixels": 0}, "`pixels` must be at least 1"),
        ({"enqueued": 0}, "`enqueued` must be at least 1"),
        ({"pool": 0}, "`pool` must be at least 1"),
        ({"seed": -1}, "`seed` must be non-negative"),
        ({"pixel_weight": -0.1}, "`pixel_weight` must be non-negative"),
        (
            {"weight": 0.0, "pixel_weight": 0.0, "region_weight": 0.0},
            "weight, pixel_weight, region_weight are all 0; set at least one of them above 0",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIRKD(**options)


def test_labels_of_a_class_that_is_absent_change_nothing_of_it() -> None:
    room = SegmentRoom(small())
    mask = masks(3)
    mask[mask == 1] = IGNORED
    queue: Any = memory_of(room).queues["pixel"]
    before = queue.vectors[1].clone()
    room.terms(room.lesson(labels=mask))
    assert torch.equal(queue.vectors[1], before) and int(queue.start[1]) == 0
    assert int(queue.start.sum()) > 0

"""CrossKD: its values by running the modules by hand, and where its gradient goes."""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors import SIZE, small_detector, some_batch
from stillhouse.batches import Batch, Objects
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods import alignment
from stillhouse.methods.alignment import align_channels, channel_statistics
from stillhouse.methods.crosskd import CrossKD
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.models.detectors.detector import Detector
from stillhouse.models.detectors.output import Dense
from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.objectives.published import Ramp
from stillhouse.recipes import load
from stillhouse.runs.execute import execute
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Lesson, Terms
from torchvision_detectors import small_fcos

FAMILIES = ("retinanet", "fcos", "atss", "gfocal")
PUBLISHED = {  # after, weight, box_weight
    "retinanet": (3, 1.0, 1.0),
    "fcos": (2, 0.4, 0.75),
    "atss": (3, 1.0, 1.0),
    "gfocal": (3, 1.0, 4.0),
}
CLOCK = Clock(0, 10, 5)
DEPTH, LEVELS = 3, 3
HEAD: dict[str, Any] = {"head": {"width": 16, "depth": DEPTH}}
every = pytest.mark.parametrize("family", FAMILIES)
Pair = tuple[Detector, Detector]


def pair(family: str = "gfocal", teacher: str | None = None) -> Pair:
    """Two detectors of different backbones, with predictions that differ widely; float64."""
    torch.manual_seed(0)
    made = (
        small_detector(family, **HEAD),
        small_detector(teacher or family, backbone="stillhouse/medium", **HEAD),
    )
    for network in made:
        for parameter in network.head.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=2 / math.sqrt(parameter[0].numel()))
    return made[0].double().eval(), made[1].double().eval()


class Room:
    """A student, a teacher that could get a gradient, and the method between them."""

    def __init__(self, networks: Pair, spec: CrossKD | None = None) -> None:
        self.student, self.teacher = networks
        example = torch.zeros(2, 3, *SIZE, dtype=torch.double)
        setting = Setting(self.student, self.teacher, example)
        self.method = (spec or CrossKD(after=2)).build(setting)
        student = Tapped(self.student, self.method.student_taps, (example,))
        self.pupil = Pupil(student, self.method, Detection(5))
        self.tapped = Tapped(self.teacher, self.method.teacher_taps, (example,))

    def lesson(self, batch: Batch[Objects]) -> Lesson:
        own, trace = self.pupil.student(batch.images), self.tapped(batch.images)
        assigned = self.pupil.task.assign(own, batch)
        return self.pupil.lesson({"": own}, {"": trace}, batch, CLOCK, assigned)

    def terms(self, batch: Batch[Objects]) -> Terms:
        found: Terms = self.method(self.lesson(batch))
        return found


def standardised(student: Tensor, teacher: Tensor) -> Tensor:
    """Channel by channel, over images and pixels."""
    columns = []
    for c in range(student.shape[1]):
        s, t = student[:, c], teacher[:, c]
        columns.append((s - s.mean()) / (s.std() + 1e-6) * t.std() + t.mean())
    return torch.stack(columns, 1)


def through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def rows_of(x: Tensor, width: int) -> Tensor:
    """(N, A * width, H, W) -> (N, H * W * A, width), a cell after the other."""
    found = []
    for image in x:
        cells = [image[:, i, j] for i in range(image.shape[1]) for j in range(image.shape[2])]
        found.append(torch.cat([torch.stack(cell.split(width)) for cell in cells]))
    return torch.stack(found)


def cross_by_hand(room: Room, images: Tensor, after: int, align: bool = True) -> Dense:
    """What the teacher's head gives for the student's features, level by level."""
    levels = [net.neck(net.backbone(images)) for net in (room.student, room.teacher)]
    mine: Any = room.student.head
    theirs: Any = room.teacher.head
    scores, boxes, quality = [], [], []
    for number, (s, t) in enumerate(zip(*levels, strict=True)):
        ended = {}
        for name in ("class_tower", "box_tower"):
            own, other = list(getattr(mine, name)), list(getattr(theirs, name))
            cut = len(other) // DEPTH * after - 1  # before the ReLU
            crossed, known = through(own[:cut], s), through(other[:cut], t)
            ended[name] = through(other[cut:], standardised(crossed, known) if align else crossed)
        scores.append(rows_of(theirs.score(ended["class_tower"]), 5))
        scale = getattr(theirs.scales[number], "factor", 1.0)
        boxes.append(rows_of(scale * theirs.box(ended["box_tower"]), theirs.box_width))
        if theirs.quality is not None:
            read = ended[f"{theirs.quality_from}_tower"]
            quality.append(rows_of(theirs.quality(read), 1)[..., 0])
    together = torch.cat(quality, 1) if quality else None
    own_output: Dense = room.teacher(images)
    return replace(
        own_output, scores=torch.cat(scores, 1), boxes=torch.cat(boxes, 1), quality=together
    )


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def entropy(q: float, p: float) -> float:
    return -(p * math.log(q) + (1 - p) * math.log(1 - q))


def overlaps(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """IoU and GIoU."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    hull = math.prod(max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1))
    return shared / union, shared / union - (hull - union) / hull


def box_loss(family: str, cross: Dense, own: Dense, n: int, p: int) -> float:
    if family == "gfocal":
        logs = [x.boxes[n, p].view(4, -1).log_softmax(-1).flatten().tolist() for x in (cross, own)]
        return sum(math.exp(t) * (t - s) for s, t in zip(*logs, strict=True)) / 4
    iou, giou = overlaps(cross.decoded[n, p].tolist(), own.decoded[n, p].tolist())
    return -math.log(max(iou, 1e-6)) if family == "fcos" else 1 - giou


# ------------------------------------------------------------------------------------------- values


def means_by_hand(family: str, room: Room, batch: Batch[Objects], cross: Dense) -> dict[str, float]:
    """The terms before their weights, prior by prior."""
    own: Dense = room.teacher(batch.images)
    assigned = own.family.assign(own, batch.target)
    index = assigned.index.tolist()
    positives = [sum(i >= 0 for i in row) for row in index]
    mass = sum(max(1, count) for count in positives)
    totals = dict.fromkeys(("class", "box", "quality", "confidence"), 0.0)
    for n, row in enumerate(index):
        for p, i in enumerate(row):
            if i == -2:
                continue
            pair = zip(cross.scores[n, p].tolist(), own.scores[n, p].tolist(), strict=True)
            for q, t in ((sigmoid(a), sigmoid(b)) for a, b in pair):
                totals["class"] += abs(q - t) * entropy(q, t)
            confidence = sigmoid(float(own.scores[n, p].max()))
            totals["confidence"] += confidence
            totals["box"] += confidence * box_loss(family, cross, own, n, p)
            if own.quality is not None and cross.quality is not None and i >= 0:
                q, t = sigmoid(float(cross.quality[n, p])), sigmoid(float(own.quality[n, p]))
                totals["quality"] += entropy(q, t) - entropy(t, t)
    assert sum(positives) > 3
    divisor = totals["confidence"] if family == "gfocal" else mass
    return {
        "class": totals["class"] / mass,
        "box": totals["box"] / divisor,
        "quality": totals["quality"] / mass,
    }


@torch.no_grad()
@every
def test_values_are_those_of_the_modules_by_hand(family: str) -> None:
    room, batch = Room(pair(family)), some_batch(2, 0, 3)
    cross = cross_by_hand(room, batch.images, 2)
    want = means_by_hand(family, room, batch, cross)
    found = room.terms(batch)
    assert set(found) == {
        f"{name}/crosskd"
        for name in (("class", "box", "quality") if family == "atss" else ("class", "box"))
    }
    for name, term in found.items():
        value = want[name.partition("/")[0]]
        assert value > 1e-3 and float(term.mean()) == pytest.approx(value, rel=1e-8), name


@torch.no_grad()
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("after", [1, DEPTH])
@every
def test_features_cross_over_after_any_layer(family: str, after: int, align: bool) -> None:
    room, images = Room(pair(family), CrossKD(after=after, align=align)), some_batch(1, 1).images
    own = room.teacher(images)
    lesson = room.lesson(some_batch(1, 1))
    found, want = room.method.predict(lesson, own), cross_by_hand(room, images, after, align)
    for name in ("scores", "boxes", "quality"):
        got, other = getattr(found, name), getattr(want, name)
        assert (got is None) == (other is None)
        if got is not None:
            torch.testing.assert_close(got, other, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(got, getattr(own, name), atol=1e-2)


@torch.no_grad()
def test_after_no_layer_the_levels_cross_over() -> None:
    room, images = Room(pair(), CrossKD(after=0, align=False)), some_batch(1, 1).images
    found = room.method.predict(room.lesson(some_batch(1, 1)), room.teacher(images))
    want = room.teacher.head(room.student.neck(room.student.backbone(images)))
    torch.testing.assert_close(found.scores, want.scores)
    torch.testing.assert_close(found.boxes, want.boxes)


@pytest.mark.parametrize("align", [False, True])
@every
def test_equal_features_have_no_loss(family: str, align: bool) -> None:
    """But for what is added to the deviation of a channel."""
    networks, batch = pair(family), some_batch(2, 1)
    found, other = (
        Room((student, networks[1]), CrossKD(after=2, align=align)).terms(batch)
        for student in (copy.deepcopy(networks[1]), networks[0])
    )
    for name, term in found.items():
        bound = 0.02 * float(other[name].mean().detach()) if align else 1e-12
        assert 0.02 * float(other[name].mean().detach()) > 1e-5
        assert abs(float(term.mean().detach())) < bound, name


@every
def test_defaults_are_those_of_the_teachers_family(family: str) -> None:
    deep = {"head": {"width": 16, "depth": 4}}
    networks = (
        small_detector("gfocal" if family == "atss" else family, **deep),
        small_detector(family, **deep),
    )
    room = Room((networks[0].double(), networks[1].double()), CrossKD())
    after, weight, box_weight = PUBLISHED[family]
    assert room.method.after == after
    terms = room.terms(some_batch(1, 2))
    assert terms["class/crosskd"].weight == weight and terms["box/crosskd"].weight == box_weight
    if family == "atss":
        assert terms["quality/crosskd"].weight == 1
    own = Room((networks[0], networks[1]), CrossKD(1, 0.5, 3.0, ramp=Ramp(10, start=1, end=0)))
    terms = own.terms(some_batch(1, 2))
    assert terms["class/crosskd"].weight == pytest.approx(0.5 * 0.9)
    assert terms["box/crosskd"].weight == pytest.approx(3 * 0.9)


def test_a_power_of_the_difference() -> None:
    networks, batch = pair(), some_batch(2, 1)
    room = Room(networks, CrossKD(after=2, beta=2.0))
    with torch.no_grad():
        q = cross_by_hand(room, batch.images, 2).scores.sigmoid()
        t = room.teacher(batch.images).scores.sigmoid()
        losses = (q - t).abs() ** 2 * F.binary_cross_entropy(q, t, reduction="none")
    term = room.terms(batch)["class/crosskd"]
    torch.testing.assert_close(term.total.detach(), losses.sum())


# ---------------------------------------------------------------------------------------- gradients


@every
def test_its_gradient_reaches_the_student_up_to_the_layer(family: str) -> None:
    room = Room(pair(family))
    combine(room.terms(some_batch(2, 0, 3))).backward()
    head: Any = room.student.head
    for tower in (head.class_tower, head.box_tower):
        convolutions = [layer for layer in tower if isinstance(layer, nn.Conv2d)]
        slopes = [layer.weight.grad for layer in convolutions]
        assert all(slope is not None and slope.abs().sum() > 0 for slope in slopes[:2])
        assert slopes[2] is None
    assert head.score.weight.grad is None and head.box.weight.grad is None
    for part in (room.student.neck, room.student.backbone):
        slopes = [p.grad for p in part.parameters() if p.requires_grad]
        assert any(slope is not None and slope.abs().sum() > 0 for slope in slopes)


@every
def test_the_teacher_gets_no_gradient_and_stays_as_it_is(family: str) -> None:
    room = Room(pair(family))
    assert all(p.requires_grad for p in room.teacher.head.parameters())
    before = state_hash(room.teacher)
    combine(room.terms(some_batch(2, 1))).backward()
    assert all(p.grad is None for p in room.teacher.parameters())
    assert state_hash(room.teacher) == before and all(
        p.requires_grad for p in room.teacher.head.parameters()
    )


def test_the_head_is_not_part_of_the_method() -> None:
    room = Room(pair())
    assert list(room.method.state_dict()) == [] and list(room.method.parameters()) == []
    with torch.no_grad():
        room.teacher.head.score.bias.add_(5.0)  # a teacher that moves is followed
        first = room.terms(some_batch(1))["class/crosskd"].total
        room.teacher.head.score.bias.sub_(5.0)
        assert not torch.allclose(first, room.terms(some_batch(1))["class/crosskd"].total)


# ------------------------------------------------------------------------------------- any images


@pytest.mark.parametrize("counts", [(0, 0), (1,), (0, 2)])
@every
def test_images_without_boxes(family: str, counts: tuple[int, ...]) -> None:
    room = Room(pair(family))
    terms = room.terms(some_batch(*counts))
    combine(terms).backward()
    assert all(term.total.isfinite() for term in terms.values())
    if not any(counts):
        assert float(terms["class/crosskd"].mass) == len(counts)
        if family == "atss":
            assert float(terms["quality/crosskd"].total.detach()) == 0
    slopes = [p.grad for p in room.student.parameters() if p.grad is not None]
    assert slopes and all(slope.isfinite().all() for slope in slopes)


def test_images_without_labels() -> None:
    room, batch = Room(pair("atss")), replace(some_batch(1, 2), target=None)
    terms = room.terms(batch)
    assert (
        float(terms["class/crosskd"].mass) == 2 and float(terms["box/crosskd"].total.detach()) > 0
    )


def test_black_images_and_levels_of_one_cell_stay_finite() -> None:
    room = Room(pair("retinanet"))
    for shape in (SIZE, (16, 16)):
        batch = replace(some_batch(0), images=torch.zeros(1, 3, *shape, dtype=torch.double))
        room.student.zero_grad()
        combine(room.terms(batch)).backward()
        slopes = [p.grad for p in room.student.parameters() if p.grad is not None]
        assert slopes and all(slope.isfinite().all() for slope in slopes)


@every
def test_under_autocast_losses_are_computed_in_single_precision(family: str) -> None:
    student, teacher = (network.float() for network in pair(family))
    example = torch.zeros(2, 3, *SIZE)
    method = CrossKD(after=2).build(Setting(student, teacher, example))
    batch = some_batch(2, 0, 3)
    batch = replace(batch, images=batch.images.float())
    taps = [Tapped(student, method.student_taps), Tapped(teacher, method.teacher_taps)]
    task = Detection(5)

    def terms() -> Terms:
        own, trace = (tapped(batch.images) for tapped in taps)
        found: Terms = method(task.lesson(own, trace, batch, CLOCK, task.assign(own, batch)))
        return found

    whole = terms()
    with torch.autocast("cpu", torch.bfloat16):
        lower = terms()
    for name, term in lower.items():
        assert term.total.dtype == torch.float32
        assert float(term.mean().detach()) == pytest.approx(
            float(whole[name].mean().detach()), rel=0.1
        )
    combine(lower).backward()


def test_a_loop_of_one_s_own() -> None:
    networks = [network.float() for network in pair("gfocal", "atss")]
    student = small_detector("gfocal", **HEAD)
    example = torch.zeros(2, 3, *SIZE)
    made = Distiller(student, networks[1], CrossKD(after=2), task="detection", example=example)
    batch = some_batch(2, 1)
    optimiser = torch.optim.SGD(made.parameters(), 0.01)
    found = []
    for _ in range(6):
        loss, terms = made(replace(batch, images=batch.images.float()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(terms["class/crosskd"]))
    assert found[-1] < found[0]


def test_a_run(tmp_path: Path) -> None:
    options = (
        "{{backbone: stillhouse/{}, strides: [4, 8], neck: {{width: 16, extra: 0}}, "
        "head: {{width: 16, depth: 2}}, scale: 4}}"
    )
    recipe = load.load(
        "digits/objects",
        [
            *(f"data.{split}.count=8" for split in ("train", "val", "test")),
            "data.batch=4",
            f"student.options={options.format('small')}",
            f"teacher.options={options.format('medium')}",
            "teacher.train.epochs=1",
            "teacher.gate=false",
            "train.epochs=1",
            "engine.device=cpu",
            "engine.tensorboard=false",
            "engine.log_every=1",
            "method=[{name: crosskd, after: 1}, {name: pkd, pairs: levels}]",
        ],
    )
    execute(recipe, tmp_path / "run", say=lambda _: None)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    terms = {name for line in lines for name in line if name.startswith("term/crosskd")}
    assert terms == {"term/crosskd/class/crosskd", "term/crosskd/box/crosskd"}


# ---------------------------------------------------------------------------------------- alignment


def maps(seed: int, n: int = 4) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = ((3, 5), (2, 2))
    return [
        seed + 2 * torch.randn(n, 3, *size, generator=random, dtype=torch.double) for size in sizes
    ]


def test_aligned_maps_have_the_statistics_of_the_teachers() -> None:
    student, teacher = maps(1), maps(2)
    for aligned, want, own in zip(align_channels(student, teacher), teacher, student, strict=True):
        for c in range(3):
            torch.testing.assert_close(aligned[:, c].mean(), want[:, c].mean())
            torch.testing.assert_close(aligned[:, c].std(), want[:, c].std(), rtol=1e-5, atol=0)
        torch.testing.assert_close(aligned, standardised(own, want))
    torch.testing.assert_close(align_channels(student, student), student, rtol=1e-5, atol=1e-5)


def test_a_constant_channel_becomes_the_mean_without_a_gradient_that_is_not_finite() -> None:
    student = torch.ones(2, 1, 2, 2, dtype=torch.double, requires_grad=True)
    (aligned,) = align_channels([student], [maps(2, 2)[1][:, :1]])
    torch.testing.assert_close(aligned, maps(2, 2)[1][:, :1].mean().expand_as(aligned))
    aligned.square().sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_half_precision_is_aligned_in_single_precision() -> None:
    student, teacher = ([x.bfloat16() for x in maps(seed)] for seed in (1, 2))
    found = align_channels(student, teacher)
    want = align_channels([x.float() for x in student], [x.float() for x in teacher])
    assert all(x.dtype == torch.float32 for x in found)
    torch.testing.assert_close(found, want)


class Meeting:
    """Ranks as threads, which meet at each sum, forward and backward."""

    def __init__(self, ranks: int) -> None:
        self.barrier, self.ranks = threading.Barrier(ranks, timeout=20), ranks
        self.notes: dict[int, Tensor] = {}
        self.own = threading.local()

    def total(self, x: Tensor) -> Tensor:
        self.notes[self.own.rank] = x
        self.barrier.wait()
        found = torch.stack([self.notes[rank] for rank in range(self.ranks)]).sum(0)
        self.barrier.wait()
        return found

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        meeting = self

        class Sum(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return meeting.total(x)

            @staticmethod
            def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
                return meeting.total(slope)

        found: Tensor = Sum.apply(x)
        return found


def test_ragged_ranks_are_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them without images; the sum over ranks is that of threads."""
    whole, teacher, cuts = maps(1), maps(2), (0, 3, 3, 4)
    for x in whole:
        x.requires_grad_()
    weights = maps(3)

    def loss(student: list[Tensor], part: slice) -> Tensor:
        aligned = align_channels(student, [x[part] for x in teacher])
        return sum(
            ((x * w[part]).sigmoid().sum() for x, w in zip(aligned, weights, strict=True)),
            torch.zeros(()),
        )

    want = loss(whole, slice(None))
    slopes = torch.autograd.grad(want, whole)
    meeting, found = Meeting(3), {}
    monkeypatch.setattr(alignment, "sum_over_ranks", meeting.sum_over_ranks)

    def rank(number: int) -> None:
        meeting.own.rank = number
        part = slice(cuts[number], cuts[number + 1])
        own = [x.detach()[part].requires_grad_() for x in whole]
        value = loss(own, part)
        found[number] = value.detach(), torch.autograd.grad(value, own)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(sum(found[n][0] for n in range(3)), want.detach())
    for level, slope in enumerate(slopes):
        torch.testing.assert_close(torch.cat([found[n][1][level] for n in range(3)]), slope)


def test_statistics_of_no_images_are_zero() -> None:
    mean, deviation = channel_statistics([torch.zeros(0, 3, 4, 4)])
    assert not mean.any() and not deviation.any()


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("student", "teacher", "spec", "text"),
    [
        ("reppoints", "atss", CrossKD(after=1), "but the student, RepPoints, is none"),
        ("gfocal", "reppoints", CrossKD(after=1), "but the teacher, RepPoints, is none"),
        ("gfocal", "gfocal", CrossKD(), "after layer 3 of the head, but the towers of the student"),
        ("gfocal", "gfocal", CrossKD(after=2), "set method.after to 1 or less"),
    ],
)
def test_networks_that_do_not_fit(student: str, teacher: str, spec: CrossKD, text: str) -> None:
    setting = Setting(small_detector(student), small_detector(teacher), torch.zeros(1, 3, *SIZE))
    with pytest.raises(UserError) as caught:
        spec.build(setting)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_heads_of_other_widths_are_refused() -> None:
    wide = small_detector("gfocal", head={"width": 24, "depth": 1})
    setting = Setting(small_detector("gfocal"), wide, torch.zeros(1, 3, *SIZE))
    with pytest.raises(UserError, match=r"have 16 channels and the teacher's 24; give both"):
        CrossKD(after=1).build(setting)


def test_detectors_of_torchvision_and_classifiers_are_refused() -> None:
    setting = Setting(small_detector("fcos"), small_fcos(), torch.zeros(1, 3, *SIZE))
    with pytest.raises(
        UserError, match="but the teacher, GroupedFCOS, is none; take detector/retinanet"
    ):
        CrossKD(after=1).build(setting)
    setting = replace(setting, student=zoo.create("stillhouse/small", 5))
    with pytest.raises(UserError, match="but the student, SmallResNet, is none"):
        CrossKD(after=1).build(setting)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="`after` must be non-negative, got -1"):
        CrossKD(after=-1)
    with pytest.raises(ValueError, match="`beta` must be non-negative"):
        CrossKD(beta=-0.5)


def test_the_card_says_what_it_needs() -> None:
    assert {"boxes", "features", "head", "batch"} <= set(CrossKD.card.needs)
    method = Room(pair()).method
    assert method.sites == ("class",) and method.teacher_taps == method.student_taps
    assert len(method.student_taps) == 2 * LEVELS
    assert Room(pair(), CrossKD(after=1, align=False)).method.teacher_taps == ()

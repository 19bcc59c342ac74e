"""Semantic segmentation as a task: outputs, label losses, sites, selection and the gate."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.methods.logit import Logits
from stillhouse.models.segmenters.output import Segmentation, read_segmentation
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.objectives import presets
from stillhouse.tasks.base import Facts
from stillhouse.tasks.pixel_sites import SITES
from stillhouse.tasks.semantic import Semantic, SemanticSpec
from stillhouse.tasks.windows import starts
from stillhouse.types import Clock, Trace

CLOCK = Clock(0, 10, 5)
CLASSES = 4


def some_maps(seed: int, shape: tuple[int, ...] = (2, CLASSES, 5, 7)) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.double)


def some_masks(seed: int = 9, shape: tuple[int, ...] = (2, 10, 14), ignored: float = 0.2) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    found = torch.randint(0, CLASSES, shape, generator=random)
    return found.masked_fill(torch.rand(shape, generator=random) < ignored, 255)


def batch_of(mask: Tensor | None, images: int = 2, size: tuple[int, int] = (10, 14)) -> Batch[Any]:
    keys = torch.arange(images)
    return Batch(torch.zeros(images, 3, *size), mask, keys, torch.zeros_like(keys))


def output_of(seed: int, auxiliary: bool = True) -> Segmentation:
    aux = some_maps(seed + 50, (2, CLASSES, 3, 4)) if auxiliary else None
    return Segmentation(some_maps(seed).requires_grad_(), aux)


# -------------------------------------------------------------------------------------- outputs


def test_outputs_of_other_libraries() -> None:
    maps, aux = some_maps(0), some_maps(1)
    assert read_segmentation(maps).logits is maps
    both = read_segmentation({"out": maps, "aux": aux})
    assert both.logits is maps and both.auxiliary is aux
    assert read_segmentation({"out": maps}).auxiliary is None
    assert read_segmentation(SimpleNamespace(logits=maps)).logits is maps
    assert read_segmentation((maps, aux)).logits is maps and read_segmentation(both) is both


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ({"boxes": 1}, "the network returns a dict, and segmentation needs class scores of each"),
        (torch.zeros(2, 5), r"returns scores of shape \(2, 5\), and segmentation needs those of"),
        ({"out": torch.zeros(1, 2, 3, 4), "aux": torch.zeros(3)}, r"scores of shape \(3,\)"),
    ],
)
def test_other_outputs_are_refused(output: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Semantic(5).check_output(output, "the student", 2)


def test_a_wrong_number_of_classes_or_images() -> None:
    with pytest.raises(UserError, match="the teacher gives scores of 4 classes for 2 images; exp"):
        Semantic(5).check_output(some_maps(0), "the teacher", 2)
    with pytest.raises(UserError, match="expected 4 classes and 3 images"):
        Semantic(CLASSES).check_output(some_maps(0), "the teacher", 3)
    with pytest.raises(UserError, match="the student has 4 classes and the teacher 3; give both"):
        Semantic().check_pair(some_maps(0), some_maps(0)[:, :3])
    Semantic(CLASSES).check_pair(some_maps(0), some_maps(0, (2, CLASSES, 9, 9)))


def test_classes_of_a_teacher_in_another_order() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> Any:
            return {"out": some_maps(0), "aux": some_maps(1)}

    order, standard = [2, 0, 3], ((0.0,) * 3, (1.0,) * 3)
    out = TeacherWrapper(Fixed(), data=standard, select=order)(torch.zeros(2, 3, 10, 14))
    assert torch.equal(out.logits, some_maps(0)[:, order])
    assert torch.equal(out.auxiliary, some_maps(1)[:, order])


# --------------------------------------------------------------------------------- label losses


def test_the_label_loss_pixel_by_pixel() -> None:
    out, mask = output_of(0), some_masks()
    terms = Semantic(CLASSES).supervise(Trace(out), batch_of(mask))
    assert set(terms) == {"label", "aux"}
    for name, maps, weight in (("label", out.logits, 1.0), ("aux", out.auxiliary, 0.4)):
        assert maps is not None
        height, width = maps.shape[2:]
        total, count = 0.0, 0
        for n, y, x in (mask != 255).nonzero().tolist():
            # the place of the pixel in the map, whose corners are those of the mask
            at_y, at_x = y * (height - 1) / 9, x * (width - 1) / 13
            y0, x0 = min(int(at_y), height - 2), min(int(at_x), width - 2)
            b, a = at_y - y0, at_x - x0
            z = (
                maps[n, :, y0, x0] * (1 - b) * (1 - a)
                + maps[n, :, y0, x0 + 1] * (1 - b) * a
                + maps[n, :, y0 + 1, x0] * b * (1 - a)
                + maps[n, :, y0 + 1, x0 + 1] * b * a
            ).tolist()
            total += math.log(sum(map(math.exp, z))) - z[int(mask[n, y, x])]
            count += 1
        term = terms[name]
        assert term.weight == weight and int(term.mass) == count
        assert float(term.total.detach()) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("mask", [None, torch.full((2, 10, 14), 255)])
def test_no_pixel_with_a_class(mask: Tensor | None) -> None:
    out = output_of(0)
    terms = Semantic(CLASSES).supervise(Trace(out), batch_of(mask))
    assert all(float(term.mass) == 0 and float(term.total.detach()) == 0 for term in terms.values())
    combine(terms).backward()
    assert out.logits.grad is not None and not out.logits.grad.any()


def test_masks_that_do_not_fit() -> None:
    task, trace = Semantic(CLASSES), Trace(output_of(0))
    with pytest.raises(UserError, match="a mask has class 7, but the network has 4 classes; give"):
        task.supervise(trace, batch_of(torch.full((2, 10, 14), 7)))
    for wrong in (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 10, 14, dtype=torch.int64)):
        with pytest.raises(UserError, match=r"do not fit scores of shape \(2, 4, 5, 7\); expected"):
            task.supervise(trace, batch_of(wrong))


def test_uint8_masks_are_read() -> None:
    mask, trace = some_masks(), Trace(output_of(0))
    first, second = (
        Semantic(CLASSES).supervise(trace, batch_of(m))["label"] for m in (mask, mask.byte())
    )
    assert torch.equal(first.total, second.total) and first.mass == second.mass


# ----------------------------------------------------------------------------------------- sites


def test_rows_are_pixels() -> None:
    student, teacher, mask = output_of(0), output_of(1), some_masks()
    sites = lesson_of(student, teacher, mask).sites
    assert tuple(sites) == SITES
    site, every = sites["pixel"], sites["every_pixel"]
    row = 0
    for n in range(2):
        for y in range(5):
            for x in range(7):
                label = int(mask[n, 2 * y + 1, 2 * x + 1])  # the nearest, above and left of none
                assert torch.equal(site.student[row], student.logits[n, :, y, x])
                assert torch.equal(site.teacher[row], teacher.logits[n, :, y, x])
                assert site.target is not None and site.weight is not None
                assert int(site.target[row]) == (-1 if label == 255 else label)
                assert float(site.weight[row]) == (label != 255)
                row += 1
    assert site.weight is not None and site.mass == site.weight.sum()
    assert every.weight is None and every.mass is None and torch.equal(every.target, site.target)
    assert sites["aux"].student.shape == (2 * 3 * 4, CLASSES)
    assert torch.equal(sites["channel"].student, student.logits.flatten(2).flatten(0, 1))


def lesson_of(student: Any, teacher: Any, mask: Tensor | None) -> Any:
    return Semantic(CLASSES).lesson(Trace(student), Trace(teacher), batch_of(mask), CLOCK)


def test_maps_of_another_size_are_resized_to_those_of_the_student() -> None:
    teacher = some_maps(1, (2, CLASSES, 9, 13))
    sites = lesson_of(some_maps(0), {"out": teacher}, None).sites
    want = F.interpolate(teacher, (5, 7), mode="bilinear", align_corners=True)
    torch.testing.assert_close(
        sites["pixel"].teacher, want.permute(0, 2, 3, 1).reshape(-1, CLASSES)
    )
    torch.testing.assert_close(sites["channel"].teacher, want.reshape(2 * CLASSES, -1))
    assert sites["pixel"].target is None and sites["pixel"].mass == 70
    assert tuple(sites) == ("pixel", "every_pixel", "channel")
    with pytest.raises(UserError, match="site 'aux', but these two networks have pixel, every_pix"):
        sites["aux"]
    assert Semantic(CLASSES).pair_sites(output_of(0), output_of(1)) == SITES


def value(preset: Any, student: Any, teacher: Any, mask: Tensor | None) -> Tensor:
    terms = Logits(preset)(lesson_of(student, teacher, mask))
    total: Tensor = sum(term.weight * term.mean() for term in terms.values())  # type: ignore[assignment]
    return total


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_a_mean_over_pixels_with_a_class(temperature: float) -> None:
    student, teacher, mask = output_of(0), output_of(1), some_masks()
    found = value(
        presets.kd(temperature=temperature, sites=("pixel",), weight=1), student, teacher, mask
    )
    total, count = 0.0, 0
    for n in range(2):
        for y in range(5):
            for x in range(7):
                if mask[n, 2 * y + 1, 2 * x + 1] == 255:
                    continue
                p, q = (
                    (out.logits[n, :, y, x] / temperature).softmax(0).tolist()
                    for out in (teacher, student)
                )
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
                count += 1
    assert float(found.detach()) == pytest.approx(temperature**2 * total / count, rel=1e-9)


def test_kd_of_channels_is_channel_wise_distillation() -> None:
    student, teacher = output_of(0), output_of(1)
    found = value(presets.kd(temperature=2, sites=("channel",), weight=1), student, teacher, None)
    s, t = ((out.logits / 2).flatten(2) for out in (student, teacher))
    want = 4 * (t.softmax(2) * (t.log_softmax(2) - s.log_softmax(2))).sum() / (2 * CLASSES)
    torch.testing.assert_close(found, want)


def test_dist_has_pixels_as_rows_and_ignored_ones_by_choice() -> None:
    student, teacher, mask = output_of(0), output_of(1), some_masks()
    found = {}
    for site in ("pixel", "every_pixel"):
        found[site] = value(
            presets.dist(temperature=1, beta=1, gamma=1, sites=(site,)), student, teacher, mask
        )
        rows = [out.logits.permute(0, 2, 3, 1).reshape(-1, CLASSES) for out in (student, teacher)]
        kept = torch.ones(70, dtype=torch.bool)
        if site == "pixel":
            kept = mask[:, 1::2, 1::2].flatten() != 255
        s, t = (row[kept].softmax(1) for row in rows)
        inter = 1 - correlations(s, t).mean()
        intra = 1 - correlations(s.T, t.T).mean()
        torch.testing.assert_close(found[site], inter + intra, rtol=1e-6, atol=1e-6)
    assert found["pixel"] != found["every_pixel"]


def correlations(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


@pytest.mark.parametrize(
    "preset",
    [
        presets.kd(sites=("pixel",)),
        presets.lskd(sites=("pixel",)),
        presets.dkd(sites=("pixel",)),
        presets.tld(sites=("pixel",)),
        presets.dist(sites=("pixel", "aux")),
        presets.kd(sites=("channel",)),
    ],
    ids=lambda preset: preset.name,
)
@pytest.mark.parametrize("ignored", [0.3, 1.0])
def test_ignored_pixels_change_nothing(preset: Any, ignored: float) -> None:
    mask = some_masks(ignored=ignored)
    out, teacher = output_of(0), output_of(1)
    first = value(preset, out, teacher, mask)
    first.backward()
    assert out.logits.grad is not None and out.logits.grad.isfinite().all()
    if "channel" in preset.sites:
        return
    known = (mask[:, 1::2, 1::2] != 255)[:, None]
    assert not out.logits.grad.masked_select(~known).any()
    moved = Segmentation(torch.where(known, out.logits, 1e3 * some_maps(5)), out.auxiliary)
    torch.testing.assert_close(value(preset, moved, teacher, mask), first)
    assert bool(out.logits.grad.any()) == bool(known.any())


# ------------------------------------------------------------------ predictions, spec and the gate


def test_predictions_have_the_size_of_the_images() -> None:
    maps = some_maps(0)
    found = Semantic(CLASSES).segment(Trace(maps), batch_of(None, size=(21, 30)))
    want = F.interpolate(maps, (21, 30), mode="bilinear", align_corners=True).argmax(1)
    assert torch.equal(found, want)
    none = Semantic(CLASSES).segment(Trace(maps[:0]), batch_of(None, 0, (21, 30)))
    assert none.shape == (0, 21, 30)


def test_one_class_of_each_image() -> None:
    maps, task = some_maps(0), Semantic(CLASSES)
    assert torch.equal(task.collect(Trace(maps)), maps.amax((2, 3)))
    chosen = task.select(maps, torch.tensor([3, 1]))
    assert chosen.tolist() == [float(maps[0, 3].max()), float(maps[1, 1].max())]
    mask = torch.tensor([[[0, 255], [2, 2]], [[3, 3], [255, 255]]])
    hot = task.collect_target(batch_of(mask))
    assert hot.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(UserError, match="outputs of a segmenter are not cached; set teacher.store"):
        task.storable(maps)


def facts(validation: Any) -> Facts:
    return Facts("photos", tuple("abcd"), validation)


def test_chance_is_that_of_the_most_frequent_class() -> None:
    mask = torch.tensor([[[0, 0, 0, 255], [1, 2, 0, 0]]], dtype=torch.uint8)
    task = SemanticSpec(auxiliary=0.2, boundary=True).build(facts(mask))
    assert task.chance == pytest.approx(100 * 5 / 7 / 4)
    assert task.auxiliary == 0.2 and task.boundary and task.classes == 4
    assert task.passes({"miou": 1.5 * task.chance}, 10)
    assert not task.passes({"miou": 1.4 * task.chance}, 10)
    assert SemanticSpec().build(facts(None)).classes == 4


def test_data_without_masks_are_refused() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    objects = Objects(torch.zeros(0, 4), none, none, 1)
    for target in (none, torch.zeros(3, 4), objects):
        with pytest.raises(
            UserError, match="task=semantic needs images with masks, but photos has"
        ):
            SemanticSpec().build(facts(target))
    with pytest.raises(ValueError, match="`auxiliary` must be non-negative"):
        SemanticSpec(auxiliary=-1)


# ------------------------------------------------------------------------------------- windows


def test_windows_cover_each_axis() -> None:
    assert starts(10, 4, 3) == [0, 3, 6] and starts(11, 4, 3) == [0, 3, 6, 7]
    assert starts(4, 4, 2) == [0] and starts(3, 4, 2) == [0]
    for length in range(1, 30):
        for side in (3, 7):
            for stride in range(1, side + 1):
                begins = starts(length, side, stride)
                covered = {p for b in begins for p in range(b, min(b + side, length))}
                assert covered == set(range(length)) and begins[-1] == max(length - side, 0)


def test_predictions_are_means_over_windows() -> None:
    """Of a network that sees the mean of its window."""

    def network(images: Tensor) -> Any:
        mean = images.mean((1, 2, 3))[:, None, None, None]
        return {"out": torch.cat([images[:, :1], images[:, :1] * 0 + mean], 1)[..., ::2, ::2]}

    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 9, 14, generator=random, dtype=torch.double)
    task = SemanticSpec(window=6, stride=4).build(Facts("photos", ("a", "b"), None))
    found = task.run(network, Batch(images, None, torch.arange(2), torch.zeros(2))).out
    assert found.logits.shape == (2, 2, 9, 14)
    for y, x in ((0, 0), (5, 7), (8, 13), (4, 4)):
        inside = [
            (top, left)
            for top in (0, 3)
            for left in (0, 4, 8)
            if top <= y < top + 6 and left <= x < left + 6
        ]
        means = [images[:, :, t : t + 6, e : e + 6].mean((1, 2, 3)) for t, e in inside]
        torch.testing.assert_close(found.logits[:, 1, y, x], torch.stack(means).mean(0))
    whole = SemanticSpec(window=20).build(Facts("photos", ("a", "b"), None))
    one = whole.run(network, Batch(images, None, torch.arange(2), torch.zeros(2))).out
    want = F.interpolate(network(images)["out"], (9, 14), mode="bilinear", align_corners=True)
    torch.testing.assert_close(one.logits, want)
    assert whole.windows == (20, 13)


def test_windows_without_a_gap() -> None:
    with pytest.raises(ValueError, match="`stride` must be at most `window`, 4, got 5"):
        SemanticSpec(window=4, stride=5)
    with pytest.raises(ValueError, match="`stride` must be at most `window`, None, got 5"):
        SemanticSpec(stride=5)
    with pytest.raises(ValueError, match="`window` must be at least 1"):
        SemanticSpec(window=0)

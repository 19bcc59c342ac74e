"""Two-stage detectors: proposals, samples, regions, losses and detections, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import SIZE, small_two_stage, some_batch, some_objects
from stillhouse.errors import UserError
from stillhouse.models.detectors.assign import IGNORED, Assignment
from stillhouse.models.detectors.output import Suppression
from stillhouse.models.detectors.proposals import RPN
from stillhouse.models.detectors.rcnn import match_regions, refine, sample_regions
from stillhouse.models.detectors.region_head import pool_regions, region_levels
from stillhouse.models.detectors.sampling import random_sample, rank_within
from stillhouse.models.detectors.suppress import detect
from stillhouse.models.detectors.two_stage import Regions, TwoStage
from stillhouse.types import Trace

FAMILIES = ("faster_rcnn", "cascade_rcnn")
COUNTS = (2, 0, 3)
Box = list[float]


def output(family: str, training: bool = False, seed: int = 0) -> TwoStage:
    torch.manual_seed(seed)
    detector = small_two_stage(family).double()
    for head in detector.heads:  # far from equal scores and unmoved boxes
        torch.nn.init.normal_(head.scores.weight, std=1.0)
        torch.nn.init.normal_(head.boxes.weight, std=0.2)
    torch.nn.init.normal_(detector.rpn.scores.weight, std=0.3)
    return detector.train(training)(some_batch(*COUNTS).images)


def overlap(a: Box, b: Box) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [power / sum(powers) for power in powers]


# ------------------------------------------------------------------------------------- proposals


@pytest.mark.parametrize("candidates", [8, 1000])
def test_proposals_are_the_best_of_each_level(candidates: int) -> None:
    out = output("faster_rcnn")
    family = replace(out.family, candidates=candidates, proposals=12)
    found = family.propose(out, training=False)
    height, width = out.size
    scores, boxes = out.proposal.scores[..., 0].sigmoid().tolist(), out.proposal.decoded.tolist()
    for image in range(len(COUNTS)):
        kept: list[tuple[float, Box]] = []
        start = 0
        for count in out.proposal.priors.counts:
            places = sorted(range(start, start + count), key=lambda p: -scores[image][p])
            level: list[tuple[float, Box]] = []
            for p in places[:candidates]:
                x1, y1, x2, y2 = boxes[image][p]
                box = [max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)]
                with_area = box[2] > box[0] and box[3] > box[1]
                if with_area and all(overlap(box, other) <= 0.7 for _, other in level):
                    level.append((scores[image][p], box))
            kept += level
            start += count
        kept = sorted(kept, key=lambda one: -one[0])[:12]
        own = found.image == image
        assert found.scores is not None
        assert found.scores[own].tolist() == pytest.approx([score for score, _ in kept])
        torch.testing.assert_close(found.boxes[own], torch.tensor([b for _, b in kept]).double())


def test_training_has_limits_of_its_own() -> None:
    out = output("faster_rcnn")
    family = replace(out.family, candidates=3, training_candidates=6)
    few, many = (len(family.propose(out, training).boxes) for training in (False, True))
    assert few < many <= 6 * 3 * len(COUNTS)
    fewest = replace(family, training_proposals=2).propose(out, training=True)
    assert torch.bincount(fewest.image).tolist() == [2, 2, 2]


def test_anchors_are_sampled_by_their_overlap() -> None:
    out, objects = output("faster_rcnn"), some_objects(*COUNTS)
    rpn = RPN(scale=4.0, sampled=10_000, share=1.0)
    assigned = rpn.assign(out.proposal, objects)
    anchors = out.proposal.priors.boxes.tolist()
    boxes, image = objects.boxes.tolist(), objects.image.tolist()
    best_of = [max(overlap(box, anchor) for anchor in anchors) for box in boxes]
    for n in range(len(COUNTS)):
        for p, anchor in enumerate(anchors):
            values = {m: overlap(boxes[m], anchor) for m in range(len(boxes)) if image[m] == n}
            highest = max(values.values(), default=0.0)
            forced = [m for m, v in values.items() if v == best_of[m] and v >= 0.3]
            found = int(assigned.index[n, p])
            if forced:
                assert found == forced[-1]
            elif highest >= 0.7:
                assert found >= 0 and values[found] == highest
            else:
                assert found == (-1 if highest < 0.3 else IGNORED)


@pytest.mark.parametrize(("beta", "size"), [(0.0, 6), (1 / 9, 40)])
def test_proposal_losses_are_their_formulas(beta: float, size: int) -> None:
    out, objects = output("faster_rcnn", training=True), some_objects(*COUNTS)
    rpn = RPN(scale=4.0, sampled=size, beta=beta)
    assigned = rpn.assign(out.proposal, objects)
    terms = rpn.terms(out.proposal, assigned)
    scores, deltas = out.proposal.scores[..., 0].tolist(), out.proposal.boxes.tolist()
    anchors, total, box, count = out.proposal.priors.boxes.tolist(), 0.0, 0.0, 0
    for n in range(len(COUNTS)):
        for p, (x1, y1, x2, y2) in enumerate(anchors):
            m = int(assigned.index[n, p])
            if m == IGNORED:
                continue
            count += 1
            total += math.log1p(math.exp(-scores[n][p] if m >= 0 else scores[n][p]))
            if m >= 0:
                a1, b1, a2, b2 = objects.boxes[m].tolist()
                w, h = x2 - x1, y2 - y1
                wanted = [
                    ((a1 + a2) - (x1 + x2)) / 2 / w,
                    ((b1 + b2) - (y1 + y2)) / 2 / h,
                    math.log((a2 - a1) / w),
                    math.log((b2 - b1) / h),
                ]
                for one, other in zip(deltas[n][p], wanted, strict=True):
                    far = abs(one - other)
                    box += far if far >= beta else far**2 / (2 * beta)
                    box -= beta / 2 if far >= beta else 0
    assert count == len(COUNTS) * size
    assert float(terms["proposal"].mean().detach()) == pytest.approx(total / count, rel=1e-9)
    assert float(terms["proposal_box"].mean().detach()) == pytest.approx(box / count, rel=1e-9)


# ---------------------------------------------------------------------------------------- samples


def test_ranks_within_groups() -> None:
    torch.manual_seed(0)
    group, key = torch.randint(0, 5, (60,)), torch.rand(60, dtype=torch.double)
    member = torch.rand(60) < 0.6
    found = rank_within(group, key, member)
    for i in range(60):
        if member[i]:
            same = [j for j in range(60) if member[j] and group[j] == group[i]]
            assert int(found[i]) == sum(bool(key[j] < key[i]) for j in same)


def test_a_sample_has_its_share_of_positives() -> None:
    torch.manual_seed(0)
    image = torch.tensor([0] * 50 + [1] * 50 + [2] * 5 + [3] * 30)
    positive = torch.zeros(135, dtype=torch.bool)
    positive[:40] = positive[50:53] = True
    negative = ~positive
    negative[105:] = False  # the last image has rows of neither kind
    kept = random_sample(image, positive, negative, 16, 0.25)
    counts = [
        (int((kept & positive)[image == n].sum()), int((kept & negative)[image == n].sum()))
        for n in range(4)
    ]
    assert counts == [(4, 10), (3, 13), (0, 5), (0, 0)]
    others = [random_sample(image, positive, negative, 16, 0.25) for _ in range(20)]
    assert len({tuple(one.nonzero()[:, 0].tolist()) for one in others}) > 10


def test_samples_of_no_rows() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert random_sample(none, none.bool(), none.bool(), 4, 0.5).shape == (0,)


def test_regions_are_matched_with_the_object_of_most_overlap() -> None:
    objects = some_objects(*COUNTS)
    crowd = torch.tensor([False, True, False, False, False])
    objects = replace(objects, crowd=crowd)
    regions = some_objects(9, 9, 9, seed=4)
    found = match_regions(regions.boxes, regions.image, objects, 0.2)
    hits = 0
    for box, n, m in zip(
        regions.boxes.tolist(), regions.image.tolist(), found.tolist(), strict=True
    ):
        values = {
            i: overlap(box, other)
            for i, other in enumerate(objects.boxes.tolist())
            if int(objects.image[i]) == n and not crowd[i]
        }
        best = max(values, key=lambda i: values[i], default=-1)
        expected = best if best >= 0 and values[best] >= 0.2 else -1
        assert m == expected
        hits += m >= 0
    assert 2 < hits < 25


def test_objects_are_regions_too_and_marked() -> None:
    objects = some_objects(*COUNTS)
    regions = some_objects(6, 6, 6, seed=4)
    found = sample_regions(regions.boxes, regions.image, objects, 0.5, 512, 0.25)
    assert found.image.tolist() == sorted(found.image.tolist())
    assert int((~found.proposed).sum()) == 5 and len(found.boxes) == 18 + 5
    given = found.boxes[~found.proposed]
    torch.testing.assert_close(given, objects.boxes[found.index[~found.proposed]])
    few = sample_regions(regions.boxes, regions.image, objects, 0.5, 4, 0.25)
    assert torch.bincount(few.image).tolist() == [4, 4, 4]
    assert torch.bincount(few.image, (few.index >= 0).double()).max() <= 1


# ---------------------------------------------------------------------------------------- regions


def test_regions_are_pooled_from_the_level_of_their_size() -> None:
    sides = torch.tensor([10.0, 55.9, 57.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 2000.0])
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), sides, sides], 1)
    assert region_levels(boxes, (4, 8, 16, 32)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert region_levels(boxes, (8, 16)).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_pooled_regions_of_a_slope_are_its_values_at_the_middles_of_bins() -> None:
    """RoIAlign has no offset: the value at x of a cell's middle is that of the cell."""
    strides, levels = (4, 8), []
    for stride in strides:
        y, x = torch.meshgrid(
            (torch.arange(320 // stride) + 0.5) * stride,
            (torch.arange(320 // stride) + 0.5) * stride,
            indexing="ij",
        )
        levels.append(torch.stack([x, y, torch.full_like(x, float(stride))])[None].double())
    boxes = torch.tensor([[20.0, 24, 90, 66], [100, 40, 268, 208]], dtype=torch.double)
    pooled = pool_regions(levels, strides, boxes, torch.tensor([0, 0]))
    assert pooled.shape == (2, 3, 7, 7)
    for one, (x1, y1, x2, y2), stride in zip(pooled, boxes.tolist(), strides, strict=True):
        middles = (torch.arange(7) + 0.5) / 7
        torch.testing.assert_close(one[0], (x1 + (x2 - x1) * middles).double().expand(7, 7))
        torch.testing.assert_close(one[1], (y1 + (y2 - y1) * middles).double().expand(7, 7).mT)
        assert (one[2] == stride).all()


def test_no_regions() -> None:
    levels = [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)]
    none = torch.zeros(0, dtype=torch.int64)
    assert pool_regions(levels, (4, 8), torch.zeros(0, 4), none).shape == (0, 3, 7, 7)


def test_regions_are_pooled_to_the_side_of_the_head() -> None:
    net = small_two_stage(head={"width": 24, "side": 3}).eval()
    assert net.heads[0].first.in_features == 16 * 3 * 3
    net(torch.zeros(1, 3, *SIZE))
    with pytest.raises(UserError, match="`side` of the head must be positive, got 0"):
        small_two_stage(head={"side": 0})


@pytest.mark.parametrize("agnostic", [False, True])
def test_refined_boxes_are_those_of_the_best_class_inside_the_image(agnostic: bool) -> None:
    random = torch.Generator().manual_seed(0)
    regions = Regions(
        some_objects(3, 3, seed=2).boxes,
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.randn(6, 4, generator=random).double(),
        torch.randn(6, 1 if agnostic else 3, 4, generator=random).double(),
        (0.5, 0.5, 0.5, 0.5),
    )
    boxes, image = refine(regions, SIZE)
    assert image is regions.image
    for row, (x1, y1, x2, y2) in enumerate(regions.boxes.tolist()):
        scores = regions.scores[row, :-1].tolist()
        best = 0 if agnostic else scores.index(max(scores))
        dx, dy, dw, dh = (0.5 * regions.deltas[row, best]).tolist()
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        w, h = (x2 - x1) * math.exp(dw), (y2 - y1) * math.exp(dh)
        wanted = [
            min(max(side, 0.0), limit)
            for side, limit in zip(
                (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
                (SIZE[1], SIZE[0]) * 2,
                strict=True,
            )
        ]
        assert boxes[row].tolist() == pytest.approx(wanted)


# ----------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_of_regions_are_their_formulas(family: str) -> None:
    out, objects = output(family, training=True), some_objects(*COUNTS)
    assigned = out.assign(objects)
    terms = out.terms(assigned)
    assert isinstance(assigned.proposal, Assignment)
    weights = {"faster_rcnn": [1.0], "cascade_rcnn": [1.0, 0.5, 0.25]}[family]
    assert len(assigned.stages) == len(weights)
    boxes, image = objects.boxes.tolist(), objects.image.tolist()
    for stage, (found, weight) in enumerate(zip(assigned.stages, weights, strict=True)):
        regions, threshold = found.regions, 0.5 + 0.1 * stage
        classes = box = 0.0
        for row, region in enumerate(regions.boxes.tolist()):
            values = {
                m: overlap(region, boxes[m])
                for m in range(len(boxes))
                if image[m] == int(regions.image[row])
            }
            best = max(values, key=lambda m: values[m], default=-1)
            hit = best >= 0 and values[best] >= threshold
            label = int(objects.labels[best]) if hit else 5
            classes -= math.log(softmax(regions.scores[row].tolist())[label])
            if hit:
                own = regions.deltas[row, 0 if family == "cascade_rcnn" else label].tolist()
                x1, y1, x2, y2 = region
                a1, b1, a2, b2 = boxes[best]
                deviation = regions.deviations
                wanted = [
                    ((a1 + a2) - (x1 + x2)) / 2 / (x2 - x1) / deviation[0],
                    ((b1 + b2) - (y1 + y2)) / 2 / (y2 - y1) / deviation[1],
                    math.log((a2 - a1) / (x2 - x1)) / deviation[2],
                    math.log((b2 - b1) / (y2 - y1)) / deviation[3],
                ]
                for one, other in zip(own, wanted, strict=True):
                    far = abs(one - other)
                    quadratic = family == "cascade_rcnn" and far < 1
                    smooth = far - (0.5 if family == "cascade_rcnn" else 0)
                    box += far**2 / 2 if quadratic else smooth
        name = f"_{stage + 1}" if len(weights) > 1 else ""
        for key, total in ((f"class{name}", classes), (f"box{name}", box)):
            assert float(terms[key].mean().detach()) == pytest.approx(
                total / len(regions), rel=1e-9
            )
            assert terms[key].weight == weight


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("counts", [(0,), (0, 0), (3, 1), ()])
def test_images_without_objects_have_finite_losses(family: str, counts: tuple[int, ...]) -> None:
    """Nor do batches without images, as a rank may have them, in which batch norms cannot learn."""
    detector = small_two_stage(family).double().train(bool(counts))
    batch = some_batch(*counts) if counts else some_batch(1).rows(slice(0, 0))
    out = detector(batch.images)
    terms = out.terms(out.assign(batch.target))
    assert all(bool(term.total.isfinite()) for term in terms.values())
    sum((term.total for term in terms.values()), torch.zeros(())).backward()
    slopes = {name: p.grad for name, p in detector.named_parameters()}
    assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes.values())


def test_later_stages_are_trained_on_refined_proposals_without_the_objects() -> None:
    out, objects = output("cascade_rcnn", training=True), some_objects(*COUNTS)
    first, second, third = (found.regions for found in out.assign(objects).stages)
    refined, _ = refine(first, out.size)
    among = {tuple(box) for box in refined.tolist()} | {tuple(b) for b in objects.boxes.tolist()}
    assert {tuple(box) for box in second.boxes.tolist()} <= among
    # those made from objects are dropped, and the objects added again
    assert len(first) == len(second) == len(third)


# ------------------------------------------------------------------------------------- detections


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("most", [3, 100])
def test_detections_are_those_of_a_loop(family: str, most: int) -> None:
    out = output(family)
    assert out.stages is not None
    sizes = torch.tensor([SIZE, (40, 50), SIZE])
    options = Suppression(threshold=0.2, iou=0.4, most=most)
    found = detect(out, sizes, options)
    last = out.stages[-1]
    stages = [[softmax(row) for row in stage.scores.tolist()] for stage in out.stages]
    for image in range(len(COUNTS)):
        height, width = sizes[image].tolist()
        rows: list[tuple[float, int, Box]] = []
        for row in (last.image == image).nonzero()[:, 0].tolist():
            x1, y1, x2, y2 = last.boxes[row].tolist()
            if (x1 + x2) / 2 > width or (y1 + y2) / 2 > height:
                continue
            for label in range(5):
                score = sum(stage[row][label] for stage in stages) / len(stages)
                if score > 0.2:
                    place = 0 if family == "cascade_rcnn" else label
                    limits = (width, height, width, height)
                    box = [
                        min(max(side, 0.0), limit)
                        for side, limit in zip(
                            last.decoded[row, place].tolist(), limits, strict=True
                        )
                    ]
                    rows.append((score, label, box))
        kept: list[tuple[float, int, Box]] = []
        for one in sorted(rows, key=lambda one: -one[0]):
            if all(one[1] != k or overlap(one[2], box) <= 0.4 for _, k, box in kept):
                kept.append(one)
        own = found.image == image
        assert found.scores is not None and len(kept) > 3
        assert found.scores[own].tolist() == pytest.approx([score for score, *_ in kept[:most]])
        assert found.labels[own].tolist() == [label for _, label, _ in kept[:most]]
        wanted = torch.tensor([box for *_, box in kept[:most]]).double()
        torch.testing.assert_close(found.boxes[own], wanted)


def test_predictions_are_made_in_evaluation_or_when_asked_for() -> None:
    torch.manual_seed(0)
    detector = small_two_stage().double()
    images = some_batch(1, 1).images
    trained = detector.train()(images)
    assert trained.stages is None and len(trained.predicted) == 1
    assert detector.eval()(images).stages is not None


def test_class_logits_are_the_highest_odds_of_each_image() -> None:
    out = output("faster_rcnn")
    found = out.class_logits().detach()
    (last,) = out.predicted
    for n in range(len(COUNTS)):
        shares = [softmax(last.scores[r].tolist()) for r in (last.image == n).nonzero()[:, 0]]
        for label in range(5):
            highest = max(share[label] for share in shares)
            assert float(found[n, label]) == pytest.approx(math.log(highest / (1 - highest)))


def test_some_classes_in_another_order() -> None:
    out = output("faster_rcnn")
    chosen = out.select(torch.tensor([3, 0]))
    assert chosen.classes == 2
    before, after = out.predicted[0], chosen.predicted[0]
    assert torch.equal(after.scores, before.scores[:, [3, 0, 5]])
    assert torch.equal(after.deltas, before.deltas[:, [3, 0]])


def detached(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.requires_grad


def test_a_detached_output_has_no_gradient_anywhere() -> None:
    out = output("cascade_rcnn")
    assert not detached(out.levels[0])
    copy = Trace(out).detached().out
    assert all(map(detached, copy.levels)) and detached(copy.proposal.scores)
    assert all(detached(stage.scores) and detached(stage.deltas) for stage in copy.stages)

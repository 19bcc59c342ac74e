"""Faster R-CNN and Mask R-CNN of torchvision: losses and detections equal torchvision's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.image_list import ImageList

from detectors import SIZE, some_objects
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.detectors.rcnn import FasterRCNN as Family
from stillhouse.models.detectors.suppress import detect
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.detectors.torchvision.rcnn import TorchvisionTwoStage
from stillhouse.models.taps import Tapped
from torchvision_detectors import CLASSES, listed, seeded, small_rcnn

COUNTS = (3, 0, 5)
KINDS = pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])


def images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1)).double()


def made(kind: Any = FasterRCNN, **options: Any) -> Any:
    """Far from equal scores and unmoved boxes."""
    model = seeded(small_rcnn, kind, **options).double()
    for layer, spread in (
        (model.rpn.head.cls_logits, 0.6),
        (model.roi_heads.box_predictor.cls_score, 0.8),
        (model.roi_heads.box_predictor.bbox_pred, 0.6),
    ):
        torch.nn.init.normal_(layer.weight, std=spread)
    return model


@KINDS
def test_detections_are_torchvisions(kind: Any) -> None:
    model = made(kind, box_score_thresh=0.25, box_nms_thresh=0.4, box_detections_per_img=12).eval()
    x, shapes = images(), [SIZE] * 3
    with torch.no_grad():
        features = model.backbone(x)
        proposals, _ = model.rpn(ImageList(x, shapes), features)
        logits, deltas = model.roi_heads.box_predictor(
            model.roi_heads.box_head(model.roi_heads.box_roi_pool(features, proposals, shapes))
        )
        wanted = model.roi_heads.postprocess_detections(logits, deltas, proposals, shapes)
        detector = TorchvisionTwoStage(model).eval()
        out = detector(x)
        found = detect(out, torch.tensor(shapes))
    (stage,) = out.stages
    torch.testing.assert_close(stage.boxes, torch.cat(proposals))
    torch.testing.assert_close(stage.scores[:, -1], logits[:, 0])
    torch.testing.assert_close(stage.scores[:, :-1], logits[:, 1:])
    for number, (boxes, scores, labels) in enumerate(zip(*wanted, strict=True)):
        own = found.image == number
        assert len(boxes) > 3 and found.scores is not None
        torch.testing.assert_close(found.boxes[own], boxes)
        torch.testing.assert_close(found.scores[own], scores)
        assert (found.labels[own] + 1).tolist() == labels.tolist()


@pytest.mark.parametrize("counts", [COUNTS, (2, 4, 1)])
def test_losses_are_torchvisions(counts: tuple[int, ...]) -> None:
    model = made().train()
    objects = some_objects(*counts, classes=CLASSES)
    x, shapes = images(), [SIZE] * 3
    targets = [{**one, "labels": one["labels"] + 1} for one in listed(objects)]
    features = model.backbone(x)
    proposals, wanted = model.rpn(ImageList(x, shapes), features, targets)
    _, of_regions = model.roi_heads(features, proposals, shapes, targets)
    wanted |= of_regions
    detector = TorchvisionTwoStage(model).train()
    out = detector(x)
    terms = out.terms(out.assign(objects))
    names = {
        "proposal": "loss_objectness",
        "proposal_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
    }
    for name, other in names.items():
        found = terms[name].weight * terms[name].mean()
        torch.testing.assert_close(found, wanted[other], check_dtype=False)


def test_regions_in_any_order() -> None:
    detector = TorchvisionTwoStage(made()).eval()
    out = detector(images())
    objects = some_objects(4, 4, 4, seed=3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    straight = out.score(objects.boxes, objects.image)
    mixed = out.score(objects.boxes[order], objects.image[order])
    torch.testing.assert_close(mixed.scores, straight.scores[order])
    assert out.score(objects.boxes[:0], objects.image[:0]).scores.shape == (0, CLASSES + 1)


def test_columns_are_classes_by_choice_and_the_background_is_last() -> None:
    model = made()
    whole, chosen = TorchvisionTwoStage(model).eval(), TorchvisionTwoStage(model, (3, 1)).eval()
    with torch.no_grad():
        one, other = whole(images()).stages[0], chosen(images()).stages[0]
    torch.testing.assert_close(other.scores, one.scores[:, [2, 0, CLASSES]])
    torch.testing.assert_close(other.deltas, one.deltas[:, [2, 0]])


def test_it_is_recognised_and_trained_in_place() -> None:
    model = made()
    detector = adapt_detector(model)
    assert isinstance(detector, TorchvisionTwoStage) and detector.model is model
    assert isinstance(detector.family, Family)
    assert {name.removeprefix("model.") for name in detector.state_dict()} == set(
        model.state_dict()
    )
    tapped = Tapped(detector.train(), ["p2", "p3"], (images(),))
    trace = tapped(images())
    assert [tuple(tap.shape[2:]) for tap in trace.taps.values()] == [(12, 16), (6, 8)]
    terms = trace.out.terms(trace.out.assign(some_objects(*COUNTS, classes=CLASSES)))
    sum((term.mean() for term in terms.values()), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_published_names_have_a_background_of_their_own() -> None:
    network = zoo.create("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", 6)
    assert network.roi_heads.box_predictor.cls_score.out_features == 7
    options = {"columns": "coco91"}
    coco = zoo.create("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", 80, **options)
    assert coco.roi_heads.box_predictor.cls_score.out_features == 91
    detector = adapt_detector(coco)
    assert isinstance(detector, TorchvisionTwoStage)
    assert detector.columns[:13].tolist() == [*range(1, 12), 13, 14]


def test_another_coder_of_proposals_is_refused() -> None:
    model = made()
    model.rpn.box_coder.weights = (1.0, 1.0, 2.0, 2.0)
    with pytest.raises(UserError, match="box coder of the proposals of FasterRCNN has weights"):
        TorchvisionTwoStage(model)

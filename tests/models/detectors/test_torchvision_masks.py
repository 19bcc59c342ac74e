"""The masks of torchvision's Mask R-CNN: losses and predictions equal torchvision's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detectors import SIZE, some_objects
from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.detectors.torchvision.rcnn import TorchvisionTwoStage
from torchvision_detectors import CLASSES, listed, seeded, small_rcnn

COUNTS = (3, 0, 5)


def images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1)).double()


def made(**options: Any) -> Any:
    """Far from equal scores, unmoved boxes and masks of 0.5."""
    torch.manual_seed(0)
    parts = {
        "mask_head": MaskRCNNHeads(8, (8, 8), 1),
        "mask_predictor": MaskRCNNPredictor(8, 8, CLASSES + 1),
    }
    model = seeded(small_rcnn, MaskRCNN, **parts, **options).double()
    for layer, spread in (
        (model.rpn.head.cls_logits, 0.6),
        (model.roi_heads.box_predictor.cls_score, 0.8),
        (model.roi_heads.box_predictor.bbox_pred, 0.6),
        (model.roi_heads.mask_predictor.mask_fcn_logits, 2.0),
    ):
        torch.nn.init.normal_(layer.weight, std=spread)
    return model


def masked_objects(*counts: int) -> Objects:
    """Objects whose masks are the upper left triangles of their boxes."""
    objects = some_objects(*counts, classes=CLASSES)
    y, x = (torch.arange(side)[:, None] + 0.5 for side in SIZE)
    parts = [
        (x[:, 0] - x1) / (x2 - x1) + (y - y1) / (y2 - y1) <= 1
        for x1, y1, x2, y2 in objects.boxes.tolist()
    ]
    parts = [
        part & (x[:, 0] >= box[0]) & (y >= box[1])
        for part, box in zip(parts, objects.boxes.tolist(), strict=True)
    ]
    return replace(objects, masks=torch.stack(parts))


@pytest.mark.parametrize("counts", [COUNTS, (2, 4, 1)])
def test_mask_losses_are_torchvisions(counts: tuple[int, ...]) -> None:
    model, objects = made().train(), masked_objects(*counts)
    assert objects.masks is not None
    x, shapes = images(), [SIZE] * 3
    targets = [
        {**one, "labels": one["labels"] + 1, "masks": objects.masks[objects.image == n].byte()}
        for n, one in enumerate(listed(objects))
    ]
    features = model.backbone(x)
    proposals, wanted = model.rpn(ImageList(x, shapes), features, targets)
    _, of_regions = model.roi_heads(features, proposals, shapes, targets)
    wanted |= of_regions
    out = TorchvisionTwoStage(model, masked=True).train()(x)
    terms = out.terms(out.assign(objects))
    names = {
        "proposal": "loss_objectness",
        "proposal_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert set(terms) == set(names)
    for name, other in names.items():
        found = terms[name].weight * terms[name].mean()
        torch.testing.assert_close(found, wanted[other], check_dtype=False, rtol=1e-6, atol=1e-6)


def test_masks_are_torchvisions() -> None:
    model = made(box_score_thresh=0.25, box_nms_thresh=0.4, box_detections_per_img=12).eval()
    x, shapes = images(), [SIZE] * 3
    with torch.no_grad():
        features = model.backbone(x)
        proposals, _ = model.rpn(ImageList(x, shapes), features)
        wanted, _ = model.roi_heads(features, proposals, shapes)
        out = TorchvisionTwoStage(model, masked=True).eval()(x)
        for number, one in enumerate(wanted):
            found = out.segment(number, SIZE, out.family.suppression)
            assert len(one["boxes"]) > 3
            torch.testing.assert_close(found.boxes, one["boxes"])
            assert (found.labels + 1).tolist() == one["labels"].tolist()
            where = torch.full_like(found.labels, number)
            shares = out.mask_logits(found.boxes, where, found.labels).sigmoid()
            torch.testing.assert_close(shares, one["masks"][:, 0], rtol=1e-6, atol=1e-6)
            pasted = paste_masks_in_image(one["masks"], one["boxes"], SIZE)
            assert torch.equal(found.masks, pasted[:, 0] >= 0.5)
            assert found.masks.any()


def test_masks_are_pasted_as_torchvision_does() -> None:
    random = torch.Generator().manual_seed(0)
    boxes = some_objects(40, seed=5).boxes
    boxes[10:20] = boxes[10:20].round()  # whole sides
    boxes[20:24, 2:] = boxes[20:24, :2] + 0.3  # less than a pixel
    boxes[30:35, :2], boxes[35:, 2:] = 0.0, torch.tensor([SIZE[1], SIZE[0]]).double()
    shares = torch.rand(40, 7, 7, generator=random).double()
    found = TorchvisionTwoStage(made(), masked=True).family.paste(shares, boxes, SIZE)
    wanted = paste_masks_in_image(shares[:, None], boxes, SIZE)[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_images_that_were_padded() -> None:
    out = TorchvisionTwoStage(made(), masked=True).eval()(images())
    found = out.segment(1, (40, 50), replace(out.family.suppression, threshold=0.2))
    assert found.masks.any() and found.masks.shape[1:] == SIZE
    assert not found.masks[:, 40:].any() and not found.masks[:, :, 50:].any()


def test_columns_of_masks_are_classes_by_choice() -> None:
    model, objects = made(), some_objects(1, 1, 1)
    whole = TorchvisionTwoStage(model, masked=True).eval()(images())
    chosen = TorchvisionTwoStage(model, (3, 1), masked=True).eval()(images())
    ours, theirs = torch.tensor([0, 1, 0]), torch.tensor([2, 0, 2])
    torch.testing.assert_close(
        chosen.mask_logits(objects.boxes, objects.image, ours),
        whole.mask_logits(objects.boxes, objects.image, theirs),
    )


def test_masks_are_trained_only_where_they_are_asked_for() -> None:
    model = made()
    detector = adapt_detector(model).train()
    out = detector(images())
    assert "mask" not in out.terms(out.assign(some_objects(*COUNTS, classes=CLASSES)))
    with pytest.raises(UserError, match="the detector has no mask head"):
        out.segment(0, SIZE, out.family.suppression)
    detector = adapt_detector(model, masked=True).train()
    out = detector(images())
    terms = out.terms(out.assign(masked_objects(*COUNTS)))
    sum((term.mean() for term in terms.values()), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    without = adapt_detector(seeded(small_rcnn, FasterRCNN), masked=True)
    assert isinstance(without, TorchvisionTwoStage) and not without.family.masked


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_published_names_have_masks(name: str) -> None:
    network = zoo.create(f"torchvision/{name}", 2)
    assert network.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 3
    detector = adapt_detector(network, masked=True).eval()
    with torch.no_grad():
        out = detector(torch.zeros(1, 3, 64, 64))
        box = torch.tensor([[4.0, 4, 40, 50]])
        logits = out.mask_logits(box, torch.tensor([0]), torch.tensor([1]))
    assert out.family.masked and logits.shape == (1, 28, 28)

"""Detectors of torchvision as they are: outputs, losses and detections equal torchvision's own."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import mobilenet_v3_small
from torchvision.models._meta import _COCO_CATEGORIES
from torchvision.models.detection import (
    RetinaNet,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detectors import SIZE, some_objects
from stillhouse.batches import Objects
from stillhouse.distributed import mean_terms
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.suppress import detect
from stillhouse.models.detectors.torchvision.adapter import TorchvisionDetector, adapt_detector
from stillhouse.models.taps import Tapped
from torchvision_detectors import (
    CLASSES,
    STRIDES,
    GroupedFCOS,
    Pyramid,
    listed,
    own_outputs,
    seeded,
    small_fcos,
    small_retinanet,
)

BOTH = pytest.mark.parametrize("make", [small_retinanet, small_fcos])
COUNTS = (3, 0, 5)


def images_of(count: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1)).double()


def with_loss(kind: str, **options: Any) -> Any:
    model = small_retinanet(**options)
    model.head.regression_head._loss_type = kind
    return model


def with_coder(kind: str) -> Any:
    """Of other weights, and a limit that many deltas reach."""
    model = with_loss(kind)
    coder = BoxCoder((10.0, 8.0, 5.0, 4.0), bbox_xform_clip=0.1)
    model.box_coder = model.head.regression_head.box_coder = coder
    return model


def in_pixels() -> Any:
    model = small_fcos()
    model.box_coder = model.head.box_coder = BoxLinearCoder(normalize_by_size=False)
    return model


MODELS = {
    "retinanet": small_retinanet,
    "smooth L1": lambda: with_loss("smooth_l1"),
    "GIoU": lambda: with_loss("giou"),
    "DIoU": lambda: with_loss("diou"),
    "coder, L1": lambda: with_coder("l1"),
    "coder, GIoU": lambda: with_coder("giou"),
    "thresholds": lambda: small_retinanet(fg_iou_thresh=0.35, bg_iou_thresh=0.2),
    "few anchors": lambda: RetinaNet(
        Pyramid(), CLASSES, anchor_generator=AnchorGenerator(((3,), (5,), (7,)), ((1.0,),) * 3)
    ),
    "fcos": small_fcos,
    "wide centre": lambda: small_fcos(center_sampling_radius=4.0),
    "pixels": in_pixels,
}
MODEL = pytest.mark.parametrize("name", MODELS)


class Case:
    """A model in float64 with random raw predictions, as torchvision has them and as a Dense."""

    def __init__(self, name: str, images: int = 3) -> None:
        self.model = seeded(MODELS[name]).double()
        shown = images_of(images)
        made, self.anchors, self.counts = own_outputs(self.model, shown)
        random = torch.Generator().manual_seed(2)
        self.raw = {
            key: (0.8 * torch.randn(part.shape, generator=random)).double().requires_grad_()
            for key, part in made.items()
        }
        self.leaves = list(self.raw.values())
        if "bbox_ctrness" in self.raw:
            self.raw["bbox_regression"] = self.raw["bbox_regression"].relu()
        blank = TorchvisionDetector(self.model)(shown)
        quality = self.raw.get("bbox_ctrness")
        self.out = replace(
            blank,
            scores=self.raw["cls_logits"],
            boxes=self.raw["bbox_regression"],
            quality=None if quality is None else quality[..., 0],
        )

    def own_losses(self, objects: Objects) -> dict[str, Tensor]:
        more = (self.counts,) if isinstance(self.model, GroupedFCOS) else ()
        found = self.model.compute_loss(listed(objects), self.raw, self.anchors, *more)
        names = {"classification": "class", "bbox_regression": "box", "bbox_ctrness": "quality"}
        return {names[key]: value for key, value in found.items()}

    def own_detections(self, shapes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Those of torchvision, but without anchors whose centre is in the padding of an image."""
        raw = dict(self.raw)
        x, y = ((self.anchors[0][:, k] + self.anchors[0][:, k + 2]) / 2 for k in (0, 1))
        padding = torch.stack([(x > width) | (y > height) for height, width in shapes])
        raw["cls_logits"] = raw["cls_logits"].masked_fill(padding[..., None], -100)
        split = {key: list(part.split(self.counts, 1)) for key, part in raw.items()}
        anchors = [list(part.split(self.counts)) for part in self.anchors]
        found: list[dict[str, Tensor]] = self.model.postprocess_detections(split, anchors, shapes)
        return found


# ------------------------------------------------------------------------------------------- losses


def check_losses(case: Case, objects: Objects) -> None:
    family = case.out.family
    terms = family.terms(case.out, family.assign(case.out, objects))
    own = case.own_losses(objects)
    assert terms.keys() == own.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term.mean(), own[name], rtol=1e-9, atol=1e-9)
        pair = [
            torch.autograd.grad(x, case.leaves, retain_graph=True, allow_unused=True)
            for x in (term.mean(), own[name])
        ]
        for mine, theirs in zip(*pair, strict=True):
            mine, theirs = (torch.zeros(()) if g is None else g for g in (mine, theirs))
            torch.testing.assert_close(*torch.broadcast_tensors(mine, theirs), rtol=0, atol=1e-9)


@MODEL
@pytest.mark.parametrize("counts", [COUNTS, (0, 0, 0), (1, 2, 1)])
def test_losses_and_gradients_are_those_of_torchvision(
    name: str, counts: tuple[int, int, int]
) -> None:
    check_losses(Case(name), some_objects(*counts, classes=CLASSES))


def test_boxes_without_any_anchor_and_equal_boxes_are_matched_as_by_torchvision() -> None:
    boxes = [[3.0, 3, 5, 5], [20, 20, 40, 40], [20, 20, 40, 40], [100, 100, 110, 120]]
    objects = Objects(
        torch.tensor(boxes).double(), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 1]), 3
    )
    for name in ("retinanet", "few anchors", "fcos"):
        check_losses(Case(name), objects)


@pytest.mark.parametrize("name", ["retinanet", "fcos", "wide centre"])
def test_boxes_on_the_grid_are_matched_as_by_torchvision(name: str) -> None:
    boxes = [[0.0, 0, 40, 40], [8, 8, 24, 40], [16, 0, 64, 48], [0, 8, 16, 24], [32, 16, 48, 32]]
    labels, image = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 0, 1, 2, 2])
    check_losses(Case(name), Objects(torch.tensor(boxes).double(), labels, image, 3))


@MODEL
def test_the_sums_of_two_ranks_are_those_of_one(name: str) -> None:
    case, objects = Case(name), some_objects(*COUNTS, classes=CLASSES)
    parts = []
    for rows in (slice(0, 1), slice(1, 3)):
        own = case.out.quality
        part = replace(
            case.out,
            scores=case.out.scores[rows],
            boxes=case.out.boxes[rows],
            quality=None if own is None else own[rows],
        )
        some = objects.rows(rows)
        parts.append(part.family.terms(part, part.family.assign(part, some)))
    own_losses = case.own_losses(objects)
    for key, (one, other) in ((k, (parts[0][k], parts[1][k])) for k in own_losses):
        mass = (one.mass + other.mass).clamp(min=one.least)
        torch.testing.assert_close((one.total + other.total) / mass, own_losses[key])


def test_the_labels_that_are_not_trained_on_are_absent() -> None:
    objects = some_objects(*COUNTS, classes=CLASSES)
    marked = replace(objects, crowd=torch.arange(8) % 3 == 0)
    left = objects.objects(~marked.ignored)
    for name in ("retinanet", "fcos"):
        case = Case(name)
        found = (case.out.family.assign(case.out, some) for some in (marked, left))
        with_crowds, without = (case.out.family.terms(case.out, one) for one in found)
        for key, value in mean_terms(without).items():
            assert torch.equal(mean_terms(with_crowds)[key], value)


def test_the_smaller_of_two_objects_has_the_point_even_if_areas_are_close() -> None:
    case = Case("fcos")
    boxes = torch.tensor([[10.0, 10, 31, 31], [10, 10, 31, 30.9]]).double()
    objects = Objects(boxes, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.int64), 3)
    index = case.out.family.assign(case.out, objects).index[0]
    assert (index == 1).any() and not (index == 0).any()


class Waits(TorchDispatchMode):
    """Notes the operations whose result the host must read, or whose shape it must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function)
        by_mask = name == "aten.index.Tensor" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name.startswith(("aten._local_scalar", "aten.nonzero", "aten.repeat_inter")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@BOTH
def test_a_step_does_not_wait_for_a_device(make: Any) -> None:
    model, images = seeded(make).double(), images_of()
    detector, objects = TorchvisionDetector(model), some_objects(*COUNTS, classes=CLASSES)
    with Waits() as watch:
        out = detector(images)
        terms = out.family.terms(out, out.family.assign(out, objects))
        sum(term.total / term.mass for term in terms.values()).backward()
    assert watch.seen == []
    with watch:
        model.compute_loss(
            listed(objects), *own_outputs(model, images)[: 3 if make is small_fcos else 2]
        )
    assert watch.seen  # torchvision's own losses do


# --------------------------------------------------------------------------------------- detections


@pytest.mark.parametrize("name", ["retinanet", "coder, L1", "fcos", "pixels"])
@pytest.mark.parametrize(("candidates", "most", "threshold"), [(40, 25, 0.3), (5000, 900, 0.72)])
def test_detections_are_those_of_torchvision(
    name: str, candidates: int, most: int, threshold: float
) -> None:
    case = Case(name)
    case.model.topk_candidates, case.model.detections_per_img = candidates, most
    case.model.score_thresh, case.model.nms_thresh = threshold, 0.4
    # of one size, because ours have no detections of anchors in the padding of smaller images
    shapes = [(48, 64)] * 3
    family = TorchvisionDetector(case.model).family
    found = detect(replace(case.out, family=family), torch.tensor(shapes))
    assert len(found.labels) > 30
    for number, own in enumerate(case.own_detections(shapes)):
        mine = found.objects(found.image == number)
        assert mine.scores is not None
        assert torch.equal(mine.labels, own["labels"])
        torch.testing.assert_close(mine.scores.double(), own["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mine.boxes.double(), own["boxes"], rtol=1e-5, atol=1e-4)


# -------------------------------------------------------------------------------------- the adapter


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_that_of_the_parts(make: Any, training: bool) -> None:
    model = seeded(make).double()
    model.transform = None  # and of nothing else
    detector = TorchvisionDetector(model).train(training)
    assert model.training is training
    images = images_of()
    out, (raw, anchors, counts) = detector(images), own_outputs(model, images)
    assert isinstance(out, Dense)
    assert torch.equal(out.scores, raw["cls_logits"])
    assert torch.equal(out.boxes, raw["bbox_regression"])
    assert torch.equal(out.priors.boxes, anchors[0]) and torch.equal(anchors[0], anchors[2])
    assert out.priors.counts == counts and out.priors.strides == STRIDES
    strides = [stride for stride, count in zip(STRIDES, counts, strict=True) for _ in range(count)]
    assert out.priors.stride.tolist() == strides
    if "bbox_ctrness" in raw:
        assert out.quality is not None and torch.equal(out.quality, raw["bbox_ctrness"][..., 0])
    else:
        assert out.quality is None


def test_anchors_are_exact_where_maps_are_half() -> None:
    detector = TorchvisionDetector(seeded(small_retinanet))
    whole = detector(images_of(1, (512, 2056)).float()).priors.boxes
    half = detector.to(torch.bfloat16)(images_of(1, (512, 2056)).bfloat16()).priors.boxes
    assert half.dtype == torch.float32 and torch.equal(half, whole)


def test_strides_are_those_of_the_network_where_an_image_is_no_multiple() -> None:
    out = TorchvisionDetector(seeded(small_fcos).double())(images_of(1, (52, 60)))
    assert out.priors.layout == [(4, (13, 15), 1), (8, (7, 8), 1), (16, (4, 4), 1)]


def test_places_of_a_pyramid_on_a_resnet() -> None:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
        norm_layer=FrozenBatchNorm2d,
    )
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
    detector = TorchvisionDetector(RetinaNet(backbone, 2, anchor_generator=anchors))
    taps = ("stage1", "stage4", "p3", "p5", "p7")
    tapped = Tapped(detector, taps)
    made = tapped(images_of(2, (64, 96)).float()).taps
    assert {name: tuple(tap.shape) for name, tap in made.items()} == {
        "stage1": (2, 64, 16, 24),
        "stage4": (2, 512, 2, 3),
        "p3": (2, 256, 8, 12),
        "p5": (2, 256, 2, 3),
        "p7": (2, 256, 1, 1),
    }
    assert tapped.paths["p3"] == "model.backbone.fpn.layer_blocks.0"
    assert list(detector.places.stages) == ["stage1", "stage2", "stage3", "stage4"]
    norms = [m for m in detector.train().modules() if "BatchNorm" in type(m).__name__]
    assert norms and all(type(norm) is FrozenBatchNorm2d for norm in norms)


def test_places_of_a_backbone_with_one_map() -> None:
    features: Any = mobilenet_v3_small(weights=None).features
    features.out_channels = 576
    anchors = AnchorGenerator(((32, 64),), ((1.0, 2.0),))
    detector = TorchvisionDetector(RetinaNet(features, 3, anchor_generator=anchors)).eval()
    assert detector.trunk.strides == (32,) and detector.trunk.each == 4
    assert detector.places.levels == {"p5": "model.backbone.12"}
    made = Tapped(detector, ("p5", "stage2"))(images_of(1, (64, 96)).float()).taps
    assert made["p5"].shape == (1, 576, 2, 3) and made["stage2"].shape[2:] == (8, 12)


def test_of_several_maps_without_a_body_only_levels_are_named() -> None:
    places = TorchvisionDetector(small_retinanet()).places
    assert places.stages == {}
    assert places.levels == {
        "p2": "model.backbone.stem",
        "p3": "model.backbone.middle",
        "p4": "model.backbone.deep",
    }


@BOTH
def test_copies_and_pickles_are_the_same_detector(make: Any) -> None:
    detector, images = TorchvisionDetector(seeded(make).double(), columns=(2, 0)), images_of(1)
    out = detector(images)
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        again = other(images)
        assert torch.equal(again.scores, out.scores) and again.family == out.family
        assert other.places == detector.places
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert torch.equal(detector(images).scores, out.scores)


@BOTH
def test_weights_go_to_torchvision_and_back(make: Any, tmp_path: Path) -> None:
    student, path = TorchvisionDetector(seeded(make)), tmp_path / "student.safetensors"
    weights.save_weights(student, path)
    plain = make()
    assert weights.load_weights(plain, path).prefix == "model."
    state = student.model.state_dict()
    assert all(torch.equal(part, state[name]) for name, part in plain.state_dict().items())
    assert student.state_dict().keys() == {f"model.{name}" for name in state}
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    again = make()
    weights.load_weights(again, tmp_path / "plain.pth")
    assert torch.equal(
        adapt_detector(again)(images_of().float()).scores, student(images_of().float()).scores
    )


# ---------------------------------------------------------------------------------------- columns


def test_columns_of_the_logits_are_the_classes_in_their_order() -> None:
    model = seeded(small_fcos).double()
    every = TorchvisionDetector(model)(images_of()).scores
    chosen = TorchvisionDetector(model, columns=[3, 1])(images_of()).scores
    assert torch.equal(chosen, torch.stack([every[..., 3], every[..., 1]], -1))
    model.class_columns = (2,)
    detector = adapt_detector(model)
    assert torch.equal(detector(images_of()).scores, every[..., 2:3])
    assert "columns" not in detector.state_dict()


def test_of_91_columns_the_80_classes_of_coco_are_taken() -> None:
    model = zoo.create("torchvision/fcos_resnet50_fpn", 80, columns="coco91")
    images = images_of(1, (64, 64)).float()
    found = adapt_detector(model.eval())(images).scores
    every = own_outputs(model, images)[0]["cls_logits"]
    ids = [n for n, name in enumerate(_COCO_CATEGORIES) if name not in ("N/A", "__background__")]
    assert every.shape[-1] == 91 and len(ids) == 80
    assert torch.equal(found, every[..., ids])


def test_a_column_of_background_is_left_out() -> None:
    options: dict[str, Any] = {"columns": "background", "detections_per_img": 7}
    model: Any = zoo.create("torchvision/retinanet_resnet50_fpn_v2", 3, **options)
    detector = adapt_detector(model.eval())
    out = detector(images_of(1, (32, 32)).float())
    assert model.head.classification_head.num_classes == 4
    assert out.scores.shape[-1] == 3 and out.family.suppression.most == 7
    assert out.family.box_loss == "giou"


@pytest.mark.parametrize(
    ("columns", "classes", "said"),
    [
        ("coco91", 20, "columns=coco91 is for the 80 classes of COCO, but the data have 20; leave"),
        ("coco", 80, "columns must be coco91 or background, got 'coco'"),
    ],
)
def test_wrong_columns_are_a_sentence(columns: str, classes: int, said: str) -> None:
    with pytest.raises(UserError, match=f"torchvision/fcos_resnet50_fpn: {said}"):
        zoo.create("torchvision/fcos_resnet50_fpn", classes, columns=columns)


# -------------------------------------------------------------------------------------- recognition


class Queries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bbox_embed = nn.Linear(2, 4)


def uneven() -> Any:
    anchors = AnchorGenerator(((8,), (16, 20), (32,)), ((1.0,),) * 3)
    return RetinaNet(Pyramid(), 2, anchor_generator=anchors)


def unequal() -> Any:
    return RetinaNet(Pyramid(), 2, anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,),) * 2))


def headless() -> Any:
    model = small_fcos()
    del model.box_coder
    return model


def on_odd_images() -> Any:
    model = small_fcos()
    model.backbone.middle = nn.Linear(7, 7)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None),
            "SSD cannot .*: the classes of an SSD share a softmax with the background",
        ),
        (Queries, "Queries cannot .*: it predicts from queries"),
        (headless, "GroupedFCOS is not a RetinaNet or FCOS .* it has no attribute box_coder; take"),
        (uneven, "RetinaNet has 1, 2, 1 anchors per cell by level, but .*; give AnchorGenerator"),
        (unequal, "RetinaNet returns 3 maps, but its anchor generator has sizes for 2; give"),
        (lambda: with_loss("ciou"), "RetinaNet has the box loss 'ciou', which is not supported"),
        (on_odd_images, "the backbone of GroupedFCOS does not take images of 128 x 192: .*mat1"),
    ],
)
def test_what_cannot_be_opened_is_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        adapt_detector(make())
    assert "\n" not in str(raised.value)


def test_other_networks_are_left_as_they_are() -> None:
    for network in (nn.Linear(2, 2), zoo.create("stillhouse/tiny", 3)):
        assert adapt_detector(network) is network
    detector = TorchvisionDetector(small_fcos())
    assert adapt_detector(detector) is detector
    with pytest.raises(UserError, match="Linear is not a RetinaNet .*no attribute backbone"):
        TorchvisionDetector(nn.Linear(2, 2))

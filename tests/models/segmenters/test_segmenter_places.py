"""The places of networks for semantic segmentation: ours, torchvision's and transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import segmentation

from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.models.aliases import find_aliases, resolve_path
from stillhouse.models.places import Places
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.models.taps import Tapped, tap_shapes

IMAGE = torch.randn(2, 3, 64, 96)
CLASSES = 5


def plain(aliases: dict[str, str]) -> dict[str, str]:
    return {alias: path for alias, path in aliases.items() if not alias.endswith("@pre")}


def check_last(network: nn.Module, classifier: str) -> None:
    """The classifier makes `logits` of `last`, also in training."""
    network.train()
    taps = Tapped(network, ["last", "logits"], (IMAGE,))(IMAGE).taps
    assert taps["logits"].shape[:2] == (2, CLASSES)
    assert torch.equal(network.get_submodule(classifier)(taps["last"]), taps["logits"])


@pytest.mark.parametrize("family", ["deeplabv3", "pspnet", "fpn"])
def test_places_of_our_networks(family: str) -> None:
    network = zoo.create(f"segmenter/{family}", CLASSES, backbone="stillhouse/small")
    found = plain(find_aliases(network, IMAGE))
    levels = {f"p{n}": f"decoder.neck.p{n}" for n in (1, 2, 3)} if family == "fpn" else {}
    stages = {f"stage{n}": f"backbone.body.stage{n}" for n in (1, 2, 3)}
    assert found == {**stages, "last": "classifier@input", "logits": "classifier", **levels}
    check_last(network, "classifier")
    taps = Tapped(network, ["logits", *levels], (IMAGE,))
    trace = taps(IMAGE)
    assert trace.taps["logits"] is trace.out.logits
    assert [trace.taps[name].shape[2] for name in levels] == [32, 16, 8][: len(levels)]


def test_the_last_map_needs_an_example() -> None:
    network = zoo.create("segmenter/fpn", CLASSES, backbone="stillhouse/small")
    assert resolve_path(network, "p2") == "decoder.neck.p2"
    assert resolve_path(network, "stage2") == "backbone.body.stage2"
    with pytest.raises(UserError, match="'last', and an alias .* needs an example batch"):
        resolve_path(network, "last")


def test_the_last_stage_of_a_dilated_network_keeps_its_name() -> None:
    network = zoo.create("segmenter/pspnet", CLASSES, backbone="timm/resnet18", width=8)
    shapes = tap_shapes(network, ["stage1", "stage2", "stage3", "stage4", "stage4@pre"], IMAGE)
    widths, strides = (64, 128, 256, 512, 512), (4, 8, 8, 8, 8)
    assert list(shapes.values()) == [
        (2, width, 64 // stride, 96 // stride)
        for width, stride in zip(widths, strides, strict=True)
    ]


# -------------------------------------------------------------------------------------- torchvision

RESNET = {f"stage{n}": f"backbone.layer{n}" for n in (1, 2, 3, 4)}
HEAD = {"last": "classifier.4@input", "logits": "classifier.4"}
FOREIGN: dict[str, dict[str, str]] = {
    "deeplabv3_resnet50": {**RESNET, **HEAD},
    "fcn_resnet50": {**RESNET, **HEAD},
    "deeplabv3_mobilenet_v3_large": HEAD,
    "lraspp_mobilenet_v3_large": {"logits": "classifier"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_places_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    network = zoo.create(f"torchvision/{name}", CLASSES, 1)
    images = IMAGE[:, :1]
    assert plain(find_aliases(network, images)) == FOREIGN[name]
    trace = Tapped(network.eval(), ["logits"], (images,))(images)
    stride = 16 if name == "deeplabv3_mobilenet_v3_large" else 8
    assert trace.taps["logits"].shape == (2, CLASSES, 64 // stride, 96 // stride)
    assert read_segmentation(trace.out).logits.shape == (2, CLASSES, 64, 96)
    assert zoo.preprocessing(f"torchvision/{name}").mean == (0.485, 0.456, 0.406)


def test_an_auxiliary_head_of_torchvision() -> None:
    network = zoo.create("torchvision/fcn_resnet50", CLASSES, aux_loss=True)
    assert plain(find_aliases(network, IMAGE)) == {**RESNET, **HEAD}
    out = read_segmentation(network.eval()(IMAGE))
    assert out.auxiliary is not None and out.auxiliary.shape == out.logits.shape
    check_last(network, "classifier.4")
    with pytest.raises(UserError, match="has no auxiliary head; remove aux_loss"):
        zoo.create("torchvision/lraspp_mobilenet_v3_large", CLASSES, aux_loss=True)
    with pytest.raises(UserError, match="fcn_resnet50 cannot be made with auxiliary=True: got an"):
        zoo.create("torchvision/fcn_resnet50", CLASSES, auxiliary=True)


def test_weights_of_a_classifier_are_for_the_backbone_of_torchvision(tmp_path: Path) -> None:
    classifier = zoo.create("torchvision/resnet50", 3)
    weights.save_weights(classifier, tmp_path / "classifier.safetensors")
    network = zoo.create("torchvision/fcn_resnet50", CLASSES)
    weights.load_pretrained(network, tmp_path / "classifier.safetensors")
    body, known = network.get_submodule("backbone").state_dict(), classifier.state_dict()
    assert len(body) > 300 and all(torch.equal(part, known[name]) for name, part in body.items())
    assert not any("pretrained_part" in name for name in network.state_dict())


def test_the_classifier_of_a_network_that_declares_nothing_is_found() -> None:
    make = segmentation.deeplabv3_resnet50
    network = make(weights=None, weights_backbone=None, num_classes=CLASSES)
    assert find_aliases(network, IMAGE) == HEAD
    check_last(network, "classifier.4")
    two = make(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    assert find_aliases(two, IMAGE) == {}
    light = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    )
    assert find_aliases(light, IMAGE) == {}  # a sum of two maps of scores


# ---------------------------------------------------------------------------------- other networks


def segformer(classes: int) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.SegformerConfig(
        num_labels=classes,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=12,
    )
    network: nn.Module = transformers.SegformerForSemanticSegmentation(config)
    return network


def test_places_of_a_segformer() -> None:
    network = segformer(CLASSES)
    head = "decode_head.classifier"
    assert find_aliases(network, IMAGE) == {"last": f"{head}@input", "logits": head}
    check_last(network, head)
    network.places = Places(  # type: ignore[assignment]
        {f"stage{n + 1}": f"segformer.stages.{n}" for n in range(4)}, classifier=head
    )
    found = find_aliases(network, IMAGE)
    assert found["last"] == f"{head}@input" and found["stage3"] == "segformer.stages.2"
    assert tap_shapes(network, ["stage3"], IMAGE) == {"stage3": (2, 16, 4, 6)}


class Ending(nn.Module):
    """A convolution, a classifier, and what follows it."""

    def __init__(self, end: Any, *, kernel: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.head = nn.Conv2d(4, CLASSES, kernel, padding=kernel // 2, bias=bias)
        self.end = end

    def forward(self, image: Tensor) -> Any:
        return self.end(self.head(self.body(image)))


def test_only_a_map_of_scores_is_taken_for_that_of_a_classifier() -> None:
    enlarge = nn.Upsample(scale_factor=2)
    for end in (nn.Identity(), enlarge, lambda scores: {"out": scores}):
        assert find_aliases(Ending(end), IMAGE)["last"] == "head@input"
    others = [
        Ending(nn.ReLU()),
        Ending(torch.relu_),
        Ending(nn.BatchNorm2d(CLASSES)),
        Ending(nn.Identity(), bias=False),
        Ending(nn.Identity(), kernel=3),
        Ending(lambda scores: (scores, scores)),
        Ending(lambda scores: scores.mean((2, 3))),
    ]
    for number, network in enumerate(others):
        assert find_aliases(network, IMAGE).get("last") != "head@input", number
    declared = Ending(enlarge, kernel=3, bias=False)
    declared.places = Places({"stage1": "body"}, classifier="head")  # type: ignore[assignment]
    assert plain(find_aliases(declared, IMAGE)) == {
        "stage1": "body",
        "last": "head@input",
        "logits": "head",
    }


def test_a_classifier_that_runs_twice_has_no_one_map() -> None:
    class Twice(Ending):
        def forward(self, image: Tensor) -> Any:
            return self.head(self.body(image)) + self.head(self.body(image.flip(3)))

    network = Twice(nn.Identity())
    network.places = Places({"stage1": "body.0"}, classifier="head")  # type: ignore[assignment]
    with pytest.raises(UserError, match="calls 'head' 2 times .* so 'last' would be a guess"):
        resolve_path(network, "last", IMAGE)

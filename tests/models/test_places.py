"""What networks declare of themselves, and what is not guessed of those that declare nothing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases, refusal, resolve_path, resolve_paths
from stillhouse.models.last_layers import last_layers
from stillhouse.models.places import Places, declared_places
from stillhouse.models.pooled_head import find_pooled_head
from stillhouse.models.taps import Tapped, tap_shapes
from stillhouse.models.trunk import cut_classifier

IMAGE = torch.rand(1, 3, 64, 64)
GUESSED = ("stage1", "stage4", "last", "penultimate", "logits", "last@pre")


# ------------------------------------------------------------------------- other people's networks


@cache
def foreign(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "retinanet":
        sizes = {"min_size": 64, "max_size": 64, "num_classes": 3}
        return detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, **sizes).eval()
    make = {"deeplabv3": segmentation.deeplabv3_resnet50, "fcn": segmentation.fcn_resnet50}[name]
    return make(weights=None, weights_backbone=None, aux_loss=name == "fcn").eval()


def example_of(name: str) -> tuple[Any, ...]:
    return ([IMAGE[0]],) if name == "retinanet" else (IMAGE,)


REASONS = {
    "retinanet": "RetinaNet returns 3 tensors",
    "fcn": "FCN returns 2 tensors",
}


@pytest.mark.parametrize("name", REASONS)
def test_nothing_is_guessed_of_a_network_with_several_outputs(name: str) -> None:
    model, example = foreign(name), example_of(name)
    assert find_aliases(model, *example) == {}
    for alias in GUESSED:
        text = f"{REASONS[name]}, so '{alias.removesuffix('@pre')}' would be a guess; name the path"
        with pytest.raises(UserError, match=text):
            resolve_path(model, alias, *example)
    with pytest.raises(UserError, match="or declare the network's places"):
        Tapped(model, ["last"], example)
    with pytest.raises(UserError, match=REASONS[name]):
        cut_classifier(copy.deepcopy(model), *example)
    with pytest.raises(UserError, match=REASONS[name]):
        last_layers(model, *example)


@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("retinanet", "backbone.body.layer4", (1, 2048, 2, 2)),
        ("retinanet", "backbone.body.layer4.2.relu@input@2", (1, 2048, 2, 2)),
        ("retinanet", "head.classification_head.cls_logits@1", (1, 27, 4, 4)),
        ("deeplabv3", "backbone.layer4", (1, 2048, 8, 8)),
        ("fcn", "backbone.layer4", (1, 2048, 8, 8)),
        ("fcn", "backbone.layer4@pre", (1, 2048, 8, 8)),
    ],
)
def test_its_paths_are_taps_as_ever(name: str, path: str, shape: tuple[int, ...]) -> None:
    assert tap_shapes(foreign(name), [path], *example_of(name)) == {path: shape}


def test_the_shared_head_of_a_detector_asks_which_level() -> None:
    path = "head.classification_head.cls_logits"
    with pytest.raises(UserError, match=f"calls '{path}' 5 times .*'{path}@0' to '{path}@4'"):
        Tapped(foreign("retinanet"), [path], example_of("retinanet"))


def test_the_map_before_a_relu_is_that_of_one_call() -> None:
    path = "backbone.body.layer4.2.relu"
    with pytest.raises(UserError, match=f"calls '{path}' 3 times .* '{path}@pre' could be before"):
        resolve_path(foreign("retinanet"), f"{path}@pre", *example_of("retinanet"))


def test_a_foreign_network_may_be_told_its_places() -> None:
    model = copy.deepcopy(foreign("retinanet"))
    model.places = Places(  # type: ignore[assignment]
        {f"stage{n}": f"backbone.body.layer{n}" for n in (2, 3, 4)},
        {f"p{n + 3}": f"backbone.fpn.layer_blocks.{n}" for n in range(3)},
        "head.classification_head.cls_logits",
    )
    example = example_of("retinanet")
    found = find_aliases(model, *example)
    plain = {alias: path for alias, path in found.items() if "@" not in alias}
    body = "backbone.body.layer"
    assert plain == {
        **{f"stage{n}": f"{body}{n}" for n in (2, 3, 4)},
        "last": f"{body}4",
        **{f"p{n + 3}": f"backbone.fpn.layer_blocks.{n}" for n in range(3)},
    }
    assert found["stage2@pre"] == f"{body}2.3.relu@input@2"
    shapes = tap_shapes(model, ["p3", "last"], *example)
    assert shapes == {"p3": (1, 256, 8, 8), "last": (1, 2048, 2, 2)}
    for alias in ("logits", "penultimate"):
        with pytest.raises(UserError, match=f"calls .*cls_logits' 5 times .* so '{alias}' would"):
            resolve_path(model, alias, *example)


# ------------------------------------------------------------------------------- networks that run


class Dense(nn.Module):
    """A backbone, two levels and a head that both share."""

    def __init__(self, output: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.output = output
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.layer2 = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.neck = nn.ModuleDict({"p3": nn.Conv2d(4, 6, 1), "p4": nn.Conv2d(8, 6, 1)})
        self.head = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 1))

    def forward(self, image: Tensor) -> Any:
        shallow = self.layer1(image)
        maps = [self.neck["p3"](shallow), self.neck["p4"](self.layer2(shallow))]
        return self.output([self.head(level) for level in maps])


def flat(maps: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in maps], 2)


class Named(Dense):
    """The same, which names its places."""

    @property
    def places(self) -> Places:
        return Places(
            {"stage3": "layer1", "stage4": "layer2"}, {"p3": "neck.p3", "p4": "neck.p4"}, "head"
        )


def test_a_shared_head_is_no_stage() -> None:
    with pytest.raises(UserError, match="Dense calls 'head' 2 times .* so 'stage1' would be a gue"):
        resolve_path(Dense(flat), "stage1", IMAGE)
    assert find_aliases(Dense(flat), IMAGE) == {"logits": ""}


def test_a_decoder_has_no_stages() -> None:
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 3, padding=1)]
    decoder = nn.Sequential(*layers, nn.Upsample(scale_factor=4))
    for alias in ("stage1", "last"):
        with pytest.raises(UserError, match="returns a map that is larger than its deepest map"):
            resolve_path(decoder, alias, IMAGE)
    assert find_aliases(nn.Sequential(*layers), IMAGE)["stage2"] == "2"  # an encoder


def test_a_block_that_runs_for_every_layer_is_no_stage() -> None:
    class Universal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.head = nn.Linear(8, 5)

        def forward(self, image: Tensor) -> Tensor:
            tokens = image.flatten(1).reshape(len(image), -1, 8)
            for _ in range(3):
                tokens = self.block(tokens)
            return self.head(tokens.mean(1))

    found = find_aliases(Universal(), IMAGE)
    assert found == {"penultimate": "head@input", "logits": ""}
    with pytest.raises(UserError, match="calls 'block' 3 times in one forward"):
        resolve_path(Universal(), "stage2", IMAGE)


def test_a_classifier_that_runs_twice_reads_no_one_vector() -> None:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 5)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(image.mean((2, 3))) + self.head(image.amax((2, 3)))

    with pytest.raises(UserError, match="Twin calls 'head' 2 times .* so 'penultimate' would be"):
        resolve_path(Twin(), "penultimate", IMAGE)


@pytest.mark.parametrize(
    "output",
    [
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: {"logits": logits, "hidden": [logits]},
        lambda logits: (logits, logits.sum()),
        lambda logits: [logits],
    ],
)
def test_class_scores_among_other_outputs_are_those_of_a_classifier(
    output: Callable[[Tensor], Any],
) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = zoo.create("stillhouse/tiny", 5)

        def forward(self, image: Tensor) -> Any:
            return output(self.model(image))

    found = find_aliases(Classifier(), IMAGE)
    assert found["last"] == "model.stage2" and found["logits"] == ""


def test_several_dense_outputs_are_refused_however_they_are_given() -> None:
    ways: Mapping[str, Callable[[list[Tensor]], Any]] = {
        "2 tensors": tuple,
        "2 tensors$": lambda maps: {"logits": maps[0], "boxes": maps[1]},
        "an output of type SimpleNamespace": lambda maps: SimpleNamespace(scores=maps),
    }
    for text, output in ways.items():
        model = Dense(output)
        assert find_aliases(model, IMAGE) == {}
        assert f"Dense returns {text.removesuffix('$')}, so" in str(refusal(model, "last", IMAGE))


# ------------------------------------------------------------------------------- declared of itself


@pytest.mark.parametrize("output", [flat, tuple])
def test_what_a_network_declares_is_believed(output: Callable[[list[Tensor]], Any]) -> None:
    model = Named(output)
    found = find_aliases(model, IMAGE)
    expected = {"stage3": "layer1", "stage4": "layer2", "last": "layer2"}
    expected |= {"p3": "neck.p3", "p4": "neck.p4"}
    assert {alias: path for alias, path in found.items() if alias != "logits"} == expected
    assert ("logits" in found) == (output is flat)
    trace = Tapped(model, ["p4", "neck.p4", "last"], (IMAGE,))(IMAGE)
    assert trace.taps["p4"] is trace.taps["neck.p4"]
    assert last_layers(model, IMAGE) == ["layer2.2", "head"]
    with pytest.raises(UserError, match="Named has no module or alias 'stage1'; did you mean"):
        resolve_path(model, "stage1", IMAGE)


def test_declared_places_need_no_example() -> None:
    model = Named(flat)
    assert resolve_paths(model, ["p3", "stage4", "last"]) == {
        "p3": "neck.p3",
        "stage4": "layer2",
        "last": "layer2",
    }
    assert set(Tapped(model, ["p3"])(IMAGE).taps) == {"p3"}
    with pytest.raises(UserError, match="'stage4@pre', and an alias .* needs an example batch"):
        resolve_path(model, "stage4@pre")


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_declaration_survives_a_copy(twin: Callable[[nn.Module], nn.Module]) -> None:
    model = Dense(flat)
    model.places = Places(levels={"p3": "neck.p3"})  # type: ignore[assignment]
    assert declared_places(twin(model)).levels == {"p3": "neck.p3"}


def test_the_declared_classifier_is_taken_before_the_last_linear_layer() -> None:
    class Distilled(nn.Module):
        """A second head beside the classifier, as in DeiT, that comes last."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3))
            self.fc, self.other = nn.Linear(6, 5), nn.Linear(5, 5)
            self.places = Places(classifier="fc")

        def forward(self, image: Tensor) -> Tensor:
            logits = self.fc(self.body(image).mean((2, 3)))
            self.other(logits)
            return logits

    model = Distilled()
    found = find_aliases(model, IMAGE)
    assert found["penultimate"] == "fc@input"
    assert find_pooled_head(model, IMAGE).path == "fc"
    assert cut_classifier(model, IMAGE).width == 6


def test_a_wrapper_has_the_places_of_the_network_inside() -> None:
    class Wrapper(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.zeros(3, 1, 1))

        def forward(self, image: Tensor) -> Any:
            return self.model(image - self.mean)

    model = Wrapper(Wrapper(Named(tuple)))
    assert declared_places(model) == Named(tuple).places.inside("model.model")
    assert resolve_path(model, "p3", IMAGE) == "model.model.neck.p3"
    # A part of a larger network does not speak for the whole.
    assert declared_places(nn.Sequential(Named(flat), nn.Conv1d(5, 5, 1))) == Places()


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (Places({"stage1": "layer9"}), "declares 'stage1' at 'layer9', .* mean 'layer"),
        (Places({"shallow": "layer1"}), "declares a stage 'shallow'; stages are called stage1"),
        (Places(levels={"last": "neck.p3"}), "declares a level 'last'; call its levels p3"),
        (
            Places(levels={"neck": "neck.p3"}),
            "declares 'neck' at 'neck.p3', but has another module",
        ),
        (Places(levels={"p3": "neck.p9@input"}), "declares 'p3' at 'neck.p9@input', which is not"),
        (Places(classifier="heads"), "declares its classifier at 'heads', .* did you mean 'head"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(places: Places, text: str) -> None:
    model = Dense(flat)
    model.places = places  # type: ignore[assignment]
    with pytest.raises(UserError, match=f"Dense {text}"):
        find_aliases(model, IMAGE)


def test_an_attribute_of_another_kind_is_no_declaration() -> None:
    model = Dense(flat)
    model.places = ["layer1"]  # type: ignore[assignment]
    assert declared_places(model) == Places()

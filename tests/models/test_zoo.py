import contextvars
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import factories as factories_of_others
from stillhouse.models import weights, zoo
from stillhouse.models.factories import factories_are_trusted, trust_factories, trust_word

FACTORIES = """
from torch import nn

def grey(classes, channels, width=4):
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.Flatten(), nn.LazyLinear(classes))

def colour(classes):
    return nn.Linear(3, classes)

def fixed():
    return nn.Linear(3, 2)

def number(classes, **rest):
    return classes

constant = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nets_of_mine.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("nets_of_mine", None)
    with trust_factories():
        yield


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def factory(classes: int, channels: int) -> nn.Module:
        return nn.Linear(channels, classes)

    point = SimpleNamespace(name="acme/line", load=lambda: factory)
    points = {"stillhouse.models": [point]}
    monkeypatch.setattr(factories_of_others, "entry_points", lambda group: points.get(group, []))


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("stillhouse/tiny", 1, {}),
        ("stillhouse/small", 3, {"blocks": 2}),
        ("timm/resnet18", 1, {}),
        ("timm/vit_tiny_patch16_224", 3, {"img_size": 32}),
        ("torchvision/resnet18", 1, {}),
        ("torchvision/mobilenet_v2", 4, {"width_mult": 0.25}),
    ],
)
def test_a_name_gives_a_network(name: str, channels: int, options: dict[str, Any]) -> None:
    network = zoo.create(name, 7, channels, **options).eval()
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("fcos_resnet50_fpn", "center_sampling_radius"),
        ("retinanet_resnet50_fpn", "proposal_matcher"),
    ],
)
def test_detectors_of_torchvision_are_returned_as_they_are(name: str, attribute: str) -> None:
    network = zoo.create(f"torchvision/{name}", 7, 1, score_thresh=0.3)
    assert type(network).__module__.startswith("torchvision.models.detection")
    assert hasattr(network, attribute) and network.score_thresh == 0.3
    assert network.head.classification_head.num_classes == 7
    assert network.backbone.body.conv1.in_channels == 1
    assert zoo.is_detector(f"torchvision/{name}") and not zoo.is_detector("torchvision/resnet18")
    assert zoo.preprocessing(f"torchvision/{name}").mean == (0.485, 0.456, 0.406)


def test_weights_of_a_classifier_are_for_the_backbone_of_a_detector(tmp_path: Path) -> None:
    classifier = zoo.create("torchvision/resnet50", 3)
    weights.save_weights(classifier, tmp_path / "classifier.safetensors")
    detector = zoo.create("torchvision/fcos_resnet50_fpn", 3)
    weights.load_pretrained(detector, tmp_path / "classifier.safetensors")
    body = detector.get_submodule("backbone.body").state_dict()
    expected = {n: part for n, part in classifier.state_dict().items() if n in body}
    assert len(expected) == len(body) > 300
    assert all(torch.equal(part, body[name]) for name, part in expected.items())
    assert len({id(module) for module in detector.modules()}) == len(list(detector.modules()))
    assert not any("pretrained_part" in name for name in detector.state_dict())


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    zoo.create("timm/resnet18.a1_in1k", 10)
    zoo.create("torchvision/resnet18", 10)
    zoo.create("torchvision/retinanet_resnet50_fpn_v2", 10)
    zoo.preprocessing("timm/resnet18.a1_in1k")
    zoo.preprocessing("torchvision/resnet18")


@pytest.mark.parametrize("option", ["pretrained", "weights", "checkpoint_path", "num_classes"])
def test_options_that_fetch_weights_or_repeat_arguments_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"option '{option}' is not accepted; "):
        zoo.create("timm/resnet18", 10, **{option: True})


def test_a_replaced_first_convolution_keeps_scale_and_geometry() -> None:
    torch.manual_seed(0)
    colour, grey = zoo.create("torchvision/resnet18", 5), zoo.create("torchvision/resnet18", 5, 1)
    old, new = colour.get_submodule("conv1"), grey.get_submodule("conv1")
    assert (new.stride, new.padding, new.kernel_size) == (old.stride, old.padding, old.kernel_size)
    assert float(new.weight.detach().std()) == pytest.approx(
        float(old.weight.detach().std()), rel=0.1
    )


def test_the_last_map_of_a_densenet_can_be_tapped_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model, image = zoo.create("torchvision/densenet121", 5).eval(), torch.randn(2, 3, 64, 64)
    out = model(image)
    out.sum().backward()  # the function behind writes over what is tapped
    assert model.get_submodule("features.norm5").weight.grad is not None
    pooled = model.features(image).mean((2, 3))
    torch.testing.assert_close(model.classifier(pooled), out)
    state = model.state_dict()
    del model.features.relu5
    assert torch.equal(model(image), out) and model.state_dict().keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnt18", r"timm has no network 'resnt18'; did you mean .*'resnet18'"),
        ("timm/resnet18.a1_in2k", "timm has no network 'resnet18.a1_in2k'; did you mean"),
        ("timm/hf-hub:timm/resnet18", "timm has no network 'hf-hub:timm/resnet18'"),
        ("torchvision/resnet19", "torchvision has no network 'resnet19'; did you mean"),
        (
            "torchvision/fcos_resnet50",
            "no network 'fcos_resnet50'; did you mean 'fcos_resnet50_fpn",
        ),
        ("torchvision/ssd300_vgg16", "no network 'ssd300_vgg16'"),
        ("stillhouse/tinny", "stillhouse has no network 'tinny'; did you mean 'tiny'"),
        ("tim/resnet18", "unknown source 'tim' of the network .*; did you mean 'timm'"),
        ("acme/lien", "acme has no network 'acme/lien'; did you mean 'acme/line'"),
        ("resnet18", "does not say where the network comes from: .*did you mean 'timm/resnet18'"),
    ],
)
def test_unknown_names_are_answered_with_a_hint(name: str, said: str, plugin: None) -> None:
    with pytest.raises(UserError, match=said):
        zoo.create(name, 10)


def test_an_option_that_torchvision_would_ignore_is_a_sentence() -> None:
    said = "torchvision/fcos_resnet50_fpn has no option 'score_tresh'; did you mean 'score_thresh'"
    with pytest.raises(UserError, match=said):
        zoo.create("torchvision/fcos_resnet50_fpn", 2, score_tresh=0.1)


@pytest.mark.parametrize("name", ["stillhouse/tiny", "timm/resnet18", "torchvision/resnet18"])
def test_an_option_of_no_network_is_a_sentence(name: str) -> None:
    with pytest.raises(
        UserError, match=f"{name} cannot be made with colour=3: .*argument 'colour'"
    ):
        zoo.create(name, 10, colour=3)


def test_factories_are_not_imported_without_trust(factories: None) -> None:
    def create(name: str, **options: Any) -> None:
        with pytest.raises(UserError, match="names code to be run; .* add --trust"):
            zoo.create(name, 7, 1, **options)

    in_a_context_without_trust = contextvars.Context()
    in_a_context_without_trust.run(create, "nets_of_mine:grey")
    in_a_context_without_trust.run(create, "detector/fcos", backbone="nets_of_mine:grey")
    in_a_context_without_trust.run(create, "segmenter/deeplabv3", backbone="nets_of_mine:grey")
    in_a_context_without_trust.run(create, "logging:basicConfig", filename="kept")
    assert "nets_of_mine" not in sys.modules
    assert zoo.create("nets_of_mine:grey", 7, 1) is not None


def test_trust_ends_with_its_context_and_is_not_taken_back_inside() -> None:
    def check() -> None:
        with trust_factories(), trust_factories(False):
            assert factories_are_trusted() and trust_word() == " --trust"
        assert not factories_are_trusted() and trust_word() == ""

    contextvars.Context().run(check)


def test_factories_of_the_user(factories: None) -> None:
    grey = zoo.create("nets_of_mine:grey", 7, 1, width=6)
    assert grey(torch.randn(2, 1, 4, 4)).shape == (2, 7)
    assert zoo.create("nets_of_mine:colour", 5).out_features == 5
    assert zoo.preprocessing("nets_of_mine:grey") is None


@pytest.mark.parametrize(
    ("name", "channels", "options", "said"),
    [
        ("nets_of_mine:gray", 3, {}, "no 'gray' in nets_of_mine; did you mean 'grey'"),
        ("nets_of_mine:fixed", 3, {}, "takes no argument 'classes'"),
        ("nets_of_mine:colour", 1, {}, "takes no argument 'channels'"),
        ("nets_of_mine:grey", 1, {"widht": 2}, "no argument 'widht'.*did you mean 'width'"),
        ("nets_of_mine:number", 3, {}, "returned a int, not an nn.Module"),
        ("nets_of_mine:constant", 3, {}, "a int is not a factory"),
        ("nets_of_yours:grey", 3, {}, "importing 'nets_of_yours' failed .*PYTHONPATH"),
        (":grey", 3, {}, "importing '' failed"),
    ],
)
def test_factories_that_do_not_fit(
    factories: None, name: str, channels: int, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        zoo.create(name, 7, channels, **options)


def test_installed_packages_can_give_networks(plugin: None) -> None:
    assert zoo.create("acme/line", 4, 2).weight.shape == (4, 2)
    assert "acme/line" in zoo.list_models()
    assert zoo.preprocessing("acme/line") is None


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("No module named 'acme'")

    point = SimpleNamespace(name="acme/line", load=load)
    monkeypatch.setattr(factories_of_others, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match=r"acme/line: the installed package .* 'acme'"):
        zoo.create("acme/line", 4)


def test_names_are_searched_by_word_and_by_glob() -> None:
    everything = zoo.list_models()
    assert everything == sorted(everything)
    known = {"timm/resnet18", "torchvision/resnet18", "cifar/resnet18", "stillhouse/small"}
    assert known <= set(everything)
    assert "torchvision/keypointrcnn_resnet50_fpn" not in everything
    assert zoo.list_models("torchvision/*50_fpn*") == [
        "torchvision/fasterrcnn_resnet50_fpn",
        "torchvision/fasterrcnn_resnet50_fpn_v2",
        "torchvision/fcos_resnet50_fpn",
        "torchvision/maskrcnn_resnet50_fpn",
        "torchvision/maskrcnn_resnet50_fpn_v2",
        "torchvision/retinanet_resnet50_fpn",
        "torchvision/retinanet_resnet50_fpn_v2",
    ]
    assert zoo.list_models("stillhouse/*l*e") == ["stillhouse/large", "stillhouse/little"]
    assert all("ResNet18".lower() in name for name in zoo.list_models("ResNet18"))


def test_preprocessing_is_what_the_published_weights_expect() -> None:
    imagenet = zoo.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (3, 224, 224))
    assert zoo.preprocessing("torchvision/resnet18") == imagenet
    assert zoo.preprocessing("timm/resnet18") == imagenet
    half = zoo.preprocessing("timm/vit_tiny_patch16_224")
    assert half is not None and half.mean == (0.5, 0.5, 0.5)
    wide = zoo.preprocessing("torchvision/inception_v3")
    assert wide is not None and wide.size == (3, 299, 299)
    assert zoo.preprocessing("stillhouse/tiny") is None
    with pytest.raises(UserError, match="timm has no network 'resnt18'"):
        zoo.preprocessing("timm/resnt18")


def test_builds_that_do_not_match_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(UserError, match="torch and torchvision come from different builds"):
        zoo.create("torchvision/resnet18", 10)


def test_other_errors_of_an_import_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("no space left")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ImportError, match="no space left"):
        zoo.create("timm/resnet18", 10)

"""Names for the map before the ReLU that ends a stage."""

import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases, resolve_path, resolve_paths
from stillhouse.models.cifar.catalogue import cifar_network
from stillhouse.models.taps import Tapped

ENDS = {  # the map before the last ReLU of the second stage, as an engineer would name it
    "cifar/resnet8": "stage2.0.relu2@input",
    "cifar/wrn_16_1": "stage3.0.norm1",
    "cifar/vgg8": "stage2.3@input",
    "cifar/shufflenetv1": "stage2.7.relu@input",
    "stillhouse/tiny": "stage2.0.relu2@input",
    "torchvision/resnet18": "layer2.1.relu@input@1",  # called after each of two convolutions
    "torchvision/densenet121": "features.transition2.norm",
    "timm/resnet18": "layer2.1.act2@input",
    "timm/densenet121": "features.transition2.norm.act@input",
    "timm/regnetx_002": "s2.b1.act3@input",
}


THREE = ("stage1@pre", "stage2@pre", "stage3@pre")
READ = {
    "cifar/wrn_16_1": THREE,
    "torchvision/densenet121": THREE,
    "timm/densenet121": THREE,
}


@pytest.mark.parametrize("name", ENDS)
def test_a_relu_of_the_tap_is_what_the_stage_gives(name: str) -> None:
    torch.manual_seed(0)
    model, image = zoo.create(name, 5).eval(), torch.randn(2, 3, 32, 32)
    for norm in model.modules():  # timm's blocks start as identities
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    found = find_aliases(model, image)
    assert found["stage2@pre"] == ENDS[name]
    names = [alias for alias in found if alias.removesuffix("@pre") + "@pre" in found]
    trace = Tapped(model, names, example=(image,))(image)
    for alias in filter(lambda alias: alias.endswith("@pre"), names):
        tap, given = trace.taps[alias].detach(), trace.taps[alias.removesuffix("@pre")].detach()
        assert float(tap.min()) < 0
        path = found[alias].removesuffix("@input")
        if alias in READ.get(name, ()):  # what the stage gives is normalised after it
            norm = model.get_submodule(path.removesuffix(".act"))
            given = norm(given)
            tap = tap.relu() if path.endswith(".act") else tap
        else:
            tap = tap.relu()
        torch.testing.assert_close(tap, given, rtol=0, atol=0)


def test_linear_bottlenecks_have_no_such_map() -> None:
    model, image = cifar_network("mobilenetv2", 5), torch.zeros(2, 3, 32, 32)
    found = find_aliases(model, image)
    assert [alias for alias in found if alias.endswith("@pre")] == ["last@pre"]
    assert found["last@pre"] == "final.2@input"
    with pytest.raises(
        UserError, match="MobileNetV2 has no 'stage2@pre', because 'stage2' neither"
    ):
        resolve_path(model, "stage2@pre", image)


def test_any_path_may_be_asked_for_it() -> None:
    model, image = cifar_network("resnet14", 5), torch.zeros(2, 3, 32, 32)
    asked = ["stem@pre", "stage1.0@pre", "last@pre", "stage2"]
    assert resolve_paths(model, asked, image) == {
        "stem@pre": "stem.2@input",
        "stage1.0@pre": "stage1.0.relu2@input",
        "last@pre": "stage3.1.relu2@input",
        "stage2": "stage2",
    }
    with pytest.raises(UserError, match="no module or alias 'stagee@pre'; did you mean 'stage"):
        resolve_path(model, "stagee@pre", image)
    with pytest.raises(UserError, match="'stage1@pre', and an alias .* needs an example batch"):
        resolve_path(model, "stage1@pre")
    with pytest.raises(UserError, match="has no 'logits@pre', because 'its output' neither"):
        resolve_path(model, "logits@pre", image)


class Chain(nn.Module):
    """A stage between two maps, written in the way that a test asks for."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(way == "place"))
        self.still = nn.Identity()
        self.norm = nn.BatchNorm2d(4)
        self.stage2 = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4, 2)
        if way == "shared":
            self.stage2[1] = self.stage1[2]
        if way == "linear":
            self.stage1[2] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(x)
        if self.way == "written":
            x += 1
        if self.way == "linear":
            x = self.norm(self.still(x))
        return self.head(self.stage2(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("plain", "stage1.2@input"),
        ("place", "stage1.2@input"),
        ("linear", "norm"),  # past the identity
        ("shared", None),  # a tap would see the second stage's map
    ],
)
def test_ways_to_end_a_stage(way: str, expected: str | None) -> None:
    model, image = Chain(way), torch.randn(2, 3, 9, 9)
    assert find_aliases(model, image).get("stage1@pre") == expected
    assert "@input" in find_aliases(model, image)["stage2@pre"]


def test_bare_layers_have_it_too() -> None:
    first = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    second = [nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    model = nn.Sequential(nn.Sequential(*first, *second), nn.Flatten(), nn.LazyLinear(3)).eval()
    image = torch.randn(2, 3, 9, 9)
    model(image)
    found = find_aliases(model, image)
    assert (found["stage1"], found["stage1@pre"]) == ("0.2", "0.2@input")
    tap = Tapped(model, ["stage1@pre"], example=(image,))(image).taps["stage1@pre"]
    assert bool((tap < 0).any())


class Added(nn.Module):
    """Writes to what a ReLU gave, which is then no longer what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.conv(x))
        out += x
        return out


def test_a_relu_that_something_is_added_to_does_not_end_a_stage() -> None:
    model, image = nn.Sequential(Added(), nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 9, 9)
    with pytest.raises(UserError, match="neither ends with the module of a ReLU"):
        resolve_path(model, "0@pre", image)
    assert resolve_path(model, "0.relu@pre", image) == "0.relu@input"


def test_students_learn_through_it() -> None:
    model, image = cifar_network("resnet8", 5), torch.randn(2, 3, 32, 32)
    trace = Tapped(model, ["stage2@pre"], example=(image,))(image)
    trace.taps["stage2@pre"].square().mean().backward()
    assert model.get_submodule("stage2.0.norm2").weight.grad is not None
    assert model.get_submodule("stage3.0.norm2").weight.grad is None

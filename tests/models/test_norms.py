import pytest
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.norms import find_norms

IMAGE = torch.zeros(2, 3, 32, 32)

NORMS = {
    "stillhouse/small": {n: f"stage{n}.0.norm2" for n in (1, 2, 3)},
    "cifar/resnet14": {n: f"stage{n}.1.norm2" for n in (1, 2, 3)},
    "cifar/resnet50": {n: f"stage{n}.{d}.norm3" for n, d in ((1, 2), (2, 3), (3, 5), (4, 2))},
    "cifar/wrn_16_1": {1: "stage2.0.norm1", 2: "stage3.0.norm1", 3: "final.0"},
    "cifar/vgg13": {1: "stage1.5", 2: "stage2.5", 3: "stage3.5", 4: "stage4.5"},
    "cifar/shufflenetv1": {1: "stage1.3.widen.1", 2: "stage2.7.widen.1", 3: "stage3.3.widen.1"},
    "stillhouse/mobilenetv1": {1: "stage1.0.4", 4: "stage4.5.4"},
    "torchvision/resnet18": {n: f"layer{n}.1.bn2" for n in (1, 2, 3, 4)},
    "torchvision/densenet121": {1: "features.transition1.norm", 4: "features.norm5"},
    # A stage of one block, whose shortcut lies as shallow as the rest or shallower.
    "torchvision/regnet_y_400mf": {1: "trunk_output.block1.block1-0.f.c.1"},
    "timm/regnetx_002": {1: "s1.b1.conv3.bn", 4: "s4.b7.conv3.bn"},
    "timm/resnet18": {n: f"layer{n}.1.bn2" for n in (1, 2, 3, 4)},
    # A BatchNorm that has its ReLU inside.
    "timm/densenet121": {2: "features.transition2.norm", 4: "features.norm5"},
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_an_engineer_would_take(name: str) -> None:
    model = zoo.create(name, 5)
    expected = {f"stage{number}@pre": path for number, path in NORMS[name].items()}
    found = find_norms(model, expected, IMAGE)
    names = {module: path for path, module in model.named_modules()}
    assert {tap: names[norm] for tap, norm in found.items()} == expected


def test_the_norm_says_how_the_tap_is_distributed() -> None:
    torch.manual_seed(0)
    model = zoo.create("cifar/wrn_16_1", 5)
    (norm,) = find_norms(model, ["stage2@pre"], IMAGE).values()
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    seen = []
    hook = norm.register_forward_hook(lambda module, args, out: seen.append(out))
    model.train()(torch.randn(8, 3, 32, 32))
    hook.remove()
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), norm.bias.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), norm.weight.detach(), rtol=1e-2, atol=0)


def test_a_path_of_ones_own_is_taken_too() -> None:
    model = zoo.create("torchvision/resnet18", 5)
    found = find_norms(model, ["layer2.0.relu@input", "last@pre", "layer1@pre", "bn1"], IMAGE)
    layers = ("layer2.0.bn2", "layer4.1.bn2", "layer1.1.bn2", "bn1")
    assert list(found.values()) == [model.get_submodule(path) for path in layers]


def test_the_norm_that_feeds_the_relu_is_taken_before_any_other() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
    model = nn.Sequential(*layers)
    assert find_norms(model, ["2@pre"], IMAGE)["2@pre"] is layers[1]
    with pytest.raises(UserError, match="no BatchNorm with gain and bias before the ReLU of '4@pr"):
        find_norms(model, ["4@pre"], IMAGE)


def test_a_batchnorm_without_gain_is_none() -> None:
    parts = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()
    with pytest.raises(UserError, match="no BatchNorm with gain and bias before the ReLU of '2@pr"):
        find_norms(nn.Sequential(*parts), ["2@pre"], IMAGE)

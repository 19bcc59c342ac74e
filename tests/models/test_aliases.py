from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases, resolve_path
from stillhouse.models.taps import tap_shapes
from stillhouse.models.weights import state_hash

IMAGE = torch.zeros(2, 3, 64, 64)

BLOCKS = {f"stage{n}": f"blocks.{n - 1}" for n in range(1, 13)}
RESNET = {f"stage{n}": f"layer{n}" for n in range(1, 5)}
FOUND: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "stillhouse/tiny": (
        {},
        {"stage1": "stage1", "stage2": "stage2", "last": "stage2", "penultimate": "pool"},
    ),
    "stillhouse/small": (
        {},
        {f"stage{n}": f"stage{n}" for n in (1, 2, 3)} | {"last": "stage3", "penultimate": "pool"},
    ),
    "torchvision/resnet18": ({}, RESNET | {"last": "layer4", "penultimate": "fc@input"}),
    "torchvision/mobilenet_v2": (
        {},
        {
            "stage1": "features.1",
            "stage2": "features.3",
            "stage3": "features.6",
            "stage4": "features.13",
            "stage5": "features",
            "last": "features",
            "penultimate": "classifier@input",
        },
    ),
    # Its own modules stage2 .. stage4 keep their names, so those aliases are left out.
    "torchvision/shufflenet_v2_x0_5": (
        {},
        {"stage1": "stage2", "last": "conv5", "penultimate": "fc@input"},
    ),
    "torchvision/swin_t": ({}, {"penultimate": "flatten"}),
    "timm/resnet18": ({}, RESNET | {"last": "layer4", "penultimate": "global_pool"}),
    "timm/vit_tiny_patch16_224": ({"img_size": 64}, BLOCKS | {"penultimate": "fc_norm"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_places_that_are_found(name: str) -> None:
    options, expected = FOUND[name]
    model = zoo.create(name, 10, **options)
    before, modes = state_hash(model), [module.training for module in model.modules()]
    found = find_aliases(model, IMAGE)
    plain = {alias: path for alias, path in found.items() if not alias.endswith("@pre")}
    assert plain == {**expected, "logits": ""}
    sizes = tap_shapes(model, found, IMAGE)
    assert sizes["logits"] == (2, 10)
    assert len(sizes["penultimate"]) == 2
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert sizes["penultimate"][1] == classifier.in_features
    assert state_hash(model) == before
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


class Bare(nn.Sequential):
    """A network of layers without blocks, the pooled vector by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.norm(self.stem(x))))
        return self.head(torch.relu(x).mean((2, 3)))


def test_a_network_without_blocks_gives_its_layers() -> None:
    assert find_aliases(Bare(), IMAGE) == {
        "stage1": "norm",
        "stage2": "body",
        "last": "body",
        "penultimate": "head@input",
        "logits": "",
    }


class Wrapped(nn.Module):
    """A network inside another, as a teacher that was made for other images is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


def test_a_network_that_names_its_stages_is_taken_at_its_word() -> None:
    # Two of these stages work on maps of one size, which would make one stage of them.
    found = find_aliases(Wrapped(zoo.create("cifar/vgg8", 5)), IMAGE)
    named = [
        path for alias, path in found.items() if alias.startswith("stage") and "@" not in alias
    ]
    assert named == [f"model.stage{number}" for number in (1, 2, 3, 4)]
    assert found["stage4@pre"] == "model.stage4.3@input"
    small = find_aliases(zoo.create("stillhouse/small", 5), IMAGE[..., :3, :3])
    assert [small.get(f"stage{number}") for number in (1, 2, 3)] == ["stage1", "stage2", "stage3"]


def test_names_are_resolved_to_paths() -> None:
    model = Bare()
    assert resolve_path(model, "norm") == "norm"
    assert resolve_path(model, "norm@input") == "norm@input"
    assert resolve_path(model, "last", IMAGE) == "body"
    assert resolve_path(model, "logits") == ""
    with pytest.raises(UserError, match="Bare has no module or alias 'stage9'; did you mean 'stag"):
        resolve_path(model, "stage9", IMAGE)
    with pytest.raises(UserError, match="'stage1' needs an example batch; did you mean 'stage1'"):
        resolve_path(model, "stage1")


def test_shapes_leave_a_half_frozen_network_as_it_was() -> None:
    model = Bare().train()
    model.norm.eval()
    before = state_hash(model)
    shapes = tap_shapes(model, ["stem", "last"], torch.randn(3, 3, 16, 16))
    assert shapes == {"stem": (3, 4, 8, 8), "last": (3, 8, 4, 4)}
    assert state_hash(model) == before
    assert (model.training, model.norm.training, model.body.training) == (True, False, True)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_that_fails_is_put_back_too() -> None:
    model = Bare().train()
    with pytest.raises(RuntimeError):
        tap_shapes(model, ["stem", "last"], torch.randn(3, 4, 16, 16))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())

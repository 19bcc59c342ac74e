import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.pooled_head import find_pooled_head
from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash

IMAGE = torch.zeros(2, 3, 64, 64)

HEADS = {
    "stillhouse/small": ("head", "stage3"),
    "cifar/resnet8": ("head", "stage3"),
    "cifar/wrn_16_1": ("head", "final"),
    "cifar/vgg8": ("head", "stage4"),
    "cifar/mobilenetv2": ("head", "final"),
    "cifar/shufflenetv2": ("head", "final"),
    "torchvision/resnet18": ("fc", "layer4"),
    "torchvision/mobilenet_v2": ("classifier.1", "features"),
    "torchvision/shufflenet_v2_x0_5": ("fc", "conv5"),
    "torchvision/densenet121": ("classifier", "features"),
    "timm/resnet18": ("fc", "layer4"),
    "timm/regnetx_002": ("head.fc", "s4"),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_mean_of_the_map_gives_the_logits(name: str) -> None:
    torch.manual_seed(0)
    model = zoo.create(name, 5)
    before, state = state_hash(model), torch.get_rng_state()
    found = find_pooled_head(model, IMAGE)
    assert (found.path, found.map) == HEADS[name]
    assert found.linear is model.get_submodule(found.path)
    assert torch.equal(torch.get_rng_state(), state)
    assert state_hash(model) == before and model.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    model.eval()
    image = torch.randn(3, 3, 64, 64)
    trace = Tapped(model, [found.map], example=(image,))(image)
    mean = trace.taps[found.map].flatten(2).double().mean(2).float()
    torch.testing.assert_close(found.linear(mean), trace.out, rtol=1e-4, atol=1e-5)


def test_a_map_of_one_place_is_found_before_its_pool() -> None:
    model = zoo.create("torchvision/resnet18", 5)
    assert find_pooled_head(model, torch.zeros(2, 3, 32, 32)).map == "layer4"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm/vit_tiny_patch16_224", {"img_size": 64}),
        ("torchvision/mobilenet_v3_small", {}),
        ("torchvision/squeezenet1_1", {}),
        ("timm/mobilenetv3_small_050", {}),
    ],
)
def test_other_classifiers_are_refused(name: str, options: dict[str, int]) -> None:
    model = zoo.create(name, 5, **options)
    said = f"classifier of {type(model).__name__} does not read the mean of a map, so class-map"
    with pytest.raises(UserError, match=said):
        find_pooled_head(model, IMAGE)


class Pooled(nn.Module):
    """A network whose classifier reads its map in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        vector = x.amax((2, 3)) if self.way == "max" else x.mean((2, 3))
        logits = self.head(vector)
        return logits * 2 + 1 if self.way == "scaled" else logits


def test_a_head_of_zeros_hides_nothing() -> None:
    assert find_pooled_head(Pooled("mean"), IMAGE).map == "body"
    for way in ("max", "scaled"):
        with pytest.raises(UserError, match="of Pooled does not read the mean of a map"):
            find_pooled_head(Pooled(way), IMAGE)


def test_a_blank_image_is_not_taken_at_its_word() -> None:
    # Without padding a blank image gives a map that is the same everywhere: its largest is its mean
    with pytest.raises(UserError, match="does not read the mean"):
        find_pooled_head(Pooled("max"), torch.ones(2, 3, 16, 16))

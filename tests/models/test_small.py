import pytest
import torch
from torch import nn

from stillhouse.models import small
from stillhouse.models.blocks import BasicBlock
from stillhouse.models.cost import parameters


@pytest.mark.parametrize(
    ("size", "classes", "count"),
    [
        ("tiny", 10, 1382),
        ("little", 10, 77_290),
        ("small", 100, 22_780),
        ("medium", 100, 83_604),
        ("large", 100, 319_684),
    ],
)
def test_sizes_have_the_published_parameter_counts(size: str, classes: int, count: int) -> None:
    assert parameters(small.small_resnet(size, classes, channels=1)) == count


def test_every_stage_after_the_first_halves_the_map() -> None:
    model = small.SmallResNet((4, 8, 16), blocks=2, classes=7, channels=2, stem_stride=2)
    image, sizes = torch.randn(3, 2, 32, 32), {}
    for name, part in model.named_children():
        image = part(image)
        sizes[name] = tuple(image.shape)
    assert sizes == {
        "stem": (3, 4, 16, 16),
        "stage1": (3, 4, 16, 16),
        "stage2": (3, 8, 8, 8),
        "stage3": (3, 16, 4, 4),
        "pool": (3, 16),
        "head": (3, 7),
    }


def test_a_block_is_its_formula() -> None:
    block = BasicBlock(4, 6, stride=2).eval()
    image = torch.randn(2, 4, 8, 8)
    inner = torch.relu(block.norm1(block.conv1(image)))
    expected = torch.relu(block.norm2(block.conv2(inner)) + block.shortcut(image))
    torch.testing.assert_close(block(image), expected)


def test_a_block_of_one_shape_has_an_identity_as_its_shortcut() -> None:
    assert isinstance(BasicBlock(4, 4, stride=1).shortcut, nn.Identity)


def test_convolutions_start_with_the_deviation_of_kaiming() -> None:
    torch.manual_seed(0)
    conv = BasicBlock(64, 64, stride=1).conv1  # fan out 64 * 9
    model = small.SmallResNet((64,), classes=10, channels=64)
    first = model.get_submodule("stage1.0.conv1").weight
    assert first.shape == conv.weight.shape
    assert float(first.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)


def test_a_stem_stride_can_be_chosen() -> None:
    assert small.small_resnet("small", 10, stem_stride=1)[0][0].stride == (1, 1)
    assert small.small_resnet("small", 10)[0][0].stride == (2, 2)

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.cost import parameters
from stillhouse.models.mobilenet_v1 import MobileNetV1

# Outputs and strides of the published layers behind the stem.
PUBLISHED = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
PUBLISHED += [(1024, 2), (1024, 1)]


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_parameters_are_those_of_the_published_layers(width: float) -> None:
    before = int(32 * width)
    count = 27 * before + 2 * before
    for out, _ in PUBLISHED:
        after = int(out * width)
        count += 9 * before + 2 * before + before * after + 2 * after
        before = after
    count += before * 1000 + 1000
    with torch.device("meta"):
        assert parameters(zoo.create("stillhouse/mobilenetv1", 1000, width=width)) == count
    assert width != 1 or count == 4_231_976


def test_stages_have_one_resolution_each() -> None:
    with torch.device("meta"):
        image, sizes = torch.zeros(1, 3, 224, 224), {}
        for name, part in MobileNetV1(1000).named_children():
            image = part(image)
            sizes[name] = tuple(image.shape[1:])
    assert sizes == {
        "stem": (32, 112, 112),
        "stage1": (64, 112, 112),
        "stage2": (128, 56, 56),
        "stage3": (256, 28, 28),
        "stage4": (512, 14, 14),
        "stage5": (1024, 7, 7),
        "pool": (1024,),
        "head": (1000,),
    }


def test_the_zoo_knows_it_and_its_option() -> None:
    model = zoo.create("stillhouse/mobilenetv1", 4, 1, width=0.25)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert "stillhouse/mobilenetv1" in zoo.list_models("mobilenetv1")
    with pytest.raises(UserError, match="stillhouse has no network 'mobilenetv3'; did you mean"):
        zoo.create("stillhouse/mobilenetv3", 4)
    with pytest.raises(
        UserError, match=r"with width=0\.01: width must be at least 1 / 32, got 0\.01"
    ):
        zoo.create("stillhouse/mobilenetv1", 4, width=0.01)

import math

import pytest
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.cifar.catalogue import cifar_names, cifar_network
from stillhouse.models.cost import flops, parameters
from stillhouse.models.taps import tap_shapes

THIN = ("16@32", "16@32", "32@16", "64@8")
WIDE = ("32@32", "64@32", "128@16", "256@8")
WRN2 = ("16@32", "32@32", "64@16", "128@8")
VGG = ("64@32", "128@16", "256@8", "512@4", "512@4")
# Parameters, millions of multiply-accumulates, the maps of stem and stages, what is pooled.
TABLE = {
    "resnet8": (83_892, 12.5, THIN, 64),
    "resnet14": (181_108, 26.7, THIN, 64),
    "resnet20": (278_324, 40.8, THIN, 64),
    "resnet32": (472_756, 69.1, THIN, 64),
    "resnet44": (667_188, 97.4, THIN, 64),
    "resnet56": (861_620, 125.8, THIN, 64),
    "resnet110": (1_736_564, 253.2, THIN, 64),
    "resnet8x4": (1_233_540, 177.1, WIDE, 256),
    "resnet32x4": (7_433_860, 1083, WIDE, 256),
    "wrn_16_1": (180_916, 26.7, THIN, 64),
    "wrn_16_2": (703_284, 101.1, WRN2, 128),
    "wrn_40_1": (569_780, 83.3, THIN, 64),
    "wrn_40_2": (2_255_156, 327.6, WRN2, 128),
    "vgg8": (3_965_028, 96.2, VGG, 512),
    "vgg11": (9_277_284, 209.4, VGG, 512),
    "vgg13": (9_462_180, 284.9, VGG, 512),
    "mobilenetv2": (812_836, 6.5, ("16@16", "12@16", "16@8", "48@4", "160@2"), 1280),
    "shufflenetv1": (949_258, 38.7, ("24@32", "240@16", "480@8", "960@4"), 960),
    "shufflenetv2": (1_355_528, 44.5, ("24@32", "116@16", "232@8", "464@4"), 1024),
    "resnet18": (11_220_132, 555.5, ("64@32", "64@32", "128@16", "256@8", "512@4"), 512),
    "resnet50": (23_705_252, 1298, ("64@32", "256@32", "512@16", "1024@8", "2048@4"), 2048),
}
UNLISTED = ("wrn_16_4", "wrn_28_2", "wrn_28_4")
FAMILIES = ("resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2")


def test_the_table_has_them_all() -> None:
    assert set(cifar_names()) == TABLE.keys() | set(UNLISTED)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.usefixtures("unfilled")
def test_networks_have_the_published_size_cost_and_maps(name: str) -> None:
    count, multiplied, maps, pooled = TABLE[name]
    with torch.device("meta"):
        model, image = cifar_network(name, 100), torch.zeros(1, 3, 32, 32)
        assert parameters(model) == count
        seen = {}
        for place, part in model.named_children():
            part.register_forward_hook(lambda _, args, out, at=place: seen.update({at: out.shape}))
        rounding = 0.5 if multiplied > 1000 else 0.05
        assert flops(model, image) / 2e6 == pytest.approx(multiplied, abs=rounding + 1e-6)
    places = ["stem", *(f"stage{number}" for number in range(1, len(maps)))]
    assert [f"{seen[p][1]}@{seen[p][2]}" for p in places] == list(maps)
    assert all(seen[place][2] == seen[place][3] for place in places)
    assert list(seen)[len(maps) :] in (["pool", "head"], ["final", "pool", "head"])
    assert (seen["pool"], seen["head"]) == ((1, pooled), (1, 100))
    assert type(model.head) is nn.Linear


@pytest.mark.parametrize("name", UNLISTED)
def test_wide_networks_have_the_parameters_of_their_formula(name: str) -> None:
    depth, factor = map(int, name.split("_")[1:])
    before, count = 16, 3 * 9 * 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        count += before * width  # the shortcut
        for _ in range((depth - 4) // 6):
            count += 9 * before * width + 2 * before + 9 * width * width + 2 * width
            before = width
    count += 2 * before + before * 100 + 100
    with torch.device("meta"):
        assert parameters(cifar_network(name, 100)) == count


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns_and_no_relu_works_in_place(name: str) -> None:
    torch.manual_seed(0)
    model = cifar_network(name, 7, channels=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    image = torch.randn(4, 1, 32, 32)
    nn.functional.cross_entropy(model(image), torch.tensor([0, 1, 2, 3])).backward()
    optimiser.step()
    # What a convolution adds to all places alike, the BatchNorm behind it takes away.
    behind = {f"{path}.bias" for path, part in model.named_modules() if isinstance(part, nn.Conv2d)}
    for (path, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), path
        assert path in behind or not torch.equal(parameter, old), path
    relus = [part for part in model.modules() if isinstance(part, nn.ReLU)]
    assert relus and not any(relu.inplace for relu in relus)
    assert not any(isinstance(part, nn.Dropout) for part in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_other_sizes_are_taken(name: str) -> None:
    with torch.device("meta"):
        model = cifar_network(name, 3)
        for size in ((28, 28), (40, 24), (224, 224)):
            assert model(torch.zeros(2, 3, *size)).shape == (2, 3)


@pytest.mark.parametrize("name", [*FAMILIES, "vgg13"])
def test_stages_are_called_what_they_are(name: str) -> None:
    model = cifar_network(name, 3)
    image = torch.zeros(1, 3, 32, 32)
    found = find_aliases(model, image)
    expected = {f"stage{n}" for n in range(1, len(TABLE[name][2]))}
    assert {alias for alias in found if alias.startswith("stage") and "@" not in alias} == expected
    assert all(found[alias] == alias for alias in expected)
    final = "final" if hasattr(model, "final") else max(expected)
    assert (found["last"], found["penultimate"], found["logits"]) == (final, "pool", "")
    assert tap_shapes(model, ["penultimate"], image)["penultimate"] == (1, TABLE[name][3])


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_2", "vgg8", "mobilenetv2", "resnet50"])
def test_convolutions_start_with_the_deviation_of_their_outputs(name: str) -> None:
    torch.manual_seed(0)
    model = cifar_network(name, 100)
    for path, part in model.named_modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 5000:
            outputs = part.kernel_size[0] * part.kernel_size[1] * part.out_channels
            deviation = float(part.weight.detach().std())
            assert deviation == pytest.approx(math.sqrt(2 / outputs), rel=0.05), path
            assert part.bias is None or not part.bias.any()
        if isinstance(part, nn.BatchNorm2d):
            assert bool((part.weight == 1).all()) and not part.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2"])
def test_some_heads_start_small(name: str) -> None:
    torch.manual_seed(0)
    head = cifar_network(name, 100).head
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()


def test_wide_heads_start_without_bias() -> None:
    assert not cifar_network("wrn_16_1", 10).head.bias.any()


def test_the_zoo_knows_them() -> None:
    assert zoo.create("cifar/vgg8", 5, 1)(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert zoo.list_models("cifar/wrn_*_4") == ["cifar/wrn_16_4", "cifar/wrn_28_4"]
    assert zoo.preprocessing("cifar/vgg8") is None
    for name, said in {
        "cifar/resnet9x4": "cifar has no network 'resnet9x4'; did you mean 'resnet8x4'",
        "cifr/resnet8": "unknown source 'cifr' of the network .*cifar/….*did you mean 'cifar'",
        "wrn_16_2": "does not say where the network comes from.*did you mean 'cifar/wrn_16_2'",
    }.items():
        with pytest.raises(UserError, match=said):
            zoo.create(name, 10)
    with pytest.raises(UserError, match="cifar/vgg8 cannot be made with width=3: .*'width'"):
        zoo.create("cifar/vgg8", 10, width=3)

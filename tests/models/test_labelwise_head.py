"""The label-wise head against its formulas, on every kind of trunk."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.labelwise import Labelwise, LabelwiseHead, labelwise
from stillhouse.models.taps import Tapped
from stillhouse.models.trunk import ToTokens, cut_classifier

NARROW = LabelwiseHead(16, 4, 24)
CLASSES = 5


def made(name: str = "stillhouse/small", size: int = 24, head: LabelwiseHead = NARROW) -> Labelwise:
    torch.manual_seed(3)
    network = zoo.create(name, CLASSES, 3)
    return labelwise(network, CLASSES, torch.randn(2, 3, size, size), head)


def images(size: int = 24, n: int = 3) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("width", "count"),
    # of the trunk's channels, for 80 classes
    [(512, 5_971_024), (2048, 7_150_672), (768, 6_167_632), (1280, 6_560_848), (1408, 6_659_152)],
)
def test_the_papers_head_has_the_papers_parameters(width: int, count: int) -> None:
    trunk = nn.Sequential(nn.Conv2d(3, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trunk.append(nn.Linear(width, 80))
    network = labelwise(trunk, 80, torch.randn(2, 3, 4, 4))
    own = {n: p for n, p in network.named_parameters() if not n.startswith("trunk.")}
    assert sum(p.numel() for p in own.values()) == count
    assert all(p.requires_grad for p in own.values())
    queries = network.state_dict()["embeddings.queries"]
    assert queries.shape == (80, 768) and queries.numel() == 61_440
    assert abs(float(queries.std()) - 1) < 0.02 and abs(float(queries.mean())) < 0.02
    fan = math.sqrt(2 / (80 + 768))  # Xavier's normal
    assert float(network.classifier.weight.detach().std()) == pytest.approx(fan, rel=0.02)
    assert not network.classifier.bias.detach().any()


def plain(network: Labelwise, tokens: Tensor) -> Tensor:
    """The embeddings by hand: image by image, head by head."""
    own = {name: value.double() for name, value in network.embeddings.state_dict().items()}
    width, heads = NARROW.width, NARROW.heads
    depth = width // heads

    def norm(x: Tensor, number: int) -> Tensor:
        return F.layer_norm(x, (width,), own[f"norms.{number}.weight"], own[f"norms.{number}.bias"])

    found = []
    for image in tokens.double():
        seen = (image @ own["project.0.weight"].T + own["project.0.bias"]).clamp(min=0)
        asked = norm(2 * own["queries"], 0)
        weight, bias = own["attention.in_proj_weight"], own["attention.in_proj_bias"]
        q, k, v = (
            x @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width]
            for i, x in enumerate((asked, seen, seen))
        )
        parts = []
        for h in range(heads):
            span = slice(h * depth, (h + 1) * depth)
            share = (q[:, span] @ k[:, span].T / math.sqrt(depth)).softmax(1)
            parts.append(share @ v[:, span])
        joined = torch.cat(parts, 1)
        joined = joined @ own["attention.out_proj.weight"].T + own["attention.out_proj.bias"]
        asked = norm(asked + joined, 1)
        hidden = asked @ own["forward_layers.0.weight"].T + own["forward_layers.0.bias"]
        hidden = hidden.clamp(min=0) @ own["forward_layers.3.weight"].T
        found.append(norm(asked + hidden + own["forward_layers.3.bias"], 2))
    return torch.stack(found)


def test_embeddings_and_logits_are_the_formula() -> None:
    network = made().eval()
    tapped = Tapped(network, ["embeddings", "tokens", "last"], (images(),))
    trace = tapped(images())
    last = trace.taps["last"]
    assert trace.taps["tokens"].shape == (3, last[0, 0].numel(), last.shape[1])
    torch.testing.assert_close(trace.taps["tokens"][:, 1], last[:, :, 0, 1])
    expected = plain(network, trace.taps["tokens"])
    torch.testing.assert_close(trace.taps["embeddings"].double(), expected, rtol=1e-5, atol=1e-5)
    weight, bias = (p.detach().double() for p in network.classifier.parameters())
    scores = [
        [float(e @ w) + float(b) for e, w, b in zip(one, weight, bias, strict=True)]
        for one in expected.detach()
    ]
    torch.testing.assert_close(
        trace.out.double(), torch.tensor(scores).double(), rtol=1e-4, atol=1e-5
    )


def test_dropout_works_in_training_alone() -> None:
    network = made()
    assert not torch.equal(network(images()), network(images()))
    network.eval()
    assert torch.equal(network(images()), network(images()))


def test_queries_are_not_trained_and_are_in_the_file() -> None:
    network = made()
    before = copy.deepcopy(network.state_dict())
    network(images()).square().sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    after = network.state_dict()
    assert torch.equal(before["embeddings.queries"], after["embeddings.queries"])
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    other = made()
    other.embeddings.queries.add_(1)
    other.load_state_dict(after)
    assert torch.equal(other.eval()(images()), network.eval()(images()))


def test_classes_are_put_in_another_order_with_their_embeddings() -> None:
    network, order = made().eval(), [3, 0, 4]
    tapped = Tapped(network, ["embeddings"], (images(),))
    before = tapped(images())
    network.select_classes(order)
    after = tapped(images())
    torch.testing.assert_close(after.out, before.out[:, order])
    torch.testing.assert_close(after.taps["embeddings"], before.taps["embeddings"][:, order])


@pytest.mark.parametrize(
    ("name", "size", "layout"),
    [
        ("stillhouse/small", 24, "map"),
        ("cifar/wrn_16_1", 32, "map"),
        ("cifar/vgg8", 32, "map"),
        ("torchvision/vgg11", 64, "map"),  # several layers behind the map
        ("torchvision/mobilenet_v3_small", 64, "map"),
        ("torchvision/densenet121", 64, "map"),  # its map is written over
        ("timm/mobilenetv3_small_100", 64, "map"),  # a convolution behind the pool
        ("timm/convnext_atto", 64, "map"),
        ("timm/test_vit", 160, "tokens"),
        ("timm/swin_tiny_patch4_window7_224", 224, "channels_last"),
        ("torchvision/swin_t", 64, "map"),
    ],
)
def test_every_trunk_learns_whole(name: str, size: int, layout: str) -> None:
    """No layer is left that has parameters and nothing to do: DDP would refuse it."""
    network = made(name, size)
    assert network.tokens.layout == layout
    out = network(images(size, 2))
    assert out.shape == (2, CLASSES)
    out.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    again = copy.deepcopy(network).eval()
    assert torch.equal(again(images(size, 2)), network.eval()(images(size, 2)))


def test_aliases_reach_into_the_trunk() -> None:
    found = find_aliases(made(), images())
    assert found["last"] == "trunk.model.stage3" and "penultimate" not in found
    assert found["stage1"] == "trunk.model.stage1"


@pytest.mark.parametrize("layout", ["map", "channels_last", "tokens"])
def test_tokens_are_places(layout: str) -> None:
    places = torch.randn(2, 6, 5)  # N, T, F
    shapes = {"map": places.mT.reshape(2, 5, 2, 3), "channels_last": places.reshape(2, 2, 3, 5)}
    found = ToTokens(layout)(shapes.get(layout, places))  # type: ignore[arg-type]
    assert torch.equal(found, places)


def test_a_network_without_places_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    with pytest.raises(
        UserError, match=r"Sequential has no map and no tokens, .*; take a convolutional"
    ):
        cut_classifier(flat, torch.randn(2, 3, 2, 2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
        ({"heads": 0}, "multiple of heads"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"dropout": 1.0}, "dropout must be in \\[0, 1\\), got 1"),
    ],
)
def test_wrong_options(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LabelwiseHead(**options)  # type: ignore[arg-type]

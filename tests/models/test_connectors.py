"""What methods put between two maps: shapes, first weights, and no surprise of one image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Size, nn
from torch.nn import functional as F

from stillhouse.errors import UserError
from stillhouse.models import connectors
from stillhouse.models.adapters import Regressor, SafeBatchNorm2d

MAP = Size((2, 4, 8, 8))


def test_a_normed_connector_is_a_linear_map_of_channels_with_normal_weights() -> None:
    conv, norm = connectors.pointwise_norm(300, 500)
    assert conv.weight.shape == (500, 300, 1, 1)
    assert conv.bias is None
    assert float(conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / 500), rel=0.02)
    assert isinstance(norm, nn.BatchNorm2d)
    assert float(connectors.pointwise_norm(4, 6)(torch.randn(MAP)).detach().min()) < 0


def test_a_projected_connector_is_never_negative() -> None:
    out = connectors.pointwise_norm_relu(4, 6)(torch.randn(MAP))
    assert out.shape == (2, 6, 8, 8)
    assert float(out.detach().min()) == 0


@pytest.mark.parametrize("side", [4, 16, 8, 5])
def test_a_map_is_carried_to_the_teacher_s_shape(side: int) -> None:
    carrier = connectors.shape_connector(MAP, Size((2, 6, side, side)))
    out = carrier(torch.randn(MAP))
    assert out.shape == (2, 6, side, side)
    assert float(out.detach().min()) < 0


def test_a_map_of_the_teacher_s_shape_is_taken_as_it_is() -> None:
    assert isinstance(connectors.shape_connector(MAP, Size((7, 4, 8, 8))), nn.Identity)
    with pytest.raises(UserError, match="8 x 8 and the teacher's 11 x 11; pair other taps"):
        connectors.shape_connector(MAP, Size((2, 4, 11, 11)))


def test_a_generator_keeps_the_shape() -> None:
    first, act, second = connectors.generator(4)
    assert first.kernel_size == second.kernel_size == (3, 3)
    assert isinstance(act, nn.ReLU)
    assert connectors.generator(4)(torch.randn(MAP)).shape == MAP


@pytest.mark.parametrize("variance", [0.01, 1.0, 5.0])
def test_an_expectation_starts_with_the_variance_asked_for(variance: float) -> None:
    made = connectors.VariationalRegressor(4, 6, variance)
    mean, spread = made(torch.randn(MAP))
    assert mean.shape == (2, 6, 8, 8)
    torch.testing.assert_close(spread, torch.full((6,), variance))
    assert [tuple(p.shape) for p in made.layers.parameters()] == [
        (6, 4, 1, 1),
        (6, 6, 1, 1),
        (6, 6, 1, 1),
    ]


def test_a_variance_never_falls_to_zero() -> None:
    made = connectors.VariationalRegressor(4, 6).requires_grad_()
    nn.init.constant_(made.raw, -200.0)
    _, spread = made(torch.randn(MAP))
    torch.testing.assert_close(spread, torch.full((6,), 1e-5))


def test_the_deepest_level_is_fused_with_nothing() -> None:
    made = connectors.Fusion(4, 5, 6, fuses=False)
    out, fused = made(torch.randn(MAP), None, (8, 8))
    assert (out.shape, fused.shape) == ((2, 6, 8, 8), (2, 5, 8, 8))
    assert made.attend is None


def test_levels_are_mixed_at_each_pixel_and_brought_to_the_teacher_s_size() -> None:
    made = connectors.Fusion(4, 5, 6, fuses=True).eval()
    level, deeper = torch.randn(MAP), torch.randn(2, 5, 4, 2)
    out, fused = made(level, deeper, (16, 12))
    assert (out.shape, fused.shape) == ((2, 6, 16, 12), (2, 5, 16, 12))
    x = made.reduce(level)
    y = torch.stack([deeper[:, :, i // 2, j // 4] for i in range(8) for j in range(8)], 2)
    y = y.view(2, 5, 8, 8)
    logits = F.conv2d(torch.cat((x, y), 1), made.attend.weight, made.attend.bias)
    mixed = x * logits[:, :1].sigmoid() + y * logits[:, 1:].sigmoid()
    torch.testing.assert_close(fused, F.interpolate(mixed, (16, 12), mode="nearest"))
    torch.testing.assert_close(out, made.expand(fused))


def test_weights_of_a_fusion_are_uniform_and_keep_the_scale() -> None:
    made = connectors.Fusion(50, 40, 30, fuses=False)
    for conv, fan in ((made.reduce[0], 50), (made.expand[0], 9 * 40)):
        assert float(conv.weight.detach().abs().max()) <= math.sqrt(3 / fan)
        assert float(conv.weight.detach().std()) == pytest.approx(1 / math.sqrt(fan), rel=0.1)


def test_a_paraphraser_says_a_map_in_fewer_channels_and_again() -> None:
    made = connectors.Paraphraser(4, 2)
    assert made.encoder(torch.randn(MAP)).shape == (2, 2, 8, 8)
    assert made(torch.randn(MAP)).shape == MAP
    assert not any(isinstance(part, nn.BatchNorm2d) for part in made.modules())
    layers = [part for part in made.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]
    widths = [(layer.in_channels, layer.out_channels) for layer in layers]
    assert widths == [(4, 4), (4, 2), (2, 2), (2, 2), (2, 4), (4, 4)]
    assert {layer.kernel_size for layer in layers} == {(3, 3)}


def test_a_translator_has_norms_where_a_paraphraser_has_none() -> None:
    kinds = [type(part).__name__ for part in connectors.factor_encoder(4, 2, norm=True)]
    assert kinds == ["Conv2d", "SafeBatchNorm2d", "LeakyReLU"] * 3


# ------------------------------------------------------------------------------------------- a norm


def test_a_norm_is_batch_norm_wherever_a_channel_has_two_values() -> None:
    ours, theirs = SafeBatchNorm2d(4), nn.BatchNorm2d(4)
    for shape in (MAP, (2, 4, 1, 1), (1, 4, 1, 2)):
        image = torch.randn(shape)
        torch.testing.assert_close(ours(image), theirs(image))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("images", [0, 1])
def test_a_norm_of_one_value_has_its_running_statistics(images: int) -> None:
    norm = SafeBatchNorm2d(4)
    norm(3 + torch.randn(MAP))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    alone = torch.randn(images, 4, 1, 1, requires_grad=True)
    out = norm(alone)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(out, norm.eval()(alone))
    out.sum().backward()
    assert alone.grad.isfinite().all()


def test_a_regressor_survives_a_last_batch_of_one() -> None:
    adapter = Regressor().build(Size((2, 4, 1, 1)), Size((2, 6, 1, 1)))
    assert adapter(torch.randn(1, 4, 1, 1)).shape == (1, 6, 1, 1)

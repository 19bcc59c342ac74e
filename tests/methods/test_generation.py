"""A teacher's map made again from some of the channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from settings import heard, loss, setting
from stillhouse.methods.generation import MGD


def test_all_channels_make_the_map_where_none_is_masked() -> None:
    at = setting()
    method = MGD(masked=0.0).build(at)
    lesson = heard(at, method)
    (term,) = method(lesson).values()
    made = method.generators[0](method.adapters[0](lesson.student.taps["last"]))
    want = (made - lesson.teacher.taps["last"]).square().sum() / 4
    torch.testing.assert_close(term.mean(), want)
    assert term.weight == 7e-5


def test_channels_of_images_are_left_out_as_often_as_asked() -> None:
    method = MGD(masked=0.15).build(setting())
    mask = method.mask(torch.zeros(500, 64, 3, 3))
    assert mask.shape == (500, 64, 1, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(1 - mask.mean()) == pytest.approx(0.15, abs=0.01)
    assert len({tuple(row) for row in mask[:, :, 0, 0].tolist()}) > 490  # each image its own
    assert method.mask(torch.zeros(2, 4, 1, 1, dtype=torch.double)).dtype == torch.double


def test_each_call_draws_anew_and_a_seed_draws_the_same() -> None:
    at = setting()
    method = MGD(masked=0.5).build(at)
    lesson = heard(at, method)
    torch.manual_seed(3)
    one, two = (float(loss(method(lesson)).detach()) for _ in range(2))
    assert one != two
    torch.manual_seed(3)
    assert float(loss(method(lesson)).detach()) == one


def test_a_masked_channel_is_not_seen() -> None:
    at = setting("small", "small")
    method = MGD(masked=0.5).build(at)
    tap, goal = torch.randn(3, 32, 2, 2, requires_grad=True), torch.randn(3, 32, 2, 2)
    torch.manual_seed(1)
    mask = method.mask(tap)
    torch.manual_seed(1)
    method.compare(0, tap, goal).sum().backward()
    seen = tap.grad.abs().sum((2, 3), keepdim=True) > 0
    assert torch.equal(seen, mask > 0)


def test_channels_are_aligned_only_where_they_differ() -> None:
    assert isinstance(MGD().build(setting("small", "small")).adapters[0], nn.Identity)
    adapter = MGD().build(setting()).adapters[0]
    assert (adapter.in_channels, adapter.out_channels, adapter.kernel_size) == (32, 64, (1, 1))


def test_the_larger_map_is_pooled() -> None:
    at = setting()
    method = MGD(pairs=(("stage1", "stage3"), ("stage3", "stage1"))).build(at)
    assert loss(method(heard(at, method))).isfinite()


@pytest.mark.parametrize("masked", [-0.1, 1.0])
def test_a_mask_that_leaves_nothing_is_refused(masked: float) -> None:
    with pytest.raises(ValueError, match="`masked` must be in "):
        MGD(masked=masked)


def test_a_mask_of_locations_hides_all_channels() -> None:
    method = MGD(masked=0.5, mask="location").build(setting())
    maps = torch.ones(4, 3, 8, 8)
    mask = method.mask(maps)
    assert mask.shape == (4, 1, 8, 8) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float(mask.mean()) < 0.7
    assert MGD(masked=0.5).build(setting()).mask(maps).shape == (4, 3, 1, 1)

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Size, nn
from torch.nn import functional as F

from stillhouse.errors import UserError
from stillhouse.models.adapters import Adapter, NoAdapter, Pointwise, Regressor, WhereNeeded, align
from stillhouse.spec import members

MAP = Size((2, 4, 8, 8))


def test_the_union_is_the_registry() -> None:
    assert members(Adapter) == (NoAdapter, Pointwise, Regressor)
    read = TypeAdapter(Adapter).validate_python
    assert read({"kind": "pointwise"}) == Pointwise()
    assert read({"kind": "none"}) == NoAdapter()
    with pytest.raises(ValidationError, match="width"):
        read({"kind": "regressor", "width": 3})


def test_direct_is_an_identity_or_says_what_to_use() -> None:
    features = torch.randn(MAP)
    assert NoAdapter().build(MAP, Size((2, 4, 2, 2)))(features) is features
    with pytest.raises(UserError, match=r"student has 4 and the teacher 6; use .*'pointwise'"):
        NoAdapter().build(MAP, Size((2, 6, 8, 8)))


def test_auto_is_a_convolution_only_where_channels_differ() -> None:
    assert isinstance(WhereNeeded().build(MAP, Size((2, 4, 2, 2))), nn.Identity)
    needed = WhereNeeded().build(MAP, Size((2, 6, 8, 8)))
    assert isinstance(needed, nn.Conv2d) and needed.weight.shape == (6, 4, 1, 1)


def test_pointwise_mixes_channels_at_every_place() -> None:
    adapter = Pointwise().build(MAP, Size((2, 6, 4, 4)))
    features = torch.randn(MAP)
    (weight,) = adapter.parameters()
    expected = torch.einsum("nchw,dc->ndhw", features, weight[:, :, 0, 0])
    torch.testing.assert_close(adapter(features), expected)


@pytest.mark.parametrize("before", [Size((2, 4)), Size((2, 7, 4))])
def test_pointwise_of_vectors_and_tokens(before: Size) -> None:
    after = Size((*before[:-1], 6))
    adapter = Pointwise().build(before, after)
    assert [tuple(p.shape) for p in adapter.parameters()] == [(6, 4)]
    assert adapter(torch.randn(before)).shape == after


def test_pointwise_starts_by_keeping_the_scale() -> None:
    torch.manual_seed(0)
    adapter = Pointwise().build(Size((2, 256)), Size((2, 512)))
    assert float(adapter(torch.randn(64, 256)).detach().std()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("side", "kernel", "kind"),
    [
        (4, (3, 3), nn.Conv2d),  # half of it
        (16, (4, 4), nn.ConvTranspose2d),  # twice
        (8, (1, 1), nn.Conv2d),
        (5, (4, 4), nn.Conv2d),  # a valid convolution of 1 + 8 - 5
    ],
)
def test_regressor_has_the_geometry_of_fitnet(
    side: int, kernel: tuple[int, int], kind: type[nn.Module]
) -> None:
    goal = Size((2, 6, side, side))
    adapter = Regressor().build(MAP, goal)
    hint = adapter(torch.randn(MAP))
    assert hint.shape == goal
    assert float(hint.detach().min()) >= 0
    assert isinstance(adapter[0], kind) and adapter[0].kernel_size == kernel
    assert isinstance(adapter[1], nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("adapter", "student", "teacher", "said"),
    [
        (Regressor(), (2, 4), (2, 6), "needs maps, but the student's tap has shape 2 x 4"),
        (Regressor(), (2, 4, 8, 8), (2, 6, 11, 11), "8 x 8 and the teacher's 11 x 11"),
        (Pointwise(), (2, 4, 8, 8), (2, 6), "has shape 2 x 4 x 8 x 8 and the teacher's 2 x 6"),
        (NoAdapter(), (2,), (2,), "tap two vectors"),
        (Pointwise(), (2, 5, 4), (2, 7, 4), "5 tokens and the teacher's 7"),
    ],
)
def test_shapes_that_cannot_meet(adapter: Adapter, student, teacher, said: str) -> None:
    with pytest.raises(UserError, match=said):
        adapter.build(Size(student), Size(teacher))


def test_align_shrinks_the_larger_map() -> None:
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
    for one, other in [align(small, large), align(large, small)[::-1]]:
        assert one is small
        torch.testing.assert_close(other, F.adaptive_avg_pool2d(large, 4))


def test_align_of_odd_sizes_and_of_each_axis() -> None:
    student, teacher = torch.randn(2, 3, 7, 4), torch.randn(2, 5, 5, 8)
    one, other = align(student, teacher)
    torch.testing.assert_close(one, F.adaptive_avg_pool2d(student, (5, 4)))
    torch.testing.assert_close(other, F.adaptive_avg_pool2d(teacher, (5, 4)))


def test_align_leaves_vectors() -> None:
    student, teacher = torch.randn(2, 3), torch.randn(2, 5)
    assert align(student, teacher) == (student, teacher)

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models import small
from stillhouse.models.taps import Tapped


class Odd(nn.Module):
    """Uses one layer twice, answers with a tuple, and overwrites what its layers gave."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.relu = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.idle = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shared(self.shared(x))
        x = self.relu(self.norm(x))
        return self.pair(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x - 1


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return small.small_resnet("small", classes=5, channels=1).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 1, 16, 16)


def test_taps_are_what_a_forward_by_hand_gives(model: nn.Module, image: Tensor) -> None:
    trace = Tapped(model, ["stem", "stage2", "pool", "head@input", ""])(image)
    stem = model.stem(image)
    stage2 = model.stage2(model.stage1(stem))
    pool = model.pool(model.stage3(stage2))
    expected = {"stem": stem, "stage2": stage2, "pool": pool, "head@input": pool}
    expected[""] = model.head(pool)
    assert trace.taps.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(trace.taps[name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(trace.out, expected[""], rtol=0, atol=0)


def test_gradients_flow_through_taps(model: nn.Module, image: Tensor) -> None:
    trace = Tapped(model, ["stage1"])(image)
    trace.taps["stage1"].sum().backward()
    assert model.stem[0].weight.grad is not None
    assert model.head.weight.grad is None


def test_taps_may_be_asked_by_alias_and_by_a_name_of_ones_own(
    model: nn.Module, image: Tensor
) -> None:
    by_alias = Tapped(model, ["last", "penultimate", "logits"], example=(image,))(image)
    by_name = Tapped(model, {"map": "stage3", "again": "stage3"})(image)
    assert by_alias.taps["last"].shape == (2, 32, 2, 2)
    assert by_alias.taps["penultimate"].shape == (2, 32)
    assert by_alias.taps["logits"] is by_alias.out
    assert by_name.taps["map"] is by_name.taps["again"]


@pytest.mark.parametrize(
    ("tap", "said"),
    [
        ("stage33", "SmallResNet has no module or alias 'stage33'.*did you mean .*'stage3'"),
        ("penultimat", "an alias such as 'stage1' needs an example batch; did you mean 'penult"),
        ("hed@input", "did you mean 'head'"),
    ],
)
def test_a_tap_that_is_not_there(model: nn.Module, tap: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Tapped(model, [tap])


def test_of_a_tuple_the_first_tensor_is_taken() -> None:
    trace = Tapped(Odd(), ["pair"])(torch.randn(3, 4))
    assert trace.taps["pair"] is trace.out[0]


def test_each_call_of_a_module_that_runs_twice_has_a_tap() -> None:
    model, x = Odd(), torch.randn(3, 4)
    taps = ["shared@0", "shared@1", "shared@input@0", "shared@input@1"]
    once = model.shared(x)
    expected = [once, model.shared(once), x, once]
    for example in ((), (x,)):
        trace = Tapped(model, taps, example)(x)
        for tap, tensor in zip(taps, expected, strict=True):
            torch.testing.assert_close(trace.taps[tap], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("tap", ["shared", "shared@input"])
def test_a_tap_that_could_be_of_several_calls_is_refused(tap: str) -> None:
    model, x = Odd(), torch.randn(3, 4)
    text = f"tap '{tap}': Odd calls 'shared' 2 times .* say which call, '{tap}@0' to '{tap}@1'"
    with pytest.raises(UserError, match=text):  # before training, where there is an example
        Tapped(model, [tap], example=(x,))
    with pytest.raises(UserError, match=text):
        Tapped(model, [tap])(x)


def test_a_call_that_does_not_happen_is_named() -> None:
    with pytest.raises(UserError, match="tap 'shared@2': .* gives no tensor at 'shared@2'"):
        Tapped(Odd(), ["shared@2"])(torch.randn(3, 4))


def test_calls_are_counted_anew_in_each_forward_and_in_a_copy() -> None:
    model, x = Odd(), torch.randn(3, 4)
    tapped = Tapped(model, {"second": "shared@1"})
    expected = model.shared(model.shared(x))
    for network in (tapped, tapped, copy.deepcopy(tapped), pickle.loads(pickle.dumps(tapped))):
        torch.testing.assert_close(network(x).taps["second"], expected)


def test_a_module_that_does_not_run_is_named() -> None:
    with pytest.raises(UserError, match="tap 'idle': the forward of Odd gives no tensor at 'idle'"):
        Tapped(Odd(), ["idle"])(torch.randn(3, 4))


def test_what_a_later_layer_overwrites_is_refused_or_kept() -> None:
    model, x = Odd(), torch.randn(3, 4)
    with pytest.raises(UserError, match="tap 'norm' is overwritten in place by a later layer"):
        Tapped(model, ["norm"])(x)
    trace = Tapped(model, ["norm", "relu"], example=(x,))(x)
    before = model.norm(model.shared(model.shared(x)))
    torch.testing.assert_close(trace.taps["norm"], before)
    torch.testing.assert_close(trace.taps["relu"], before.relu())
    assert float(before.detach().min()) < 0


def test_nothing_is_held_between_calls_and_nothing_is_left_after_close(
    model: nn.Module, image: Tensor
) -> None:
    hooks = [len(module._forward_hooks) for module in model.modules()]
    tapped = Tapped(model, ["stage1", "head@input"])
    first, second = tapped(image), tapped(image + 1)
    assert first.taps is not second.taps
    assert not torch.equal(first.taps["stage1"], second.taps["stage1"])
    model(image)  # outside of a call the hooks write nothing
    assert tapped._capture.taps is None
    tapped.close()
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_forward_that_fails_ends_the_capture(model: nn.Module, image: Tensor) -> None:
    tapped = Tapped(model, ["stage1"])
    with pytest.raises(RuntimeError):
        tapped(image[:, 0, :, :])
    assert tapped._capture.taps is None
    assert set(tapped(image).taps) == {"stage1"}


def test_works_in_inference_mode(model: nn.Module, image: Tensor) -> None:
    tapped = Tapped(model, ["stage1"])
    with torch.inference_mode():
        assert tapped(image).taps["stage1"].shape == (2, 8, 8, 8)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_hooks_of_its_own(twin, model: nn.Module, image: Tensor) -> None:
    tapped = Tapped(model, ["stage1"])
    other = twin(tapped)
    with torch.no_grad():
        other.model.stem[0].weight.zero_()
    assert not torch.equal(other(image).taps["stage1"], tapped(image).taps["stage1"])
    other.close()
    assert set(tapped(image).taps) == {"stage1"}
    assert not other.model.stage1._forward_hooks


def test_hooks_set_before_compiling_fire_in_the_compiled_network(
    model: nn.Module, image: Tensor
) -> None:
    tapped = Tapped(model, ["stage1", "head@input"], example=(image,))
    expected = tapped(image)
    compiled = torch.compile(tapped, backend="eager")
    for _ in range(2):
        trace = compiled(image)
        for name in ("stage1", "head@input"):
            torch.testing.assert_close(trace.taps[name], expected.taps[name])
    torch.testing.assert_close(trace.out, expected.out)


def test_a_compiled_network_knows_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(self.shared(x))

    model, x = Twice(), torch.randn(3, 4)
    compiled = torch.compile(Tapped(model, ["shared@0"], (x,)), backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x).taps["shared@0"], model.shared(x))

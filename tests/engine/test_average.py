"""The moving average against plain arithmetic."""

import pytest
import torch
from torch import nn

from stillhouse.engine.average import WeightEMA
from stillhouse.errors import UserError


class Net(nn.Module):
    """A parameter, a norm's buffers (one of them an integer), and scratch that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.register_buffer("mask", torch.full((2,), -torch.inf), persistent=False)

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(torch.randn_like(parameter))
        self.norm(torch.randn(4, 2))


def test_it_is_the_recurrence():
    model = Net()
    average = WeightEMA(model, 0.9, warmup=False)
    weight = model.linear.weight.detach().double().clone()
    mean = model.norm.running_mean.double().clone()
    for step in range(5):
        model.step()
        average.update(model, step)
        weight = 0.9 * weight + 0.1 * model.linear.weight.detach().double()
        mean = 0.9 * mean + 0.1 * model.norm.running_mean.double()
    state = average.state_dict()
    torch.testing.assert_close(state["linear.weight"].double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state["norm.running_mean"].double(), mean, rtol=1e-5, atol=1e-6)
    assert state["norm.num_batches_tracked"].item() == 5
    assert "mask" not in state and not any(value.requires_grad for value in state.values())


def test_warmup_of_the_decay():
    average = WeightEMA(Net(), 0.99)
    assert [average.decay_at(step) for step in (0, 8, 10_000)] == [0.1, 0.5, 0.99]
    assert WeightEMA(Net(), 0.99, warmup=False).decay_at(0) == 0.99


def test_applied_puts_all_back_bit_for_bit():
    model = Net()
    average = WeightEMA(model, 0.5)
    for step in range(3):
        model.step()
        average.update(model, step)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), average.applied(model):
        inside = model.state_dict()
        assert all(torch.equal(inside[k], v) for k, v in average.state_dict().items())
        assert not torch.equal(inside["linear.weight"], before["linear.weight"])
        raise RuntimeError("inside")
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_is_averaged_in_single():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(model.weight)
    average = WeightEMA(model, 0.999, warmup=False)
    nn.init.constant_(model.weight, 2.0)
    for step in range(100):  # 1 + 1e-3 is 1 in bfloat16: an average in it would never leave
        average.update(model, step)
    value = average.state_dict()["weight"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(2 - 0.999**100, abs=1e-4)
    with average.applied(model):
        assert model.weight.dtype == torch.bfloat16
    assert model.weight.item() == 2.0


def test_it_owns_its_tensors_and_resumes_exactly():
    def run(reload: bool) -> dict[str, torch.Tensor]:
        other, model = Net(), Net()  # the second of them seeds what follows
        average = WeightEMA(model, 0.9)
        for step in range(6):
            model.step()
            average.update(model, step)
            if reload and step == 2:
                state = {name: value.clone() for name, value in average.state_dict().items()}
                average = WeightEMA(other, 0.9)
                average.load_state_dict(state)
                state["linear.weight"].zero_()  # a copy was taken
        return average.state_dict()

    straight, resumed = run(False), run(True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_tied_weights_are_averaged_once():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    average = WeightEMA(model, 0.5, warmup=False)
    first = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update(model, 0)
    assert list(average.state_dict()) == ["0.weight"]
    with average.applied(model):
        torch.testing.assert_close(model[1].weight.detach(), first + 0.5)


def test_what_does_not_fit_is_refused():
    average = WeightEMA(Net())
    state = average.state_dict()
    for wrong in (
        {name: value for name, value in state.items() if name != "linear.bias"},
        {**state, "linear.bias": torch.zeros(5)},
    ):
        with pytest.raises(UserError, match=r"does not match the network at 'linear\.bias'"):
            average.load_state_dict(wrong)
    with pytest.raises(ValueError, match="`decay` must be in \\[0, 1\\), got"):
        WeightEMA(Net(), 1.0)

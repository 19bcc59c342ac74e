"""Optimisers against a few lines of plain arithmetic, and against torch's own."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from stillhouse.engine.optimisers import SGD, Adam, AdamW, Optimiser, RMSprop, TensorFlowRMSprop
from stillhouse.errors import UserError
from stillhouse.spec import members

ALL = members(Optimiser)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def test_every_member_builds_and_lowers_a_loss():
    for member in ALL:
        model = network()
        optimiser = member(lr=1e-2).build(model.named_parameters())
        images, wanted = torch.randn(8, 2, 4, 4), torch.randn(8, 2)
        losses = []
        for _ in range(20):
            loss = (model(images) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0], member


@pytest.mark.parametrize("member", ALL)
def test_a_recipe_can_say_it(member):
    kind = member().kind
    adapter = TypeAdapter(Optimiser)
    assert adapter.validate_python({"kind": kind, "lr": 0.25}) == member(lr=0.25)
    with pytest.raises(ValidationError, match="learning_rate"):
        adapter.validate_python({"kind": kind, "learning_rate": 0.25})
    with pytest.raises(ValidationError, match="`lr` must be positive and finite, got -1"):
        adapter.validate_python({"kind": kind, "lr": -1})


@pytest.mark.parametrize("member", ALL)
@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(member, lr):
    with pytest.raises(ValueError, match="`lr` must be positive and finite, got "):
        member(lr=lr)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SGD(0.1, momentum=1.0), r"`momentum` must be in \[0, 1\), got 1.0"),
        (lambda: SGD(0.1, momentum=0.0, nesterov=True), "`nesterov` needs a positive `momentum`"),
        (
            lambda: SGD(0.1, weight_decay=-1e-4),
            "`weight_decay` must be non-negative and finite",
        ),
        (
            lambda: AdamW(0.1, betas=(0.9, 1.0)),
            "`betas` must be two numbers",
        ),
        (lambda: Adam(0.1, betas=(0.9,)), r"`betas` must be two .*, got \(0.9,\)"),  # type: ignore[arg-type]
        (lambda: Adam(0.1, eps=0.0), "`eps` must be positive and finite, got 0.0"),
        (lambda: RMSprop(0.1, alpha=1.5), r"`alpha` must be in \[0, 1\), got 1.5"),
    ],
)
def test_other_options_are_refused_by_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def train(
    optimiser: torch.optim.Optimizer, model: nn.Sequential, taught: range = range(4)
) -> list[torch.Tensor]:
    """Four steps; the last layer has a gradient in some of them only."""
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        loss = model(torch.randn(8, 2, 4, 4, generator=generator)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        if step not in taught:
            model[3].weight.grad = model[3].bias.grad = None
        optimiser.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("taught", [range(3), range(1, 3), range(2, 4)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_parameters_may_get_their_first_gradient_after_others(taught: range, nesterov: bool):
    fused, plain = network(), network()
    spec = SGD(0.1, 0.9, weight_decay=0.01, nesterov=nesterov)
    optimiser = torch.optim.SGD(
        plain.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=nesterov, foreach=False
    )
    ours = train(spec.build(fused.named_parameters()), fused, taught)
    for got, want in zip(ours, train(optimiser, plain, taught), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_the_steps_of_fused_sgd_are_those_of_torch_bit_for_bit():
    ours, theirs = network(), network()
    fused = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01, fused=True)
    built = SGD(0.1, 0.9, weight_decay=0.01).build(ours.named_parameters())
    for got, want in zip(train(built, ours), train(fused, theirs), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("member", ALL)
def test_norms_and_biases_are_spared_on_demand(member):
    model = network()
    weights = {id(model[0].weight), id(model[3].weight)}
    decayed, spared = (
        member(lr=0.1, weight_decay=0.5, decay_norms=False)
        .build(model.named_parameters())
        .param_groups
    )
    assert {id(parameter) for parameter in decayed["params"]} == weights
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert len(spared["params"]) == 4
    (whole,) = member(lr=0.1, weight_decay=0.5).build(model.named_parameters()).param_groups
    assert len(whole["params"]) == 6 and whole["weight_decay"] == 0.5


def test_groups_leave_no_empty_one():
    only = nn.Linear(3, 3, bias=False)
    assert len(SGD(0.1, decay_norms=False).build(only.named_parameters()).param_groups) == 1


def test_frozen_and_tied_parameters():
    model = network()
    model[0].weight.requires_grad_(False)
    named = [*model.named_parameters(), ("tied", model[3].weight)]
    (group,) = SGD(0.1).build(named).param_groups
    assert len(group["params"]) == 5
    with pytest.raises(UserError, match="all parameters are frozen"):
        SGD(0.1).build((n, p.requires_grad_(False)) for n, p in model.named_parameters())


def test_decay_is_decoupled_in_adamw_and_coupled_in_adam():
    # A zero gradient: decoupled decay shrinks the weight by lr * decay; coupled decay makes a
    # gradient, which Adam normalises to a step of about lr.
    for spec, wanted in [
        (AdamW(0.1, weight_decay=0.5), 2 * (1 - 0.05)),
        (Adam(0.1, weight_decay=0.5), 2 - 0.1),
    ]:
        weight = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
        optimiser = spec.build([("weight", weight)])
        weight.grad = torch.zeros_like(weight)
        optimiser.step()
        assert weight.item() == pytest.approx(wanted, abs=1e-6)


def test_sgd_is_what_the_recipes_mean():
    weight = nn.Parameter(torch.tensor([[1.0]], dtype=torch.float64))
    optimiser = SGD(0.1, momentum=0.9, weight_decay=0.01).build([("weight", weight)])
    plain, velocity = 1.0, 0.0
    for gradient in (0.3, -0.2, 0.7):
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        velocity = 0.9 * velocity + gradient + 0.01 * plain
        plain -= 0.1 * velocity
        assert weight.item() == pytest.approx(plain, abs=1e-15)


def test_rmsprop_has_epsilon_inside_and_squares_from_one():
    weight = nn.Parameter(torch.tensor([[1.0]], dtype=torch.float64))
    spec = RMSprop(0.05, weight_decay=0.01, alpha=0.8, momentum=0.7, eps=0.002)
    optimiser = spec.build([("weight", weight)])
    plain, squares, velocity = 1.0, 1.0, 0.0
    for step, gradient in enumerate((0.3, -0.2, 0.7, 0.1)):
        lr = 0.05 / (step + 1)  # a schedule: momentum has to hold steps, not gradients
        optimiser.param_groups[0]["lr"] = lr
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        decayed = gradient + 0.01 * plain
        squares = 0.8 * squares + 0.2 * decayed**2
        velocity = 0.7 * velocity + lr * decayed / (squares + 0.002) ** 0.5
        plain -= velocity
        assert weight.item() == pytest.approx(plain, abs=1e-14)


def test_rmsprop_continues_from_its_state():
    def trained(steps: int, again_after: int) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(3, 2))
        optimiser = RMSprop(0.01).build([("weight", weight)])
        for step in range(steps):
            weight.grad = torch.sin(weight.detach() * 3 + step)
            optimiser.step()
            if step == again_after:
                state = optimiser.state_dict()
                optimiser = RMSprop(0.01).build([("weight", weight)])
                optimiser.load_state_dict(state)
        return weight.detach()

    assert torch.equal(trained(6, -1), trained(6, 2))


def test_rmsprop_takes_a_closure_and_leaves_what_has_no_gradient():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimiser = TensorFlowRMSprop([used, unused], lr=0.1)

    def closure() -> float:
        loss = used.square().sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 4.0
    assert torch.equal(unused, torch.ones(2, 2)) and (used < 1).all()
    assert unused not in optimiser.state

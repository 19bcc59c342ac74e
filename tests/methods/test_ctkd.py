"""The temperature that learns: where it begins, how it is bounded, and that it works against."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from stillhouse.distributed import combine
from stillhouse.methods.ctkd import CTKD, CurriculumTemperature
from stillhouse.methods.setting import Setting
from stillhouse.objectives import presets
from stillhouse.types import Clock, Site
from tiny import Net, lesson, site

EPOCH = 10  # steps


def build(**options) -> CurriculumTemperature:
    return CTKD(**options).build(Setting(Net(4), Net(8), torch.zeros(2, 3, 12, 12))).double()


def at(epoch: int, rows: Site | None = None):
    clock = Clock((epoch - 1) * EPOCH, 100 * EPOCH, EPOCH)
    return lesson({"class": rows or site(6, 5)}, clock=clock)


def test_the_first_temperature_is_that_of_the_authors() -> None:
    method = build()
    assert method.gauges(Clock(0, 1, 1))["temperature"] == pytest.approx(15.6211716, abs=1e-6)
    method(at(1))
    assert method.gauges(Clock(0, 1, 1))["temperature"] == pytest.approx(15.6211716, abs=1e-6)


def test_the_curriculum_rises_as_a_cosine() -> None:
    spec = CTKD()
    found = [spec.strength(at(epoch).clock) for epoch in range(1, 12)]
    want = [0.0245, 0.0955, 0.2061, 0.3455, 0.5, 0.6545, 0.7939, 0.9045, 0.9755, 1, 1]
    assert found == pytest.approx(want, abs=5e-5)
    share = CTKD(loops=0.5)
    assert share.strength(Clock(25, 100, 10)) == pytest.approx(0.5)
    assert share.strength(Clock(75, 100, 10)) == 1


def by_hand(rows: Site, tau: torch.Tensor) -> torch.Tensor:
    p, q = (z / tau for z in (rows.teacher, rows.student))
    losses = F.kl_div(F.log_softmax(q, 1), F.log_softmax(p, 1), log_target=True, reduction="none")
    return 0.9 * (tau**2 * losses).sum(1).mean()


@pytest.mark.parametrize("mode", ["global", "instance"])
def test_the_student_goes_down_and_the_temperature_up(mode: str) -> None:
    """The gradient of theta is that of the loss, through tau squared too, times -lambda."""
    rows, method = site(6, 5), build(mode=mode)
    loss = combine(method(at(5, rows)))
    loss.backward()
    raw = method.critic(rows.student.detach(), rows.teacher)
    tau = 1 + 20 * raw.sigmoid()
    want = by_hand(rows, tau)
    torch.testing.assert_close(loss, want)
    own = [p for p in method.critic.parameters()]
    slopes = torch.autograd.grad(want, own, allow_unused=True)
    for parameter, slope in zip(own, slopes, strict=True):
        torch.testing.assert_close(parameter.grad, -0.5 * slope)
    plain = by_hand(Site(rows.student, rows.teacher), tau.detach())
    (down,) = torch.autograd.grad(plain, rows.student)
    torch.testing.assert_close(rows.student.grad, down)


def test_at_strength_zero_the_temperature_stands_still() -> None:
    method = build(loops=1e9)
    combine(method(at(1))).backward()
    assert abs(float(method.critic.theta.grad)) < 1e-15


def test_the_temperature_stays_within_its_bounds() -> None:
    method = build(lowest=2.0, span=10.0)
    for theta in (-1e4, 0.0, 1e4):
        method.critic.theta.data.fill_(theta)
        tau = float(method.temperature(site(6, 5), at(1).clock).detach())
        assert 2 <= tau <= 12 and math.isfinite(tau)
        combine(method(at(3))).backward()
        assert method.critic.theta.grad.isfinite()


@pytest.mark.parametrize(
    ("base", "names", "share"),
    [
        (presets.kd(), {"class/kd"}, 0.1),
        (presets.dkd(beta=2), {"class/target", "class/rest"}, 1.0),
        (presets.lskd(), {"class/kd"}, 0.1),
        (presets.lskd(base=presets.dkd()), {"class/target", "class/rest"}, 1.0),
    ],
)
def test_it_takes_the_place_of_its_base_s_temperature(base, names: set[str], share: float) -> None:
    rows, method = site(6, 5), build(base=base)
    terms = method(at(3, rows))
    assert set(terms) == names and method.label_share == share
    tau = 1 + 20 / (1 + math.exp(-1))
    for name, objective in base.objectives().items():
        want = objective(rows, temperature=tau)
        torch.testing.assert_close(terms[f"class/{name}"].mean(), want.mean())
        assert terms[f"class/{name}"].weight == want.weight


def test_the_critic_has_a_group_of_its_own_and_is_saved() -> None:
    method = build()
    assert [*method.groups()] == ["critic"]
    method.critic.theta.data.fill_(0.25)
    method(at(2))
    other = build()
    other.load_state_dict(method.state_dict())
    clock = at(2).clock
    assert (
        other.gauges(clock)
        == method.gauges(clock)
        == {"temperature": pytest.approx(12.24, abs=0.01)}
    )


def test_a_temperature_for_each_sample_needs_samples() -> None:
    with pytest.raises(ValueError, match="needs a base that compares each sample"):
        CTKD(base=presets.lskd(base=presets.dist()), mode="instance")
    CTKD(base=presets.lskd(base=presets.dist()))  # one for all is no matter


def test_a_batch_of_none_keeps_the_temperature() -> None:
    method, empty = build(mode="instance"), torch.zeros(0, 5, dtype=torch.double)
    before = method.gauges(at(1).clock)
    loss = combine(method(at(1, Site(empty.requires_grad_(), empty.detach()))))
    loss.backward()
    assert float(loss.detach()) == 0 and method.gauges(at(1).clock) == before

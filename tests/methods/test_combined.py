"""Several methods at once, and none."""

from __future__ import annotations

import torch
from torch import nn

from stillhouse.engine.pupil import Pupil
from stillhouse.methods.base import Method
from stillhouse.methods.combined import Combined, NoTerms
from stillhouse.methods.feature import AdaptedPair, Features
from stillhouse.methods.logit import Logits
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.types import Lesson, Terms, Trace
from tiny import CLOCK, Net, batch, lesson, site


class Critic(Method):
    """Two groups of parameters, one of which another method has too."""

    student_taps = ("flat", "body")
    needs_labels = True
    label_share = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, lesson: Lesson) -> Terms:
        return {}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"method": [*self.inner.parameters()], "critic": [*self.critic.parameters()]}


def both() -> Combined:
    adapter = nn.Conv2d(2, 3, 1)
    features = Features(presets.mimic(label_weight=0.2), [AdaptedPair("body", "x", adapter)])
    return Combined({"kd": Logits(presets.kd()), "mimic": features, "critic": Critic()})


def test_terms_stand_under_the_name_of_their_method() -> None:
    at, image = site(), torch.randn(6, 2, 3, 3)
    teacher = torch.randn(6, 3, 3, 3)
    one = lesson({"class": at}, {"body": image}, {"x": teacher})
    terms = both()(one)
    assert list(terms) == ["kd/class/kd", "mimic/body/mimic"]
    alone = Logits(presets.kd())(one)["class/kd"]
    assert torch.equal(terms["kd/class/kd"].total, alone.total)
    assert terms["kd/class/kd"].weight == alone.weight


def test_taps_are_asked_for_once() -> None:
    assert both().student_taps == ("body", "flat")
    assert both().teacher_taps == ("x",)


def test_labels_count_as_much_as_the_method_that_leaves_them_most() -> None:
    assert both().label_share == 0.3
    assert Combined({"kd": Logits(presets.kd()), "none": NoTerms()}).label_share == 1.0


def test_labels_are_needed_if_one_method_reads_them() -> None:
    assert both().needs_labels
    assert not Combined({"kd": Logits(presets.kd()), "dist": Logits(presets.dist())}).needs_labels


def test_groups_of_one_name_are_put_together() -> None:
    method = both()
    groups = {name: list(group) for name, group in method.groups().items()}
    mimic, critic = method.methods["mimic"], method.methods["critic"]
    assert list(groups) == ["method", "critic"]
    assert groups["method"] == [*mimic.parameters(), *critic.inner.parameters()]
    assert groups["critic"] == [*critic.critic.parameters()]
    assert sum(map(len, groups.values())) == len(list(method.parameters()))


def test_a_pupil_gives_each_parameter_to_one_group() -> None:
    pupil = Pupil(Tapped(Net()), both(), Classification(5))
    grouped = [name for group in pupil.groups().values() for name, _ in group]
    assert sorted(grouped) == sorted(name for name, _ in pupil.named_parameters())
    assert list(pupil.groups()) == ["student", "method", "critic"]


def test_a_pupil_weighs_the_labels_and_not_their_record() -> None:
    net, rows = Net().double(), batch()
    taught, free = (
        Pupil(Tapped(net), method, Classification(5))(rows, {"": Trace(torch.zeros(8, 5))}, CLOCK)
        for method in (Logits(presets.kd()), NoTerms())
    )
    assert list(taught) == ["label", "class/kd"]
    assert taught["label"].weight == 0.1
    assert taught["label"].mean() == free["label"].mean()


def test_nothing_teaches_nothing_and_leaves_the_labels_alone() -> None:
    method = NoTerms()
    assert method(lesson({"class": site()})) == {}
    assert method.label_share == 1.0
    assert not method.needs_labels
    assert list(method.parameters()) == []


def test_gauges_stand_under_the_name_of_their_method() -> None:
    methods = {
        "a": Logits(presets.kd(temperature=3)),
        "b": Logits(presets.mse()),
        "c": Features(presets.cwd(temperature=2), [AdaptedPair("body", "x", nn.Identity())]),
        "d": NoTerms(),
    }
    assert Combined(methods).gauges(CLOCK) == {"a/temperature": 3.0, "c/temperature": 2.0}
    assert Logits(presets.lskd(temperature=1.5)).gauges(CLOCK) == {"temperature": 1.5}
    assert NoTerms().gauges(CLOCK) == {}

"""The Distiller in other people's loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillhouse.batches import Batch
from stillhouse.distiller import Distiller
from stillhouse.distributed import rank
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.objectives import presets
from stillhouse.types import Lesson, Term, Terms
from tiny import Net, batch

CUTS = 0, 3, 4, 8  # of eight rows, where those of each rank begin


def normed(width: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 5),
    )


def pair(n: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, 12, 12), torch.arange(n) % 5


def distiller(method: Any = None, **options: Any) -> Distiller:
    return Distiller(Net(4), Net(8), method or presets.kd(), **options)


# ----------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_formula() -> None:
    made, (images, labels) = distiller(presets.kd(temperature=3.0, weight=0.7)), pair()
    loss, terms = made((images, labels))
    student, teacher = made.student(images), made.teacher.network.model(images)
    label = 0.1 * F.cross_entropy(student, labels)
    kd = F.kl_div((student / 3).log_softmax(1), (teacher / 3).softmax(1), reduction="batchmean")
    torch.testing.assert_close(loss, label + 0.7 * 9 * kd)
    torch.testing.assert_close(terms["label"], label.detach())
    torch.testing.assert_close(terms["class/kd"], 0.7 * 9 * kd.detach())
    assert not any(value.requires_grad for value in terms.values())


def test_every_form_of_a_batch_is_the_same() -> None:
    made, (images, labels) = distiller().eval(), pair()
    keys = torch.arange(len(images))
    forms: list[Any] = [
        (images, labels),
        [images, labels],
        {"image": images, "label": labels},
        {"pixel_values": images, "labels": labels, "extra": 3},
        Batch(images, labels, keys, torch.zeros_like(keys)),
    ]
    losses = torch.stack([made(form)[0] for form in forms])
    assert (losses == losses[0]).all() and losses[0] > 0


def test_a_batch_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a batch must be \(images, target\), or a mapping"):
        distiller()({"label": pair()[1]})


class Output(NamedTuple):
    """What models of transformers give."""

    logits: Tensor
    hidden: Tensor


class Wordy(nn.Module):
    def __init__(self, inner: nn.Module, form: str) -> None:
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, pixel_values: Tensor) -> Any:
        from transformers.utils import ModelOutput

        logits = self.inner(pixel_values)
        match self.form:
            case "model output":
                return ModelOutput(logits=logits)
            case "named":
                return Output(logits, logits * 0)
            case "mapping":
                return {"logits": logits}
        return logits, logits * 0


@pytest.mark.parametrize("form", ["model output", "named", "mapping", "pair"])
def test_logits_are_found_in_what_a_network_gives(form: str) -> None:
    student, teacher, data = Net(4), Net(8), pair()
    plain = Distiller(student, teacher, presets.dist())(data)[0]
    wordy = Distiller(Wordy(student, form), Wordy(teacher, form), presets.dist())(data)[0]
    assert torch.equal(plain, wordy)


def test_several_methods_and_one_s_own() -> None:
    class Own(Method):
        def forward(self, lesson: Lesson) -> Terms:
            site = lesson.sites["class"]
            loss = (site.student - site.teacher).square().sum()
            return {"own": Term(loss, loss.new_tensor(8.0))}

    _, terms = distiller([presets.kd(), presets.dist()])(pair())
    assert set(terms) == {"label", "kd/class/kd", "dist/class/inter", "dist/class/intra"}
    assert set(distiller(Own())(pair())[1]) == {"label", "own"}


def test_a_feature_method_needs_to_see_shapes() -> None:
    method = presets.cwd(pairs=(("body", "body"),))
    with pytest.raises(
        UserError, match=r"needs the shapes of features: pass Distiller\(..., example=im"
    ):
        distiller(method)
    made = distiller(method, example=pair(2)[0])
    before = len(list(made.student.parameters()))
    assert len(list(made.parameters())) > before  # the adapter learns, too
    loss, terms = made(pair())
    loss.backward()
    assert set(terms) == {"label", "body/cwd"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_a_task_that_there_is_not() -> None:
    with pytest.raises(UserError, match=r"unknown task 'clasification'; did you mean 'classific"):
        distiller(task="clasification")


def test_warming_up_follows_the_steps_of_training() -> None:
    made = distiller(presets.kd(warmup=2.0), steps=4, steps_per_epoch=2)
    data, seen = pair(), []
    for _ in range(4):
        terms = made(data)[1]
        seen.append(float(terms["class/kd"]))
    assert seen[0] == seen[1] and seen[2] == seen[3] == pytest.approx(2 * seen[0])
    made.eval()
    made(data)
    assert made.step == 4  # measuring is no step


# -------------------------------------------------------------------------------------- the teacher


def test_the_teacher_is_nowhere_and_never_moves() -> None:
    teacher = normed(8).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    made = Distiller(normed(4), teacher, presets.kd()).train()
    optimiser = torch.optim.SGD(made.parameters(), 0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        teacher.train()  # as a careless loop does
        made.train()
        made(pair())[0].backward()
        optimiser.step()
    assert not teacher.training
    after = teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in teacher.parameters())
    ours = {id(p) for p in made.parameters()} | {id(b) for b in made.buffers()}
    assert ours.isdisjoint({id(t) for t in (*teacher.parameters(), *teacher.buffers())})
    assert all(module is not teacher for module in made.modules())
    assert len(made.state_dict()) == len(made.student.state_dict())


def test_the_student_stays_the_bare_network() -> None:
    student = Net(4)
    made = Distiller(student, Net(8), presets.kd())
    assert made.student is student
    fresh = Net(4)
    fresh.load_state_dict(made.student.state_dict(), strict=True)


# ----------------------------------------------------------------------------- other people's loops


def learnable(n: int = 64) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 5
    return torch.randn(n, 3, 12, 12) + labels[:, None, None, None].float(), labels


def test_inside_a_bare_loop_it_learns() -> None:
    made, data = distiller(), learnable()
    optimiser = torch.optim.SGD(made.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss, _ = made(data)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def train_one_epoch(
    epoch: int, model: nn.Module, loader: Any, optimiser: Any, scheduler: Any, ema: Any
) -> float:
    """As timm's train.py has it."""
    model.train()
    total = 0.0
    for index, (images, target) in enumerate(loader):
        loss, _ = model((images, target))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        ema.update(model)
        scheduler.step_update(epoch * len(loader) + index)
        total += float(loss.detach())
    return total / len(loader)


def test_inside_a_loop_of_timm() -> None:
    import timm.optim  # here, as the ranks below import this file
    import timm.scheduler
    from timm.utils import ModelEmaV3

    images, labels = learnable()
    loader = list(zip(images.split(16), labels.split(16), strict=True))
    teacher = normed(8)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    method = [presets.kd(), presets.mimic(pairs=(("body", "0"),))]
    model = Distiller(Net(4), teacher, method, example=images[:2])
    optimiser = timm.optim.create_optimizer_v2(model, opt="adamw", lr=0.02, weight_decay=0.05)
    scheduler, epochs = timm.scheduler.create_scheduler_v2(
        optimiser, sched="cosine", num_epochs=4, warmup_epochs=1, updates_per_epoch=len(loader)
    )
    ema = ModelEmaV3(model, decay=0.5)
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert held.isdisjoint({id(p) for p in teacher.parameters()})
    losses = []
    for epoch in range(epochs):
        losses.append(train_one_epoch(epoch, model, loader, optimiser, scheduler, ema))
        scheduler.step(epoch + 1)
    assert losses[-1] < losses[0]
    after = teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.student.state_dict().keys() == Net(4).state_dict().keys()
    assert ema.module.student.state_dict().keys() == Net(4).state_dict().keys()


class Images(torch.utils.data.Dataset):
    """Dict samples, as data sets of Hugging Face have them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        made = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 12, 12, generator=made), "labels": index % 5}


def test_inside_the_trainer_of_hugging_face(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import Trainer, TrainingArguments

    terms: list[dict[str, Tensor]] = []

    class Distilling(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any):
            loss, said = model(inputs)
            terms.append(said)
            return (loss, said) if return_outputs else loss

    teacher, student = normed(8), Net(4)
    before = [value.clone() for value in teacher.state_dict().values()]
    first = student.head.weight.detach().clone()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        push_to_hub=False,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
        learning_rate=0.01,
    )
    model = Distiller(student, teacher, presets.dkd())
    trainer = Distilling(model=model, args=arguments, train_dataset=Images())
    result = trainer.train()
    assert result.global_step == 2 and 0 < result.training_loss < 100
    assert len(terms) == 2 and {"label", "class/target", "class/rest"} == set(terms[0])
    assert not torch.equal(first, student.head.weight)
    after = list(teacher.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -------------------------------------------------------------------------------------- three ranks


def ddp_parts() -> tuple[Distiller, Batch]:
    torch.manual_seed(0)
    student, teacher, rows = Net(4).double(), Net(8).double(), batch(8)
    methods = [
        presets.dist(temperature=2.0),
        presets.pkd(pairs=(("stem", "stem"),), adapter="pointwise"),
    ]
    made = Distiller(student, teacher, methods, example=rows.images[:2].float().double())
    return made.double(), rows


def on_each_rank() -> dict[str, Any]:
    made, rows = ddp_parts()
    wrapped = DistributedDataParallel(made)
    loss, _ = wrapped(rows.rows(slice(CUTS[rank()], CUTS[rank() + 1])))
    loss.backward()
    return {name: p.grad for name, p in made.named_parameters()}


def test_under_ddp_gradients_are_those_of_the_whole_batch(ranks: list[dict[str, Any]]) -> None:
    """Ragged rows, 3, 1 and 4, and a loss that relates all of them."""
    made, rows = ddp_parts()
    made(rows)[0].backward()
    for theirs in ranks:
        assert len(theirs) == len(list(made.parameters()))
        for name, parameter in made.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0
            torch.testing.assert_close(theirs[name], parameter.grad, rtol=1e-9, atol=1e-10)


def test_methods_are_found_by_name() -> None:
    losses = []
    for method in (presets.dist(), "dist"):
        torch.manual_seed(0)
        losses.append(distiller(method)(pair())[0])
    torch.testing.assert_close(*losses)
    terms = distiller(["kd", presets.mse()])(pair())[1]
    assert {term.partition("/")[0] for term in terms} == {"label", "kd", "mse"}
    with pytest.raises(UserError, match=r"unknown method 'dits'; did you mean 'dist'"):
        distiller(["kd", "dits"])


def test_a_schedule_in_epochs_needs_their_length() -> None:
    for method in (presets.kd(warmup=20.0), presets.lskd(base=presets.kd(warmup=2.0))):
        with pytest.raises(UserError, match="the warmup of .* steps_per_epoch=len"):
            distiller(method)
    assert distiller(presets.kd(warmup=20.0), steps_per_epoch=3).steps_per_epoch == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda labels: labels + 100, r"labels go from 100 to 104, but the student has 5 classes"),
        (lambda labels: labels - 50, "number them from 0 to"),
        (lambda labels: labels.float(), "labels of dtype torch.float32"),
        (lambda labels: labels[:-1], "do not fit scores of shape"),
        (lambda labels: torch.ones(len(labels), 99), "do not fit scores of shape"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(change: Any, sentence: str) -> None:
    images, labels = pair()
    with pytest.raises(UserError, match=sentence):
        distiller("kd")((images, change(labels)))

"""The loop does what a plain loop does, and stops as it says."""

import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engine.parts import Fixed, make_run
from stillhouse import distributed
from stillhouse.batches import Batch
from stillhouse.engine import records, state
from stillhouse.engine.average import WeightEMA
from stillhouse.engine.checkpoints import load_checkpoint
from stillhouse.engine.interrupt import Stopped
from stillhouse.engine.train import train
from stillhouse.engine.watch import NonFiniteLoss, Watch
from stillhouse.errors import UserError
from stillhouse.tasks.classification import Classification
from stillhouse.types import Term, Terms, Trace


def weights(run) -> list[torch.Tensor]:
    return [p.detach().clone() for p in run.student.parameters()]


def test_the_loop_equals_a_plain_loop_with_the_formula_written_out() -> None:
    run, plain = make_run(steps=8), make_run(steps=8)
    train(run)
    torch.manual_seed(4)
    student, teacher = plain.student.train(), plain.teacher.network.model
    optimiser = torch.optim.SGD(student.parameters(), 0.05, 0.9)
    done = 0
    for epoch in range(2):
        for batch in Fixed().epoch(epoch):
            if done == 8:
                break
            z = student(batch.images)
            with torch.no_grad():
                t = teacher(batch.images)
            kd = F.kl_div((z / 2).log_softmax(1), (t / 2).softmax(1), reduction="batchmean") * 4
            loss = 0.1 * F.cross_entropy(z, batch.target) + kd
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += 1
    for ours, theirs in zip(weights(run), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_accumulating_equal_parts_equals_the_whole_batch() -> None:
    halves, whole = make_run(loader=Halves(), accumulate=2, steps=4), make_run(steps=4)
    for run in (halves, whole):
        run.student.forward = super(type(run.student), run.student).forward  # no dropout
        train(run)
    for ours, theirs in zip(weights(halves), weights(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


class Halves(Fixed):
    """The batches of Fixed, each in two equal parts."""

    def __len__(self) -> int:
        return 2 * self.steps

    def epoch(self, index, start=0):
        parts = (
            batch.rows(slice(half, half + 3)) for batch in super().epoch(index) for half in (0, 3)
        )
        for position, part in enumerate(parts):
            if position >= start:
                yield part


def test_clipping_bounds_the_step() -> None:
    run = make_run(steps=1, clip=1e-3)
    before = weights(run)
    train(run)
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(run), before, strict=True)]).norm()
    assert moved == pytest.approx(0.05 * 1e-3, rel=1e-2)


def test_every_term_is_recorded_with_weight_rate_and_speed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    run.records.close()
    lines = records.read_records(tmp_path)
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == [4, 8, 12]
    assert {"term/label", "term/class/kd", "weight/label", "rate/student"} <= trained[0].keys()
    first = trained[0]
    total = first["weight/label"] * first["term/label"] + first["term/class/kd"]
    assert first["loss"] == pytest.approx(total, rel=1e-5) and first["images_per_second"] > 0
    measured = [line for line in lines if line["kind"] == "evaluate"]
    assert [line["step"] for line in measured] == [5, 10, 12]


@pytest.mark.parametrize("stop", [1, 4, 7, 11])
def test_resuming_in_mid_epoch_is_bit_for_bit(tmp_path: Path, stop: int) -> None:
    undisturbed = tmp_path / "whole"
    undisturbed.mkdir()
    whole = make_run(undisturbed)
    train(whole)
    whole.records.close()
    part = make_run(tmp_path, save_every=stop, steps=stop)
    train(part)
    part.records.close()
    torch.rand(17)  # whatever a new process has drawn by now
    resumed = make_run(tmp_path)
    assert state.resume_run(resumed) and resumed.start == stop
    train(resumed)
    resumed.records.close()
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_resuming_takes_up_the_average_and_the_momentum(tmp_path: Path) -> None:
    def averaged(folder: Path):
        run = make_run(folder, save_every=6)
        run.average = WeightEMA(run.student, 0.9)
        return run

    whole_folder = tmp_path / "whole"
    whole_folder.mkdir()
    whole = averaged(whole_folder)
    train(whole)
    first = averaged(tmp_path)
    first.steps = 6
    train(first)
    first.records.close()
    second = averaged(tmp_path)
    state.resume_run(second)
    train(second)
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name])
    momentum = [run.groups["student"].optimiser.state_dict()["state"] for run in (whole, second)]
    for index in momentum[0]:
        assert torch.equal(
            momentum[0][index]["momentum_buffer"], momentum[1][index]["momentum_buffer"]
        )


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, save_every=2, steps=2)
    train(run)
    run.records.close()
    other = make_run(tmp_path)
    other.recipe_hash = "another"
    with pytest.raises(Exception, match="another recipe"):
        state.resume_run(other)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_stops_names_the_term_and_keeps_the_batch(
    tmp_path: Path, accumulate: int
) -> None:
    run = make_run(tmp_path, Fixed(6, poison=(0, 3)), accumulate=accumulate, log_every=50)

    with pytest.raises(NonFiniteLoss, match=r"label, class/kd.*nonfinite.pt") as caught:
        train(run)
    step = 3 // accumulate
    assert f"step {step}" in str(caught.value)
    kept = load_checkpoint(tmp_path / "nonfinite.pt")
    assert kept["step"] == step and len(kept["batches"]) == accumulate
    assert any(part["images"].isnan().any() for part in kept["batches"])
    assert all(w.isfinite().all() for w in weights(run))  # no poisoned step was taken


def record(watch: Watch, step: int, **terms: Term) -> None:
    """Show a watch the terms of a step as they are on a device that is not asked at each step."""
    parts = torch.stack([term.weight * term.mean() for term in terms.values()])
    watch.record(terms, parts, step)


def test_a_watch_that_is_asked_late_still_knows_the_first_bad_step_and_term() -> None:
    watch = Watch()
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step, (a, b) in enumerate([(good, good), (good, bad), (bad, bad), (good, good)]):
        record(watch, step, a=Term(a, good), b=Term(b, good))
    assert watch.failure() == (1, ["b"], [])


def test_a_watch_tells_a_term_without_mass_from_one_that_is_not_finite() -> None:
    watch = Watch()
    good, none, bad = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(float("nan"))
    record(watch, 0, a=Term(good, good), b=Term(good, good), c=Term(good, good))
    record(watch, 1, a=Term(good, none), b=Term(bad, good), c=Term(good, good))
    record(watch, 2, a=Term(bad, good), b=Term(bad, good), c=Term(bad, good))
    assert watch.failure() == (1, ["a", "b"], ["a"])


def test_a_watch_over_finite_terms_and_empty_sets_says_nothing() -> None:
    watch = Watch()
    assert watch.failure() is None
    record(watch, 0, empty=Term(torch.tensor(0.0), torch.tensor(0.0)))
    assert watch.failure() is None


def test_a_total_without_mass_stops_the_run_and_names_the_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Massless(Classification):
        def supervise(self, student: Trace, batch: Batch, assigned: object = None) -> Terms:
            terms = super().supervise(student, batch, assigned)
            return {name: term._replace(mass=term.mass * 0) for name, term in terms.items()}

    run = make_run(tmp_path)
    run.bare_pupil.task = Massless()
    with pytest.raises(UserError, match="term 'label' has a total of .* but no mass"):
        train(run)

    # as on a GPU, where the loss itself is not looked at
    monkeypatch.setattr(distributed, "_refuse_without_mass", lambda terms, mass: None)
    with pytest.raises(
        NonFiniteLoss, match="at step 0 the total of label has no mass; its batch is"
    ):
        train(run)


def test_an_interrupt_ends_after_a_whole_step_and_saves(tmp_path: Path) -> None:
    run = make_run(tmp_path, Interrupting(at=7))
    before = signal.getsignal(signal.SIGINT)  # in a background job it is another than by default
    with pytest.raises(Stopped):
        train(run)
    assert load_checkpoint(tmp_path / "state.pt")["step"] == run.start == 8
    assert signal.getsignal(signal.SIGINT) is before


class Interrupting(Fixed):
    """Presses Ctrl-C while a batch is being made."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def epoch(self, index, start=0):
        for step, batch in enumerate(super().epoch(index, start), start):
            if index * self.steps + step == self.at:
                signal.raise_signal(signal.SIGINT)
            yield batch


def test_a_second_interrupt_is_not_held_back(tmp_path: Path) -> None:
    class Twice(Interrupting):
        def epoch(self, index, start=0):
            for batch in super().epoch(index, start):
                if index * self.steps >= self.at:
                    signal.raise_signal(signal.SIGINT)
                yield batch

    run = make_run(tmp_path, Twice(at=5))
    with pytest.raises(KeyboardInterrupt):
        train(run)


def test_the_validation_uses_the_average_and_leaves_the_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=5)
    run.average = WeightEMA(run.student, 0.5)
    train(run)
    raw = weights(run)
    with state.averaged_weights(run):
        assert not torch.equal(weights(run)[0], raw[0])
    for before, after in zip(raw, weights(run), strict=True):
        assert torch.equal(before, after)
    assert run.history[-1]["step"] == 5 and 0 <= run.history[-1]["top1"] <= 100


def test_a_pause_ends_after_its_step_and_the_rest_is_as_if_there_were_none(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "paused").mkdir()
    whole = make_run(tmp_path / "whole")
    train(whole)
    run = make_run(tmp_path / "paused", pause=7)
    train(run)
    assert run.start == 7 and len(run.history) == 1
    train(run)  # nothing is left before the pause
    assert run.start == 7
    run.pause = 100  # beyond the end
    train(run)
    assert run.start == 12
    for a, b in zip(whole.student.parameters(), run.student.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_a_method_gauges_is_recorded(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    train(run)
    lines = [line for line in records.read_records(tmp_path) if line["kind"] == "train"]
    assert lines and all(line["gauge/temperature"] == 2.0 for line in lines)

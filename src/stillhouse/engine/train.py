"""The training loop."""

from __future__ import annotations

from time import perf_counter

from torch import nn

from stillhouse.distributed import average_gradients, mean_terms, rank, weighted_means
from stillhouse.engine import schedules, state
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.interrupt import Interrupt, Stopped
from stillhouse.engine.run import Run
from stillhouse.engine.watch import Watch
from stillhouse.types import Clock, Terms


def train(run: Run) -> None:
    """Train from step `run.start` to the end or `run.pause`; raises Stopped on an interrupt."""
    batches, watch, timer = run.batches(), Watch(), Timer()
    run.progress.start(run.start)
    with Interrupt() as interrupt:
        last = run.steps if run.pause is None else min(run.steps, run.pause)
        for step in range(run.start, last):
            clock = Clock(step, run.steps, run.steps_per_epoch)
            set_rates(run, clock)
            run.pupil.train()
            for left in reversed(range(run.accumulate)):
                batch = next(batches)
                with run.hardware.no_sync(run.pupil, left > 0):
                    with run.hardware.autocast():
                        terms: Terms = run.pupil(batch, run.observe(batch), clock)
                    parts = weighted_means(terms)
                    loss = parts.sum() / run.accumulate
                    run.hardware.scaler.scale(loss).backward()
                watch.record(terms, parts, step)
                timer.count(len(batch))
            if run.hardware.device.type == "cpu" or clock.every(run.log_every):
                state.refuse_nonfinite(run, watch)
            update(run, clock)
            run.start = step + 1
            run.progress.update(run.start, {"loss": loss.detach() * run.accumulate})
            if clock.every(run.log_every):
                log(run, clock, terms, timer)
            if clock.every(run.evaluate_every):
                run_validation(run, clock)
                timer.restart()
            stop = interrupt.requested_on_any_rank(run.hardware.device) and run.start < run.steps
            if clock.every(run.save_every) or stop:
                state.refuse_nonfinite(run, watch)  # a run cannot be resumed from NaN
                state.save_run(run)
            if stop:
                raise Stopped
        state.refuse_nonfinite(run, watch)


def set_rates(run: Run, clock: Clock) -> None:
    """Set the learning rates of all optimisers for this step."""
    for group in run.groups.values():
        steps = clock.steps if run.schedule_steps is None else run.schedule_steps
        factor = group.schedule.factor(clock.step, steps, clock.steps_per_epoch)
        schedules.set_learning_rates(group.optimiser, group.rates, factor)


def update(run: Run, clock: Clock) -> None:
    """Step all optimisers, then update the average of weights."""
    scaler = run.hardware.scaler
    for parameters in run.teacher.groups().values():
        average_gradients(parameters)
    for group in run.groups.values():
        scaler.unscale_(group.optimiser)
    if run.clip:
        nn.utils.clip_grad_norm_(run.pupil.parameters(), run.clip)
    for group in run.groups.values():
        scaler.step(group.optimiser)
        group.optimiser.zero_grad(set_to_none=True)
    scaler.update()
    if run.average:
        run.average.update(run.student, clock.step)


def log(run: Run, clock: Clock, terms: Terms, timer: Timer) -> None:
    """Record the value and weight of each term, the learning rates and the speed."""
    values = {name: float(value) for name, value in mean_terms(terms).items()}
    if rank() == 0 and run.records:
        line = {f"term/{name}": value for name, value in values.items()}
        line |= {f"weight/{name}": term.weight for name, term in terms.items()}
        gauges = run.bare_pupil.method.gauges(clock)
        line |= {f"gauge/{name}": value for name, value in gauges.items()}
        line |= {"loss": sum(terms[name].weight * value for name, value in values.items())}
        line |= {
            f"rate/{name}": schedules.learning_rates(group.optimiser)[0]
            for name, group in run.groups.items()
        }
        line["images_per_second"] = timer.rate()
        run.records.write("train", run.start, clock.epoch, line)


def run_validation(run: Run, clock: Clock) -> None:
    """Evaluate the student on the validation split, with averaged weights if any, and record it."""
    if run.validation is None:
        return
    with state.averaged_weights(run):
        network = run.bare_pupil.student.eval()
        summary = dict(evaluate(run.task, network, run.validation(), run.hardware, "student"))
    if run.trained_teacher is not None:  # its accuracy may drop
        teacher = evaluate(run.task, run.trained_teacher, run.validation(), run.hardware, "teacher")
        summary[f"teacher_{run.task.headline}"] = teacher[run.task.headline]
    run.history.append({"step": float(run.start), **summary})
    if rank() == 0 and run.records:
        run.records.write("evaluate", run.start, clock.epoch, summary)
    headline = run.task.headline
    run.progress.note(f"epoch {clock.epoch}: {headline} {summary[headline]:.2f} on validation")


class Timer:
    """Measures the images per second since the last reading."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start to count at 0."""
        self._images, self._since = 0, perf_counter()

    def count(self, images: int) -> None:
        """Add the images of one micro-batch."""
        self._images += images

    def rate(self) -> float:
        """The images per second since the last reading or restart."""
        seconds = perf_counter() - self._since
        images = self._images
        self.restart()
        return images / seconds if seconds > 0 else 0.0

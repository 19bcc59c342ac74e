"""Training, on one screen."""

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
    """Take the run from where it stands to its end, or to the step at which it is asked to stop."""
    batches, watch, timer = run.batches(), Watch(), Timer()
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
                validate(run, clock)
                timer.restart()
            stop = interrupt.requested_on_any_rank(run.hardware.device) and run.start < run.steps
            if clock.every(run.save_every) or stop:
                state.save(run)
            if stop:
                raise Stopped


def set_rates(run: Run, clock: Clock) -> None:
    """Give every optimiser its rate at this time."""
    for group in run.groups.values():
        course = clock.steps if run.course is None else run.course
        factor = group.schedule.factor(clock.step, course, clock.steps_per_epoch)
        schedules.set_learning_rates(group.optimiser, group.rates, factor)


def update(run: Run, clock: Clock) -> None:
    """Step every optimiser, then the average."""
    scaler = run.hardware.scaler
    for moving in run.teacher.groups().values():
        average_gradients(moving)
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
    """Write every term apart with its weight, the rates and the speed."""
    values = {name: float(value) for name, value in mean_terms(terms).items()}
    if rank() == 0 and run.records:
        line = {f"term/{name}": value for name, value in values.items()}
        line |= {f"weight/{name}": term.weight for name, term in terms.items()}
        gauges = run.inside.method.gauges(clock)
        line |= {f"gauge/{name}": value for name, value in gauges.items()}
        line |= {"loss": sum(terms[name].weight * value for name, value in values.items())}
        line |= {
            f"rate/{name}": schedules.learning_rates(group.optimiser)[0]
            for name, group in run.groups.items()
        }
        line["images_per_second"] = timer.rate()
        run.records.write("train", run.start, clock.epoch, line)


def validate(run: Run, clock: Clock) -> None:
    """Measure the student, averaged where there is an average, and write it down."""
    if run.validation is None:
        return
    with state.averaged(run):
        network = run.inside.student.eval()
        summary = dict(evaluate(run.task, network, run.validation(), run.hardware))
    if run.moved is not None:  # a teacher that learns may forget
        seen = evaluate(run.task, run.moved, run.validation(), run.hardware)
        summary[f"teacher_{run.task.headline}"] = seen[run.task.headline]
    run.history.append({"step": float(run.start), **summary})
    if rank() == 0 and run.records:
        run.records.write("evaluate", run.start, clock.epoch, summary)
    headline = run.task.headline
    run.progress.note(f"epoch {clock.epoch}: {headline} {summary[headline]:.2f} on validation")


class Timer:
    """Images a second since the last reading."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was counted."""
        self._images, self._since = 0, perf_counter()

    def count(self, images: int) -> None:
        """Add the images of one micro-batch."""
        self._images += images

    def rate(self) -> float:
        """Images a second, and start again."""
        seconds = perf_counter() - self._since
        images = self._images
        self.restart()
        return images / seconds if seconds > 0 else 0.0

"""The predictions of a run's student for the measured split, as a table beside its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stillhouse.build.networks import make_deployed
from stillhouse.build.session import Session
from stillhouse.data.source import Source, SourceSubset
from stillhouse.files import csv_text, write_text
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.prediction_files import PRESENT
from stillhouse.runs.training import STUDENT
from stillhouse.tasks.base import run_network

TABLE = "{split}_predictions.csv"  # of the split that scores are measured on
Describe = Callable[[Tensor, Tensor, Sequence[str]], dict[str, str]]


def keep_predictions(folder: Path, recipe: Recipe, session: Session) -> Path | None:
    """The table of predictions, written if it is not there or older than the weights.

    None for tasks that do not predict classes of whole images.
    """
    if recipe.task.name not in DESCRIBE:
        return None
    table = folder / TABLE.format(split=session.score_split)
    weights = folder / STUDENT
    if not table.is_file() or table.stat().st_mtime < weights.stat().st_mtime:
        rows = predict_measured(recipe, weights, session)
        write_text(table, csv_text(rows))
    return table


@torch.no_grad()
def predict_measured(recipe: Recipe, weights: Path, session: Session) -> list[dict[str, str]]:
    """One row per measured image: its index, path, labels, predictions and their scores."""
    network = make_deployed(recipe, session.sources, weights).to(session.hardware.device)
    traced, source, rows = session.traced(network), session.sources.measured, []
    describe = DESCRIBE[recipe.task.name]
    for batch in session.measured():
        with session.hardware.autocast():
            trace = run_network(session.task, traced, batch)
        scores = session.task.collect(trace).double().cpu()
        labels = session.task.collect_target(batch)
        for key, score, label in zip(batch.keys.tolist(), scores, labels, strict=True):
            place = {"index": str(key), "path": sample_path(source, key)}
            rows.append(place | describe(score, label, source.classes))
    return rows


def describe_class(logits: Tensor, label: Tensor, classes: Sequence[str]) -> dict[str, str]:
    """The label, the most probable class and its probability: (C,), ()."""
    score, best = logits.softmax(0).max(0)
    return {
        "label": classes[int(label)] if label >= 0 else "",
        "prediction": classes[int(best)],
        "score": f"{float(score):.6f}",
    }


def describe_classes(logits: Tensor, label: Tensor, classes: Sequence[str]) -> dict[str, str]:
    """The labels, the predicted classes and their probabilities, the highest first: (C,), (C,)."""
    scores, order = logits.sigmoid().sort(descending=True, stable=True)
    chosen = [(p, c) for p, c in zip(scores.tolist(), order.tolist(), strict=True) if p > PRESENT]
    return {
        "labels": ";".join(classes[c] for c in (label > 0).nonzero().flatten().tolist()),
        "predictions": ";".join(classes[c] for _, c in chosen),
        "scores": ";".join(f"{p:.6f}" for p, _ in chosen),
    }


DESCRIBE: Mapping[str, Describe] = {
    "classification": describe_class,
    "multilabel": describe_classes,
}  # by the name of the task in a recipe


def sample_path(source: Source, index: int) -> str:
    """The path of a sample, relative to its folder; empty for one that is not a file of its own."""
    if isinstance(source, SourceSubset):
        return sample_path(source.whole, int(source.indices[index]))
    paths = getattr(source, "paths", ())
    return str(paths[index]) if len(paths) == len(source) else ""

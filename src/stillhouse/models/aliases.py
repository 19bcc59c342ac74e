"""Names for the places of a network: those that it declares, and those found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.models import guesses
from stillhouse.models.guesses import NotSafe
from stillhouse.models.places import LAST, LOGITS, PENULTIMATE, Places, declared_places, is_stage
from stillhouse.models.pre_activation import before_relu
from stillhouse.models.recording import Call, Recording, first_tensor, record
from stillhouse.models.tap_path import INPUT, PRE, TapPath

EXAMPLES = ("stage1", LAST, PENULTIMATE, LOGITS)  # what most networks have, for hints
REMEDY = "name the path of a module, or declare the network's places (stillhouse.models.places)"

STAGE = "stage"  # what the names of stages begin with; in a table of doubts, all of them
Answer = str | NotSafe | None  # a path, why none is guessed, or nothing like it in the network


def find_aliases(model: nn.Module, *example: Any) -> dict[str, str]:
    """Aliases of a network: alias -> path, from one dry run that leaves it as it was.

    What the network declares (see `Places`) is taken as declared: its stages, of which the deepest
    is `last` too, its levels, and its classifier. The rest is guessed:

    `stage1` .. `stageK`: the modules of these names where the network has them. Else, for each
    resolution of the maps (N, C, H, W), in the order of execution, the outermost module there that
    finished last. Only modules with two linear layers or more count, so that neither a stem nor a
    pool is a stage. A network without such modules (VGG) gives its bare layers, one of tokens
    (N, T, C) its blocks, one of maps with channels last nothing.
    `last`: the deepest map of the last stage's resolution, which may lie behind that stage. Of a
    network that scores each place (see `read_segmentation`), and whose classifier is declared or a
    1x1 convolution at its end, it is the map that this reads, and `logits` what it returns.
    `penultimate`: the vector (N, C) that the classifier reads, as the module that returns it or,
    where a function does, as `PATH@input`. `logits`: the output itself. An alias that is the path
    of another module is left out, because a path always means that module.

    Nothing is guessed of a network with several outputs, no stages of one that upsamples, and
    nothing that would be a module that is called more than once.

    `stage1@pre` .. `stageK@pre`, `last@pre`: the map before the ReLU that ends the stage, for each
    that ends so (see `before_relu`).
    """
    return recorded_aliases(model, record(model, *example), *example)


def recorded_aliases(model: nn.Module, recording: Recording, *example: Any) -> dict[str, str]:
    """What `find_aliases` finds, from a dry run of the same example that was made before."""
    aliases = _survey(model, recording, example).aliases
    for alias, path in list(aliases.items()):
        if is_stage(alias) or alias == LAST:
            before = _before(recording.calls, path)
            if before is not None:
                aliases[alias + PRE] = before
    return aliases


def refusal(model: nn.Module, alias: str, *example: Any) -> str | None:
    """Why an alias is not guessed, as a sentence; None where it is known or simply missing."""
    survey = _survey(model, record(model, *example), example)
    return None if alias in survey.aliases else survey.refusal(model, alias)


def resolve_path(model: nn.Module, name: str, *example: Any) -> str:
    """The path that a path or an alias means; aliases that are guessed need an example batch."""
    return resolve_paths(model, [name], *example)[name]


def resolve_paths(model: nn.Module, names: Iterable[str], *example: Any) -> dict[str, str]:
    """The paths that names mean, each a path or an alias, from one dry run or none.

    `NAME@pre` may be asked of any path or alias. Raises UserError for a name that is neither, and
    for an alias that could only be guessed wrongly.
    """
    modules = {path for path, _ in model.named_modules()}
    names = list(names)
    paths = {name: name for name in names if TapPath.parse(name).module in modules}
    if len(paths) == len(set(names)):
        return paths
    recording = record(model, *example) if example else None
    survey = _survey(model, recording, example) if recording else _declared(model)
    for name in names:
        if name in paths:
            continue
        base = name.removesuffix(PRE)
        path = survey.aliases.get(base, base if base in modules else None)
        if path is None or (base != name and recording is None):
            reason = survey.refusal(model, base)
            raise UserError(reason or _unknown(model, name, modules, survey, bool(example)))
        if base != name and recording is not None:
            path = _pre_activation(model, recording, name, path)
        paths[name] = path
    return paths


class _Survey(NamedTuple):
    """The aliases of a network, and why others are not safe to guess."""

    aliases: dict[str, str]
    doubts: dict[str, str]  # a clause by alias, by STAGE for every stage

    def refusal(self, model: nn.Module, alias: str) -> str | None:
        doubt = self.doubts.get(STAGE if is_stage(alias) else alias)
        if doubt is None:
            return None
        return f"{type(model).__name__} {doubt}, so {alias!r} would be a guess; {REMEDY}"


def _declared(model: nn.Module) -> _Survey:
    """What is known without a dry run."""
    places = declared_places(model)
    aliases = _stage_aliases(places) | dict(places.levels)
    if isinstance(model.get_submodule(places.classifier or ""), nn.Conv2d):
        aliases.pop(LAST, None)  # only a run tells whether it scores each place
    return _Survey(aliases if places != Places() else {LOGITS: ""}, {})


def _stage_aliases(places: Places) -> dict[str, str]:
    """The declared stages in order, and the deepest of them as `last`."""
    numbers = sorted(places.stages, key=lambda name: int(name.removeprefix("stage")))
    aliases = {name: places.stages[name] for name in numbers}
    return aliases | {LAST: aliases[numbers[-1]]} if numbers else {}


def _survey(model: nn.Module, recording: Recording, example: Sequence[Any]) -> _Survey:
    places = declared_places(model)
    answers: dict[str, Answer] = {
        **(_stage_aliases(places) or _guess_stages(model, recording, _image_size(example))),
        PENULTIMATE: _answer(_vector, recording, places),
        LOGITS: _answer(_logits, recording, places),
        **_map_answers(recording, places),
        **places.levels,
    }
    modules = {path for path, _ in model.named_modules()}
    aliases = {
        alias: path
        for alias, path in answers.items()
        if isinstance(path, str) and (alias not in modules or alias == path)
    }
    doubts = {alias: str(doubt) for alias, doubt in answers.items() if isinstance(doubt, NotSafe)}
    return _Survey(aliases, doubts)


def _answer(guess: Callable[..., str | None], *arguments: Any) -> Answer:
    try:
        return guess(*arguments)
    except NotSafe as doubt:
        return doubt


def _guess_stages(
    model: nn.Module, recording: Recording, size: tuple[int, int] | None
) -> dict[str, Answer]:
    maps = guesses.map_calls(recording.calls, size)
    try:
        guesses.check_single_output(recording)
        guesses.check_encoder(recording, maps)
        stages = guesses.guess_stages(model, recording, maps)
    except NotSafe as doubt:
        return {STAGE: doubt, LAST: doubt}
    last = _answer(guesses.guess_last, recording, maps, stages)
    return {**{f"{STAGE}{number}": path for number, path in enumerate(stages, 1)}, LAST: last}


def _vector(recording: Recording, places: Places) -> str | None:
    """Where the vector is that the classifier reads."""
    if places.classifier is not None:
        return guesses.vector_before(recording, places.classifier)
    guesses.check_single_output(recording)
    classifier = guesses.guess_classifier(recording)
    return None if classifier is None else guesses.vector_before(recording, classifier)


def _logits(recording: Recording, places: Places) -> str:
    """The output, or that of the declared classifier where the network has several outputs."""
    try:
        guesses.check_single_output(recording)
    except NotSafe:
        if places.classifier is None:
            raise
        guesses.check_single_run(recording, places.classifier)
        return places.classifier
    return ""


def _map_answers(recording: Recording, places: Places) -> dict[str, Answer]:
    """`last` and `logits` of a network that scores each place, where its classifier is known."""
    classifier = _answer(guesses.map_classifier, recording, places.classifier)
    if isinstance(classifier, str):
        return {LAST: f"{classifier}{INPUT}", LOGITS: classifier}
    return {} if classifier is None else {LAST: classifier, LOGITS: classifier}


def _image_size(example: Iterable[Any]) -> tuple[int, int] | None:
    image = first_tensor(list(example))
    return None if image is None or image.ndim < 3 else (image.shape[-2], image.shape[-1])


def _before(calls: Sequence[Call], path: str) -> str | None:
    """The map before the ReLU of a tap; None for an input or one of several calls."""
    tap = TapPath.parse(path)
    return None if tap.is_input or tap.call is not None else before_relu(calls, tap.module)


def _pre_activation(model: nn.Module, recording: Recording, name: str, path: str) -> str:
    """The map before the ReLU that ends a place; raises UserError where there is none."""
    try:
        guesses.check_single_run(recording, TapPath.parse(path).module)
    except NotSafe as doubt:
        raise UserError(
            f"{type(model).__name__} {doubt}, so {quote(name)} could be before any of them; tap "
            "the input of its ReLU by its path and the number of the call, as in 'relu@input@0'"
        ) from None
    before = _before(recording.calls, path)
    if before is None:
        raise UserError(
            f"{type(model).__name__} has no {quote(name)}, because {path or 'its output'!r} "
            "neither ends with the module of a ReLU nor is read by a BatchNorm; tap a place "
            f"that does, or {name.removesuffix(PRE)!r} as it is"
        )
    return before


def _unknown(
    model: nn.Module, name: str, modules: Collection[str], survey: _Survey, has_example: bool
) -> str:
    paths = sorted((path for path in modules if path), key=lambda path: (path.count("."), path))
    word = TapPath.parse(name.removesuffix(PRE)).module
    known = survey.aliases if has_example else (*survey.aliases, *EXAMPLES)
    hint = did_you_mean(word, [*known, *paths])
    remedy = "" if has_example else ", and an alias such as 'stage1' needs an example batch"
    return f"{type(model).__name__} has no module or alias {quote(name)}{remedy}{hint}"

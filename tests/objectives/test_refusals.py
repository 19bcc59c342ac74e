"""Points that make no sense are refused when they are built, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from points import stages
from pydantic import TypeAdapter, ValidationError

from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.objectives.activation import (
    PartialSoftmax,
    Probabilities,
    Raw,
    RestSoftmax,
    Sigmoid,
    Softmax,
    TargetVsRest,
)
from stillhouse.objectives.distance import KL, Cosine, CrossEntropy, MeanSquaredError, Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import LabelTemperature, Scale, Standardize
from stillhouse.objectives.presets import FeaturePresetSpec, LogitPresetSpec
from stillhouse.objectives.reduction import PerObject
from stillhouse.objectives.weighting import Disagreement, PowerSum, TeacherConfidence
from stillhouse.spec import members
from stillhouse.types import Site
from tiny import site

pytestmark = pytest.mark.filterwarnings("ignore:standardize makes each class depend")
RECIPE = TypeAdapter(LogitObjective)
LOGIT_PRESET, FEATURE_PRESET = TypeAdapter(LogitPresetSpec), TypeAdapter(FeaturePresetSpec)


# --------------------------------------------------------------------------------- pairs that clash


def test_a_distance_refuses_values_of_the_other_kind() -> None:
    refused = 0
    for activation in stages("activation"):
        for distance in stages("distance"):
            if activation.space == distance.accepts:
                continue
            reason = (
                f"{distance.kind} compares {distance.accepts} values, "
                f"{activation.kind} gives {activation.space} values"
            )
            with pytest.raises(ValueError, match=reason):
                LogitObjective(activation=activation, distance=distance)
            refused += 1
    assert refused == 6 * 6 + 7 * 4


def test_classes_are_weighed_only_where_they_are_apart() -> None:
    for activation in stages("activation"):
        distance = KL() if activation.space == "log_prob" else MeanSquaredError()
        if isinstance(activation, Sigmoid):
            LogitObjective(activation=activation, distance=distance, weighting=Disagreement())
            continue
        reason = f"disagreement weights single classes, but {activation.kind} with {distance.kind}"
        with pytest.raises(ValueError, match=reason):
            LogitObjective(activation=activation, distance=distance, weighting=Disagreement())


@pytest.mark.parametrize("weighting", [TeacherConfidence(), PowerSum()])
def test_a_relation_has_no_rows_to_weigh(weighting: Any) -> None:
    reason = f"probabilities along the batch has no rows for {weighting.kind}"
    with pytest.raises(ValueError, match=reason):
        LogitObjective(
            activation=Probabilities(across="batch"), distance=Pearson(), weighting=weighting
        )


def test_a_relation_is_not_divided_by_objects() -> None:
    reason = (
        "raw along the batch has one row per class, but per_object divides by the number of objects"
    )
    with pytest.raises(ValueError, match=reason):
        LogitObjective(activation=Raw(across="batch"), distance=Cosine(), reduction=PerObject())


# ----------------------------------------------------------------------- options out of their range


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("stage", "option"),
    [
        (Softmax, "temperature"),
        (Sigmoid, "temperature"),
        (TargetVsRest, "temperature"),
        (RestSoftmax, "temperature"),
        (PartialSoftmax, "temperature"),
        (Raw, "temperature"),
        (Standardize, "eps"),
        (Scale, "factor"),
        (LabelTemperature, "labelled"),
        (LabelTemperature, "others"),
        (Pearson, "eps"),
        (Cosine, "eps"),
        (PowerSum, "gamma"),
    ],
)
def test_an_option_that_must_be_positive_is(stage: type, option: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=f"`{option}` must be positive and finite, got {wrong}"):
        stage(**{option: wrong})


def test_no_activation_takes_a_temperature_of_zero() -> None:
    for activation in stages("activation"):
        with pytest.raises(ValueError, match="`temperature` must be positive"):
            type(activation)(temperature=0.0)


@pytest.mark.parametrize("beta", [-0.5, float("nan")])
def test_disagreement_has_no_negative_power(beta: float) -> None:
    with pytest.raises(ValueError, match="`beta` must be non-negative, got"):
        Disagreement(beta=beta)


def test_a_warm_up_is_not_negative() -> None:
    with pytest.raises(ValueError, match="`warmup` must be non-negative, got -1"):
        presets.kd(warmup=-1)


def test_a_feature_preset_names_at_least_one_pair() -> None:
    with pytest.raises(ValueError, match="`pairs` must name at least one"):
        presets.cwd(pairs=())


@pytest.mark.parametrize(
    "preset",
    [presets.kd, presets.lskd, presets.dkd, presets.dist, presets.tld, presets.tld_dist],
)
def test_a_preset_refuses_a_temperature_of_zero_when_it_is_built(preset: Any) -> None:
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        preset(temperature=0.0)


# -------------------------------------------------------------------------------------- in a recipe


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ({"activation": {"kind": "softmax", "temprature": 2}}, "temprature"),
        ({"distance": {"kind": "kll"}}, "'kl', 'reverse_kl'"),
        ({"activation": {"kind": "probabilities"}}, "kl compares log_prob values"),
        (
            {"activation": {"kind": "softmax", "temperature": 0}},
            "`temperature` must be positive",
        ),
        ({"preprocess": {"kind": "standardize", "ddof": 2}}, "Input should be 0 or 1"),
        ({"reduction": {"kind": "mean", "inner": "max"}}, "'sum' or 'mean'"),
        ({"distance": {"kind": "pearson", "mode": "none"}}, "'clamp' or 'add'"),
        ({"activation": {"kind": "raw", "across": "class"}}, "'row' or 'batch'"),
        ({"kappa": "cube"}, "'auto', 'square' or 'none'"),
        ({"weighting": {"kind": "disagreement"}}, "weights single classes"),
        ({"wieght": 2.0}, "wieght"),
    ],
)
def test_a_wrong_recipe_says_why(recipe: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        RECIPE.validate_python(recipe)


def test_every_preset_can_be_said_in_a_recipe() -> None:
    for adapter, union in ((LOGIT_PRESET, LogitPresetSpec), (FEATURE_PRESET, FeaturePresetSpec)):
        for preset in members(union):
            plain = preset()
            assert adapter.validate_json(adapter.dump_json(plain)) == plain
            assert adapter.validate_python({"name": plain.name}) == plain
            with pytest.raises(ValidationError, match="nonsense"):
                adapter.validate_python({"name": plain.name, "nonsense": 1})


def test_the_catalogue_is_the_unions_and_every_member_has_a_card() -> None:
    known = presets.catalogue()
    assert set(known.values()) == set(members(LogitPresetSpec) + members(FeaturePresetSpec))
    for name, preset in known.items():
        assert preset().name == name
        assert all(preset.card[:3])
        assert all(preset.card[4:])


@pytest.mark.parametrize("base", ["kd", "ttm", "wttm", "ats", "dkd", "dist"])
def test_a_recipe_names_the_base_of_lskd_in_short(base: str) -> None:
    lskd = LOGIT_PRESET.validate_python({"name": "lskd", "base": base})
    assert lskd.base == presets.catalogue()[base]()


def test_lskd_takes_no_sigmoid_loss() -> None:
    with pytest.raises(ValidationError, match="'kd', 'ttm'"):
        LOGIT_PRESET.validate_python({"name": "lskd", "base": "tld"})


# ---------------------------------------------------------------------------- sites that do not fit


def test_a_sum_by_objects_needs_to_know_how_many() -> None:
    with pytest.raises(ValueError, match="per_object divides by the site's mass, but the site"):
        LogitObjective(reduction=PerObject())(site())


@pytest.mark.parametrize(
    "point",
    [
        LogitObjective(activation=TargetVsRest()),
        LogitObjective(activation=RestSoftmax()),
        LogitObjective(activation=PartialSoftmax()),
        LogitObjective(activation=PartialSoftmax(), distance=CrossEntropy()),
        LogitObjective(preprocess=LabelTemperature()),
    ],
)
def test_what_needs_labels_says_so(point: LogitObjective) -> None:
    with pytest.raises(ValueError, match=r"needs labels, but the site has none"):
        point(site(target=None))


def test_one_class_a_row_may_be_an_index_or_one_hot_and_nothing_else() -> None:
    at = site(n=3, c=4, target=torch.tensor([0, 2, 3]))
    hot = torch.eye(4)[at.target]
    loss = presets.dkd()(at.student, at.teacher, at.target)
    torch.testing.assert_close(presets.dkd()(at.student, at.teacher, hot), loss)
    mixed = 0.7 * hot + 0.3 * hot.flip(0)
    for wrong in (mixed, hot + hot.roll(1, 1), torch.zeros(3, 4), at.target.double()):
        with pytest.raises(ValueError, match="needs one class per row, as an index or one-hot"):
            presets.dkd()(at.student, at.teacher, wrong)


def test_a_row_without_a_label_is_refused() -> None:
    at = site(n=3, c=4, target=torch.tensor([0, -1, 3]))
    with pytest.raises(UserError, match="some images of the batch have none; leave them out"):
        presets.dkd()(at.student, at.teacher, at.target)


def test_many_classes_a_row_have_the_shape_of_the_logits() -> None:
    at = site(n=3, c=4)
    with pytest.raises(ValueError, match=r"needs labels of shape \(3, 4\), got \(3, 5\)"):
        presets.ps()(at.student, at.teacher, torch.ones(3, 5))


@pytest.mark.parametrize("shape", [(6, 4), (5, 5), (6, 5, 1)])
def test_rows_of_two_shapes_are_refused(shape: tuple[int, ...]) -> None:
    at = Site(torch.zeros(6, 5), torch.zeros(shape))
    with pytest.raises(ValueError, match=r"must both be of shape \(N, C\), got \(6, 5\) and"):
        LogitObjective()(at)


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="compares maps of equal shape.*put an adapter between"):
        presets.mimic()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))

"""The plan of a study for the arguments of the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from quick import quick
from stillhouse.errors import UserError
from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.mlkd import MLKD
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Network, Recipe, StudyPair, TeacherSpec, Training
from stillhouse.study.arguments import folder_names, split_list
from stillhouse.study.plan import StudyPlan, make_plan


def plan(
    methods: str | None = None, seeds: int = 2, recipe: Recipe | None = None, **words: Any
) -> StudyPlan:
    return make_plan(recipe or quick(), methods, seeds, **words)


def test_the_control_is_always_included_and_has_no_teacher() -> None:
    for words in ("kd", "none,kd", "kd,none"):
        result = plan(words)
        assert [arm.label for arm in result.arms] == ["none", "kd"]
        control = result.arms[0]
        assert control.is_control and control.recipe.teacher is None and not control.recipe.distils
    assert [a.label for a in plan(None).arms] == ["none", "kd"]  # the recipe's own method


def test_all_jobs_share_budget_data_and_seeds(tmp_path: Path) -> None:
    result = plan("kd,dkd,lskd", 3)
    jobs = result.jobs(tmp_path)
    assert len(jobs) == 4 * 3 == len({job.folder for job in jobs})
    assert all(job.recipe.train == quick().train for job in jobs)
    assert {str(job.recipe.data) for job in jobs} == {str(quick().data)}
    assert sorted(job.recipe.seed for job in jobs) == sorted([0, 1, 2] * 4)
    assert [job.recipe.seed for job in jobs] == sorted(job.recipe.seed for job in jobs)


def test_seeds_start_at_the_seed_of_the_recipe(tmp_path: Path) -> None:
    jobs = plan("kd", 2, quick("seed=7")).jobs(tmp_path)
    assert {job.recipe.seed for job in jobs} == {7, 8}
    assert {job.folder.name for job in jobs} == {"0", "1"}


def method_of(word: str, recipe: Recipe | None = None) -> tuple[Any, ...]:
    result = plan(word, recipe=recipe)
    (arm,) = (arm for arm in result.arms if not arm.is_control)
    assert arm.label == word
    return arm.recipe.method


def test_method_arguments() -> None:
    assert method_of("dist") == (presets.dist(),)
    assert method_of("dist:temperature=4") == (presets.dist(temperature=4),)
    assert method_of("dist:temperature=4:beta=1.5") == (presets.dist(temperature=4, beta=1.5),)
    assert method_of("lskd:base=dkd") == (presets.lskd(base=presets.dkd()),)
    assert method_of("dist+mse:weight=2") == (presets.dist(), presets.mse(weight=2))
    together = (presets.dist(), presets.channel_relation(), presets.spatial_relation())
    assert method_of("dist+") == (*together, Acclimation())
    assert method_of("mlkd:base=lskd") == (MLKD(base=presets.lskd()),)
    pairs = "cwd:pairs=[[stage1, stage1], [stage2, stage2]]"
    assert method_of(pairs)[0].pairs == (("stage1", "stage1"), ("stage2", "stage2"))


def test_the_method_of_the_recipe_keeps_its_options() -> None:
    recipe = quick("method={name: kd, temperature: 7, weight: 0.9}")
    assert method_of("kd", recipe) == (presets.kd(temperature=7, weight=0.9),)
    assert method_of("kd:weight=3", recipe) == (presets.kd(temperature=7, weight=3),)
    assert method_of("dkd", recipe) == (presets.dkd(),)


def test_labels_of_the_recipe_take_precedence_over_names() -> None:
    own = Comparison({"kd": (presets.kd(temperature=9),), "z": (presets.lskd(),)}, seeds=4)
    recipe = replace(quick(), study=own)
    assert method_of("kd", recipe) == (presets.kd(temperature=9),)
    result = make_plan(recipe)
    assert [arm.label for arm in result.arms] == ["none", "kd", "z"]
    assert result.seeds == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("kdd", "unknown method 'kdd' in 'kdd'; did you mean 'kd'"),
        ("kd,nosuch", "unknown method 'nosuch'"),
        ("kd:temperature", "'temperature' in 'kd:temperature' is not an option; write key=value"),
        ("kd:temprature=2", "unknown key method.temprature; did you mean 'temperature'"),
        ("kd:temperature=[", "is not a valid YAML value"),
        ("kd:temperature=-1", "temperature"),
        ("none", "name one besides none"),
        (",", "name one besides none"),
    ],
)
def test_a_wrong_method_argument_is_an_error(words: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        plan(words)
    assert message in str(error.value)


def test_a_study_needs_a_teacher() -> None:
    with pytest.raises(UserError, match="a study needs a teacher"):
        plan("kd", recipe=quick("method=none", "teacher=null"))


# ----------------------------------------------------------------------------------------- the grid


def test_a_grid_multiplies_only_methods_with_the_option() -> None:
    result = plan("kd,dist,mse", grid=["method.temperature=1,2.5"])
    assert [arm.label for arm in result.arms] == [
        "none",
        "kd temperature=1",
        "dist temperature=1",
        "mse",
        "kd temperature=2.5",
        "dist temperature=2.5",
    ]
    assert [a.recipe.method[0].temperature for a in result.arms if a.method == "dist"] == [1, 2.5]
    assert result.notes == ("mse has no option temperature, so it runs once",)
    assert {arm.control for arm in result.arms} == {"none"}


def test_a_method_trained_in_its_own_way_has_a_control_of_its_own() -> None:
    study = {
        "methods": {"kd": [{"name": "kd"}], "mse": [{"name": "mse"}]},
        "changes": {"mse": ["train.epochs=3", "train.optimiser.lr=0.02"]},
    }
    result = make_plan(load.replace_sections(quick(), {"study": study}))
    arms = {arm.label: arm for arm in result.arms}
    own = "none train.epochs=3 train.optimiser.lr=0.02"
    assert {label: arm.control for label, arm in arms.items()} == {
        "none": "none",
        own: own,
        "kd": "none",
        "mse": own,
    }
    assert arms["mse"].recipe.train == arms[own].recipe.train != arms["none"].recipe.train
    assert (arms["mse"].recipe.train.epochs, arms["kd"].recipe.train) == (3, quick().train)
    assert make_plan(result.recipe).arms == result.arms


def test_a_grid_over_training_has_a_control_at_each_point() -> None:
    result = plan("kd", grid=["train.epochs=1,2", "method.weight=0.5,1"])
    controls = {arm.label: arm.recipe.train.epochs for arm in result.controls}
    assert controls == {"none train.epochs=1": 1, "none train.epochs=2": 2}
    for arm in result.arms:
        control = next(c for c in result.controls if c.label == arm.control)
        assert control.recipe.train == arm.recipe.train
    assert len(result.arms) == 2 + 4


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["method.nosuch=1,2"], "no method has an option 'nosuch'"),
        (["method.temperature"], "must be key=value,value"),
        (["method.temperature="], "must be key=value,value"),
        (["data.batch=1,2"], "data.batch cannot vary within a study, only keys of"),
        (["teacher.name=a,b"], "use --teachers"),
        (["trian.epochs=1"], "did you mean 'train'"),
        (["method.temperature=0,1"], "temperature"),
    ],
)
def test_a_wrong_grid_is_an_error(grid: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        plan("kd", grid=grid)
    assert message in str(error.value)


# ------------------------------------------------------------------------------------- the teachers


PAIRS = {
    "little -> tiny": StudyPair(
        Network("stillhouse/tiny"), TeacherSpec("stillhouse/little", train=Training())
    ),
    "small -> little": StudyPair(
        Network("stillhouse/little"),
        TeacherSpec("stillhouse/small", train=Training()),
        {"kd": (presets.kd(temperature=2),)},
        ("train.optimiser.lr=0.01",),
        {"none": 70.0, "kd": 72.5},
    ),
}


def paired(**words: Any) -> StudyPlan:
    methods = {"kd": (presets.kd(),), "dist": (presets.dist(),)}
    return make_plan(replace(quick(), study=Comparison(methods, pairs=PAIRS, seeds=1)), **words)


def test_pairs_are_students_each_with_a_teacher_and_a_control() -> None:
    arms = {arm.label: arm for arm in paired().arms}
    assert list(arms) == [
        "none of little -> tiny",
        "none of small -> little",
        "kd of little -> tiny",
        "dist of little -> tiny",
        "kd of small -> little",
        "dist of small -> little",
    ]
    second = arms["kd of small -> little"]
    assert second.control == "none of small -> little" and second.pair == "small -> little"
    assert second.recipe.student.name == "stillhouse/little"
    assert second.recipe.teacher.name == "stillhouse/small"
    assert second.recipe.method == (presets.kd(temperature=2),)
    assert second.recipe.train.optimiser.lr == 0.01
    assert arms[second.control].recipe.train.optimiser.lr == 0.01
    assert arms["kd of little -> tiny"].recipe.method == (presets.kd(),)
    assert arms["kd of little -> tiny"].recipe.train.optimiser.lr == quick().train.optimiser.lr


def test_pairs_and_methods_can_be_selected() -> None:
    result = paired(pairs="small -> little", methods="dist")
    assert [a.label for a in result.arms] == ["none of small -> little", "dist of small -> little"]
    assert list(result.teachers) == ["small -> little"]
    with pytest.raises(UserError, match="no pair 'smal -> little'; did you mean 'small -> little'"):
        paired(pairs="smal -> little")
    with pytest.raises(UserError, match="each pair has its own teacher"):
        paired(teachers="stillhouse/large")


def test_a_pair_can_only_name_methods_of_the_study() -> None:
    wrong = {"a": StudyPair(Network("x"), TeacherSpec("y"), paper={"kdd": 1.0})}
    with pytest.raises(ValueError, match="pairs.a: there is no method kdd"):
        Comparison({"kd": (presets.kd(),)}, pairs=wrong)


def test_methods_that_need_more_than_logits_have_no_store() -> None:
    for word in ("dist+", "at", "rkd", "mlkd", "simkd", "kd+acclimation"):
        assert plan(word).arms[1].recipe.teacher.store is None, word
    for word in ("ctkd", "ctkd:base=lskd", "lskd:base=dkd"):
        assert plan(word).arms[1].recipe.teacher.store is not None, word


def test_several_teachers_share_the_control() -> None:
    result = plan("kd", teachers="stillhouse/little,stillhouse/medium")
    assert [arm.label for arm in result.arms] == [
        "none",
        "kd from stillhouse/little",
        "kd from stillhouse/medium",
    ]
    names = [arm.recipe.teacher.name for arm in result.arms if arm.recipe.teacher]
    assert names == ["stillhouse/little", "stillhouse/medium"]
    assert result.arms[1].recipe.teacher.train == quick().teacher.train


def test_the_weights_of_a_teacher_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="there is no file"):
        plan("kd", teachers=f"stillhouse/little={file}")
    file.write_bytes(b"")
    result = plan("kd", teachers=f"stillhouse/little={file}")
    assert result.teachers["stillhouse/little"].weights == file


def test_logit_methods_share_a_store() -> None:
    result = {arm.label: arm.recipe.teacher for arm in plan("kd,cwd,kd+cwd").arms}
    assert result["kd"].store.precision == "full" and not result["kd"].remember
    assert result["cwd"].store is None and not result["cwd"].remember
    assert result["kd+cwd"].store is None
    own = {a.label: a.recipe.teacher for a in plan("kd", recipe=quick(*HALF)).arms}
    assert own["kd"].store.precision == "half"
    endless = quick("data.transforms=[{kind: flip}]", "teacher.remember=false")
    assert all(not a.recipe.teacher.store for a in plan("kd", recipe=endless).arms[1:])


HALF = ("teacher.remember=false", "teacher.store=true")


# ------------------------------------------------------------------------------------------- again


def test_a_plan_can_be_made_again_from_its_own_recipe(tmp_path: Path) -> None:
    first = plan("kd:temperature=2,dist", 3, teachers="stillhouse/little", grid=["method.beta=1,2"])
    (tmp_path / "study.yaml").write_text(load.to_yaml(first.recipe))
    again = make_plan(load.load(tmp_path / "study.yaml"))
    assert [(a.label, load.digest(a.recipe)) for a in again.arms] == [
        (a.label, load.digest(a.recipe)) for a in first.arms
    ]
    assert again.seeds == first.seeds


def test_a_recipe_can_contain_a_study(tmp_path: Path) -> None:
    content = yaml.safe_load(load.to_yaml(quick())) | {
        "study": {
            "seeds": 2,
            "methods": {"warm": {"name": "kd", "warmup": 3}, "both": ["kd", "mse"]},
            "grid": {"train.epochs": [1, 2]},
        }
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    result = make_plan(load.load(tmp_path / "r.yaml"))
    assert len(result.arms) == 2 + 4 and result.arms[2].recipe.method[0].warmup == 3
    content["study"]["methods"]["warm"] = {"name": "kd", "warmupp": 3}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match=r"r\.yaml:\d+: unknown key .*warmupp"):
        load.load(tmp_path / "r.yaml")
    for section, text in (
        ({"searched": {"kd": {"trials": 3}}}, "searched.kd: there is no such method"),
        ({"changes": {"kd": ["train.epochs=3"]}}, "changes.kd: there is no such method"),
        (
            {"methods": {"kd": [{"name": "kd"}]}, "changes": {"kd": ["data.batch=3"]}},
            r"changes.kd: each change must be train\.KEY=VALUE",
        ),
    ):
        content["study"] = section
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(UserError, match=text):
            load.load(tmp_path / "r.yaml")


def test_the_study_section_does_not_change_the_digest() -> None:
    recipe = replace(quick(), study=Comparison(seeds=9))
    assert load.digest(recipe) == load.digest(quick())


# ------------------------------------------------------------------------------------------- words


def test_commas_inside_brackets_do_not_split() -> None:
    assert split_list("a,b:c=[1,[2,3]],d:{x: 1, y: 2}") == ["a", "b:c=[1,[2,3]]", "d:{x: 1, y: 2}"]
    assert split_list(" a , ,b ") == ["a", "b"] and split_list("") == []


def test_folder_names_are_safe_and_unique() -> None:
    result = folder_names(["kd", "KD", "a/b", "a:b", "..", "none train.epochs=1"])
    assert len({name.lower() for name in result.values()}) == 6
    assert not any(sign in name for name in result.values() for sign in "/: ")
    assert ".." not in result.values()


def test_outputs_of_detectors_are_not_stored() -> None:
    plan = make_plan(load.load("digits/objects"))
    assert all(arm.recipe.teacher is None or arm.recipe.teacher.store is None for arm in plan.arms)

"""From words to a recipe, and every wrong word to one sentence with its place."""

from pathlib import Path

import pytest
import yaml

from stillhouse.errors import UserError
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import Control
from stillhouse.objectives import presets
from stillhouse.recipes import load

BASE = """\
data:
  name: digits/raw
  batch: 16
student: stillhouse/tiny
teacher:
  name: stillhouse/little
  train: {epochs: 1}
method:
  name: kd
  temperature: 4
train:
  epochs: 2
  optimiser: {kind: sgd, lr: 0.1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE)
    return path


@pytest.mark.parametrize("name", load.zoo())
def test_every_recipe_of_the_package_loads_and_says_what_it_is(name: str) -> None:
    assert load.load(name).title


@pytest.mark.parametrize("name", published())
def test_every_preset_can_be_said_by_its_name_and_comes_back(name: str, file: Path) -> None:
    recipe = load.load(file, [f"method={name}"])
    assert recipe.method == (published()[name](),)
    again = load.check(yaml.safe_load(load.text(recipe)), file)
    assert again == recipe and load.digest(again) == load.digest(recipe)


def test_overrides_are_yaml_and_reach_inside(file: Path) -> None:
    recipe = load.load(file, ["method.temperature=2", "train.optimiser.lr=1e-2", "data.views=3"])
    assert recipe.method[0] == presets.kd(temperature=2.0)
    assert recipe.train.optimiser.lr == 0.01 and recipe.data.views == 3


def test_a_bare_word_for_a_network_keeps_what_else_is_said(file: Path) -> None:
    recipe = load.load(file, ["student=torchvision/resnet18", "teacher=stillhouse/large"])
    assert recipe.student.name == "torchvision/resnet18"
    assert recipe.teacher.name == "stillhouse/large" and recipe.teacher.train.epochs == 1


def test_another_method_takes_no_options_of_the_one_before(file: Path) -> None:
    assert load.load(file, ["method=dist"]).method == (presets.dist(),)
    recipe = load.load(file, ["method=dkd", "method.beta=2"])
    assert recipe.method == (presets.dkd(beta=2.0),)


def test_another_optimiser_takes_no_options_of_the_one_before(file: Path) -> None:
    recipe = load.load(file, ["train.optimiser={kind: adamw, lr: 0.01}"])
    assert recipe.train.optimiser.kind == "adamw"


def test_standardisation_takes_its_base_by_name(file: Path) -> None:
    recipe = load.load(file, ["method={name: lskd, base: dkd}", "method.base.beta=2"])
    assert recipe.method == (presets.lskd(base=presets.dkd(beta=2.0)),)


def test_several_methods_are_a_list(file: Path) -> None:
    recipe = load.load(file, ["method=[kd, {name: cwd, temperature: 1}]"])
    assert [m.name for m in recipe.method] == ["kd", "cwd"]


def test_a_recipe_extends_another(file: Path, tmp_path: Path) -> None:
    above = tmp_path / "above.yaml"
    above.write_text("extends: recipe.yaml\nmethod: {name: dist, temperature: 4}\nseed: 7\n")
    recipe = load.load(above)
    assert recipe.method == (presets.dist(temperature=4.0),)
    assert recipe.seed == 7 and recipe.data.batch == 16


def written(folder: Path, **files: str) -> Path:
    """Recipes by name; the last of them."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    return folder / f"{[*files][-1]}.yaml"


PAIR = "extends: recipe.yaml\nstudent: stillhouse/small\ntrain: {optimiser: {lr: 0.01}}\n"
METHOD = "extends: recipe.yaml\nmethod: {name: dkd, beta: 2}\ntrain: {epochs: 5}\nseed: 3\n"


@pytest.mark.parametrize("order", ["[pair.yaml, method.yaml]", "[method.yaml, pair.yaml]"])
def test_a_pair_and_a_method_of_one_base_combine(order: str, file: Path) -> None:
    both = written(file.parent, pair=PAIR, method=METHOD, both=f"extends: {order}\nseed: 7\n")
    recipe = load.load(both)
    assert recipe.student.name == "stillhouse/small" and recipe.train.optimiser.lr == 0.01
    assert recipe.method == (presets.dkd(beta=2.0),) and recipe.train.epochs == 5
    assert recipe.seed == 7 and recipe.data.batch == 16  # the file over all, the base below all


@pytest.mark.parametrize("order, seed", [(["a", "b"], 2), (["b", "a"], 1), (["a"], 1)])
def test_later_recipes_lie_over_earlier_ones(order: list[str], seed: int, file: Path) -> None:
    names = ", ".join(f"{name}.yaml" for name in order)
    alike = "extends: recipe.yaml\nseed: {}\n"
    last = written(
        file.parent, a=alike.format(1), b=alike.format(2), over=f"extends: [{names}]\ntitle: x\n"
    )
    assert load.load(last).seed == seed


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a": "extends: a.yaml"}, "goes round in a circle: {0}/a.yaml -> {0}/a.yaml; take one"),
        (
            {"b": "extends: [digits/raw, c.yaml]", "c": "extends: b.yaml", "a": "extends: b.yaml"},
            "goes round in a circle: {0}/b.yaml -> {0}/c.yaml -> {0}/b.yaml; take one",
        ),
        ({"a": "extends: 3"}, "{0}/a.yaml: extends names a recipe or a list of them, and is 3"),
        ({"a": "extends: [digits/raw, [x]]"}, "names a recipe or a list of them, and is ['digits"),
        ({"a": "extends: [digits/raw, digits/numbrs]"}, "no recipe digits/numbrs"),
        ({"a": "extends: digits/numbrs"}, "did you mean 'digits/numbers'"),
    ],
)
def test_an_extends_that_leads_nowhere(files: dict[str, str], sentence: str, file: Path) -> None:
    with pytest.raises(UserError) as said:
        load.load(written(file.parent, **files))
    assert sentence.format(file.parent) in str(said.value)


def test_the_digest_ignores_where_it_runs_and_sees_what_it_is(file: Path) -> None:
    same = load.load(file, ["engine.workers=2", "title=x", "control=true"])
    assert load.digest(load.load(file)) == load.digest(same)
    assert load.digest(load.load(file)) != load.digest(load.load(file, ["seed=1"]))


def test_none_needs_no_teacher(file: Path) -> None:
    recipe = load.load(file, ["method=none", "teacher=null"])
    assert recipe.method == (Control(),) and recipe.teacher is None


@pytest.mark.parametrize(
    ("line", "wrong", "sentence"),
    [
        (
            "  temperature: 4",
            "  temprature: 4",
            r"recipe.yaml:10: unknown key method.temprature; did you mean 'temperature'\?",
        ),
        (
            "  name: kd",
            "  name: kdd",
            r"recipe.yaml:8: method has no name 'kdd'; did you mean 'kd' or",
        ),
        (
            "  epochs: 2",
            "  epoch: 2",
            r"recipe.yaml:12: unknown key train.epoch; did you mean 'epochs'\?",
        ),
        ("  epochs: 2", "  epochs: two", r"recipe.yaml:12: train.epochs: .*valid number.*'two'"),
        ("  epochs: 2", "  epochs: 0", r"recipe.yaml:11: train: epochs must be above 0, and is 0"),
        ("  batch: 16", "  batch: 0", r"recipe.yaml:1: data: batch must be at least 1, and is 0"),
        (
            "student: stillhouse/tiny",
            "studnt: stillhouse/tiny",
            r"recipe.yaml:4: unknown key studnt; did you mean 'student'\?",
        ),
        (
            "{kind: sgd, lr: 0.1}",
            "{kind: sdg, lr: 0.1}",
            r"recipe.yaml:13: train.optimiser has no kind 'sdg'; did you mean 'sgd'",
        ),
        ("{kind: sgd, lr: 0.1}", "{kind: sgd, lr: -1}", r"recipe.yaml:13: train.optimiser: .*lr"),
        (
            "  temperature: 4",
            "  temperature: -4",
            r"recipe.yaml:8: method: temperature must be above 0 and finite, and is -4",
        ),
    ],
)
def test_a_wrong_line_is_named(file: Path, line: str, wrong: str, sentence: str) -> None:
    assert line in BASE
    file.write_text(BASE.replace(line, wrong))
    with pytest.raises(UserError, match=sentence) as caught:
        load.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "method.temprature=2",
            r"'method.temprature=2': unknown key method.temprature; did you mean 'temperature'",
        ),
        ("method.temperature", r"is no override; write key=value"),
        ("=3", r"is no override; write key=value"),
        ("method=lsdk", r"'method=lsdk'|has no name 'lsdk'; did you mean 'lskd'"),
        ("nosuch.key=3", r"unknown key nosuch"),
        ("data.train=[1", r"is no YAML value"),
        ("teacher=null", r"method kd needs a teacher"),
        ("method=[kd, none]", r"method none cannot be combined"),
        ("method=[]", r"method is an empty list"),
    ],
)
def test_a_wrong_override_is_named(file: Path, word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load.load(file, [word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [1, 2", r"recipe.yaml:\d+: this is no YAML"),
        ("- a list", r"a recipe is a mapping of keys, and this is list"),
        ("", r"a recipe is a mapping of keys, and this is NoneType"),
        ("!!python/object/apply:os.system ['true']", r"this is no YAML"),
        ("data: digits/raw\n", r"student is missing"),
    ],
)
def test_a_file_that_is_no_recipe(file: Path, content: str, sentence: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=sentence):
        load.load(file)


def test_a_wrong_path_is_named_with_what_is_near(file: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe .*recipes.yaml.*did you mean .*recipe.yaml"):
        load.load(file.with_name("recipes.yaml"))
    with pytest.raises(UserError, match=r"did you mean 'digits/numbers'"):
        load.load("digits/number")
    (file.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"is a folder, and a recipe is a YAML file"):
        load.load(file.parent / "empty")


def test_the_folder_of_a_run_stands_for_its_recipe(file: Path) -> None:
    assert load.load(file.parent) == load.load(file)


def test_binary_files_are_no_recipes(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(UserError, match=r"recipe.yaml"):
        load.load(file)

"""Loading recipes with overrides, and errors with their place."""

from pathlib import Path

import pytest
import yaml

from stillhouse.errors import UserError
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import Control
from stillhouse.objectives import presets
from stillhouse.recipes import complaints, load
from stillhouse.recipes.schema import Network, TeacherSpec

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
def test_every_recipe_of_the_package_loads_and_has_a_title(name: str) -> None:
    assert load.load(name).title


@pytest.mark.parametrize("name", published())
def test_every_preset_loads_by_name_and_survives_a_round_trip(name: str, file: Path) -> None:
    recipe = load.load(file, [f"method={name}"])
    assert recipe.method == (published()[name](),)
    again = load.validate_recipe(yaml.safe_load(load.to_yaml(recipe)), file)
    assert again == recipe and load.digest(again) == load.digest(recipe)


def test_overrides_are_parsed_as_yaml_and_reach_nested_keys(file: Path) -> None:
    recipe = load.load(file, ["method.temperature=2", "train.optimiser.lr=1e-2", "data.views=3"])
    assert recipe.method[0] == presets.kd(temperature=2.0)
    assert recipe.train.optimiser.lr == 0.01 and recipe.data.views == 3


def test_a_string_for_a_network_keeps_its_other_options(file: Path) -> None:
    recipe = load.load(file, ["student=torchvision/resnet18", "teacher=stillhouse/large"])
    assert recipe.student.name == "torchvision/resnet18"
    assert recipe.teacher.name == "stillhouse/large" and recipe.teacher.train.epochs == 1


def test_a_string_for_a_network_drops_what_belonged_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "data: digits/raw\n"
        "student: {name: timm/resnet18, options: {drop_rate: 0.1}, pretrained: a.pt}\n"
        "teacher: {name: timm/resnet50, members: [{name: cifar/resnet8, weights: b.pt}],"
        " gate: false, ensemble: separate}\n"
    )
    recipe = load.load(path, ["teacher.weights=c.pt", "student=cifar/resnet8", "teacher=timm/vit"])
    assert recipe.student == Network("cifar/resnet8")
    assert recipe.teacher == TeacherSpec("timm/vit", weights=Path("c.pt"), gate=False)
    again = load.load(path, ["student.name=timm/resnet34"])
    assert again.student.options == {"drop_rate": 0.1}


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
    """Write recipe files by name; returns the last path."""
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
def test_later_recipes_override_earlier_ones(order: list[str], seed: int, file: Path) -> None:
    names = ", ".join(f"{name}.yaml" for name in order)
    alike = "extends: recipe.yaml\nseed: {}\n"
    last = written(
        file.parent, a=alike.format(1), b=alike.format(2), over=f"extends: [{names}]\ntitle: x\n"
    )
    assert load.load(last).seed == seed


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml"}, "circular extends: {0}/a.yaml -> {0}/a.yaml; remove one"),
        (
            {"b": "extends: [digits/raw, c.yaml]", "c": "extends: b.yaml", "a": "extends: b.yaml"},
            "circular extends: {0}/b.yaml -> {0}/c.yaml -> {0}/b.yaml; remove one",
        ),
        (
            {"a": "extends: 3"},
            "{0}/a.yaml: extends must be the name of a recipe or a list of names, got 3",
        ),
        (
            {"a": "extends: [digits/raw, [x]]"},
            "must be the name of a recipe or a list of names, got ['digits",
        ),
        ({"a": "extends: [digits/raw, digits/numbrs]"}, "recipe 'digits/numbrs' not found"),
        ({"a": "extends: digits/numbrs"}, "did you mean 'digits/numbers'"),
    ],
)
def test_a_wrong_extends_is_an_error(files: dict[str, str], message: str, file: Path) -> None:
    with pytest.raises(UserError) as caught:
        load.load(written(file.parent, **files))
    assert message.format(file.parent) in str(caught.value)


def test_the_digest_ignores_the_engine_and_the_title(file: Path) -> None:
    same = load.load(file, ["engine.workers=2", "title=x", "control=true"])
    assert load.digest(load.load(file)) == load.digest(same)


def test_the_digest_depends_on_all_that_a_result_does(file: Path) -> None:
    words = (
        "seed=1",
        "data.batch=32",
        "student=stillhouse/medium",
        "teacher.train.epochs=2",
        "teacher.weights=other.safetensors",
        "method.temperature=2",
        "task.label_smoothing=0.1",
        "train.epochs=3",
        "train.optimiser.lr=0.3",
    )
    digests = {load.digest(load.load(file, [word])) for word in words}
    assert len(digests | {load.digest(load.load(file))}) == len(words) + 1


def test_the_control_needs_no_teacher(file: Path) -> None:
    recipe = load.load(file, ["method=none", "teacher=null"])
    assert recipe.method == (Control(),) and recipe.teacher is None


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        (
            "  temperature: 4",
            "  temprature: 4",
            r"recipe.yaml:10: unknown key method.temprature; did you mean 'temperature'\?",
        ),
        (
            "  name: kd",
            "  name: kdd",
            r"recipe.yaml:8: method: unknown name 'kdd'; did you mean 'kd' or",
        ),
        (
            "  epochs: 2",
            "  epoch: 2",
            r"recipe.yaml:12: unknown key train.epoch; did you mean 'epochs'",
        ),
        ("  epochs: 2", "  epochs: two", r"recipe.yaml:12: train.epochs: .*valid number.*'two'"),
        ("  epochs: 2", "  epochs: 0", r"recipe.yaml:11: train: `epochs` must be positive, got 0"),
        ("  batch: 16", "  batch: 0", r"recipe.yaml:1: data: `batch` must be at least 1, got 0"),
        (
            "student: stillhouse/tiny",
            "studnt: stillhouse/tiny",
            r"recipe.yaml:4: unknown key studnt; did you mean 'student'\?",
        ),
        (
            "{kind: sgd, lr: 0.1}",
            "{kind: sdg, lr: 0.1}",
            r"recipe.yaml:13: train.optimiser: unknown kind 'sdg'; did you mean 'sgd'",
        ),
        ("{kind: sgd, lr: 0.1}", "{kind: sgd, lr: -1}", r"recipe.yaml:13: train.optimiser: .*lr"),
        (
            "  temperature: 4",
            "  temperature: -4",
            r"recipe.yaml:8: method: `temperature` must be positive and finite, got -4",
        ),
    ],
)
def test_an_error_names_the_line(file: Path, line: str, wrong: str, message: str) -> None:
    assert line in BASE
    file.write_text(BASE.replace(line, wrong))
    with pytest.raises(UserError, match=message) as caught:
        load.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "method.temprature=2",
            r"'method.temprature=2': unknown key method.temprature; did you mean 'temperature'",
        ),
        ("method.temperature", r"is not an override; write key=value"),
        ("=3", r"is not an override; write key=value"),
        ("method=lsdk", r"'method=lsdk'|unknown name 'lsdk'; did you mean 'lskd'"),
        ("nosuch.key=3", r"unknown key nosuch"),
        ("data.train=[1", r"is not a valid YAML value"),
        ("teacher=null", r"method kd needs a teacher"),
        ("method=[kd, none]", r"method none cannot be combined"),
        ("method=[]", r"method is an empty list"),
    ],
)
def test_an_error_names_the_override(file: Path, word: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load.load(file, [word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1, 2", r"recipe.yaml:\d+: not valid YAML"),
        ("- a list", r"a recipe must be a mapping of keys to values, got list"),
        ("", r"a recipe must be a mapping of keys to values, got NoneType"),
        ("!!python/object/apply:os.system ['true']", r"not valid YAML"),
        ("data: digits/raw\n", r"student is missing"),
    ],
)
def test_a_file_without_a_recipe_is_an_error(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        load.load(file)


def test_a_wrong_path_has_a_suggestion(file: Path) -> None:
    with pytest.raises(
        UserError, match=r"recipe '.*recipes.yaml' not found.*did you mean .*recipe.yaml"
    ):
        load.load(file.with_name("recipes.yaml"))
    with pytest.raises(UserError, match=r"did you mean 'digits/numbers'"):
        load.load("digits/number")
    (file.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"is a folder; a recipe must be a YAML file"):
        load.load(file.parent / "empty")


def test_the_folder_of_a_run_loads_its_recipe(file: Path) -> None:
    assert load.load(file.parent) == load.load(file)


def test_a_binary_file_is_an_error(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(UserError, match=r"recipe.yaml"):
        load.load(file)


# ------------------------------------------------------------------------ renamed keys and values


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for old, new in {
        "train.length": "train.epochs",
        "optimiser.rate": "optimiser.lr",
        "augment": "data.transforms",
        "data.name=digits/plain": "digits/raw",
        "method.name=hinton": "kd",
        "optimiser.kind=sgdm": "sgd",
        "extends=digits/two": "digits/numbers",
    }.items():
        monkeypatch.setitem(complaints.RENAMED, old, new)


@pytest.mark.parametrize(
    ("line", "old", "message"),
    [
        ("  epochs: 2", "  length: 2", "recipe.yaml:12: `train.length` is now `train.epochs`"),
        (
            "  train: {epochs: 1}",
            "  train: {length: 1}",
            "recipe.yaml:7: `teacher.train.length` is now `teacher.train.epochs`",
        ),
        (
            "{kind: sgd, lr: 0.1}",
            "{kind: sgd, rate: 0.1}",
            "recipe.yaml:13: `train.optimiser.rate` is now `train.optimiser.lr`",
        ),
        ("train:\n", "augment: []\ntrain:\n", "`augment` is now `data.transforms`"),
        (
            "  name: digits/raw",
            "  name: digits/plain",
            "recipe.yaml:2: data.name `digits/plain` is now `digits/raw`",
        ),
        (
            "data:\n  name: digits/raw\n  batch: 16",
            "data: digits/plain",
            "recipe.yaml:1: data `digits/plain` is now `digits/raw`",
        ),
        ("  name: kd", "  name: hinton", "recipe.yaml:9: method.name `hinton` is now `kd`"),
        (
            "{kind: sgd, lr: 0.1}",
            "sgdm",
            "recipe.yaml:13: train.optimiser `sgdm` is now `sgd`",
        ),
        ("seed: 1", "extends: digits/two", "recipe `digits/two` is now `digits/numbers`"),
    ],
)
def test_an_old_name_in_a_file_gives_the_new_name(
    file: Path, renamed: None, line: str, old: str, message: str
) -> None:
    text = f"seed: 1\n{BASE}" if line == "seed: 1" else BASE
    assert line in text
    file.write_text(text.replace(line, old, 1))
    with pytest.raises(UserError) as caught:
        load.load(file)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.length=3", "'train.length=3': `train.length` is now `train.epochs`"),
        ("augment.crop=3", "'augment.crop=3': `augment` is now `data.transforms`"),
        ("data=digits/plain", "'data=digits/plain': data.name `digits/plain` is now `digits/raw`"),
        ("method=[cwd, hinton]", "method `hinton` is now `kd`"),
    ],
)
def test_an_old_name_in_an_override_gives_the_new_name(
    file: Path, renamed: None, override: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load.load(file, [override])
    assert message in str(caught.value)


def test_valid_names_are_not_taken_for_old_ones(file: Path, renamed: None) -> None:
    file.write_text(BASE.replace("  batch: 16", "  options: {length: 2, note: sgdm}"))
    assert load.load(file, ["title=digits/plain"]).data.options == {"length": 2, "note": "sgdm"}


def test_every_new_name_exists() -> None:
    keys = complaints.known_keys()
    for old, new in complaints.RENAMED.items():
        assert "=" in old or new.rpartition(".")[2] in keys, f"{old} -> {new}"


TASKS = {
    "digits/raw": "classification",
    "digits/labels": "multilabel",
    "digits/objects": "detection",
    "coco/objects": "detection",
}


@pytest.mark.parametrize(("data", "task"), TASKS.items())
def test_the_task_follows_from_the_data(data: str, task: str) -> None:
    content = {"data": data, "student": "stillhouse/small", "method": "none"}
    assert load.validate_recipe(content, Path("recipe")).task.name == task
    named = {**content, "task": "classification"}
    assert load.validate_recipe(named, Path("recipe")).task.name == "classification"


def test_options_of_a_task_need_no_name() -> None:
    content = {"data": {"name": "digits/objects"}, "student": "detector/fcos", "method": "none"}
    made = load.validate_recipe({**content, "task": {"protocol": "voc"}}, Path("recipe")).task
    assert (made.name, made.protocol) == ("detection", "voc")

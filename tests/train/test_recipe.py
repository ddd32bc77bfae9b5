from pathlib import Path

import pytest
import yaml

from deliberate.core.errors import RecipeError
from deliberate.train.recipe import dump, load_recipe
from deliberate.train.shipped import FOLDER, shipped

ROOT = Path(__file__).parent.parent.parent


def test_changes_beat_the_file_and_the_file_beats_the_defaults(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {steps: 7, batch: 3}\ncoprocessor: {start: paper, latents: 5}\n")
    recipe = load_recipe(path, changes=["train.steps=9", "coprocessor.kind=soft"])
    assert (recipe.train.steps, recipe.train.batch, recipe.train.seed) == (9, 3, 0)
    assert (recipe.coprocessor.kind, recipe.coprocessor.latents) == ("soft", 5)
    assert recipe.coprocessor.positions == "after"


def test_a_dumped_recipe_loads_as_itself(tmp_path):
    recipe = load_recipe(None, changes=["coprocessor.start=paper", "data.validation=x.txt"])
    (tmp_path / "r.yaml").write_text(dump(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4"])
def test_a_rate_may_be_written_as_people_write_it(text):
    assert load_recipe(None, changes=[f"train.learning_rate={text}"]).train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ("train.stepz=1", "steps, batch"),
        ("coprocessor.latentz=1", "kind, latents"),
        ("trian.steps=1", "base, coprocessor, data"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(change, known):
    with pytest.raises(ValueError, match=f"unknown .*known are {known}"):
        load_recipe(None, changes=[change])


@pytest.mark.parametrize(
    "change",
    [
        "train.steps=0",
        "train.steps=many",
        "train.steps=1.5",
        "train.learning_rate=0",
        "coprocessor.latents=0",
        "coprocessor.latents=-1",
        "coprocessor.latents=65",
        "coprocessor.latents=yes",
        "coprocessor.start=hot",
        "coprocessor.start=[warm]",
        "coprocessor.start={warm: 1}",
        "objective.anchors=0",
        "data.length=8",
        "base.dtype=int8",
        "train.steps",
        "steps=3",
        "train.learning_rate=1e38",
        "train.weight_decay=1e38",
        "train.beta2=1",
        "train.beta2=-0.1",
        "train.clip=0",
        "train.spike=0",
        "train.spike=-2",
        "train.spike=never",
        "train.warmup=-1",
        "train.weight_decay=-0.1",
        "train.final_rate=1.1",
        "train.final_rate=-0.1",
        "train.soft_learning_rate=0",
        "train.soft_learning_rate=-1",
        "train.seed=99999999999999999999",
        "data.field=@text",
        "data.train=[x",
        "data.train=2020-13-45",
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(change):
    name = change.partition("=")[0].split(".")[-1]
    with pytest.raises(ValueError, match=name):
        load_recipe(None, changes=[change])


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize(
    "name",
    [
        "coprocessor.latent_scale",
        "train.learning_rate",
        "train.soft_learning_rate",
        "train.final_rate",
        "train.weight_decay",
        "train.beta2",
        "train.clip",
        "train.spike",
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name.split(".")[1]):
        load_recipe(None, changes=[f"{name}={value}"])


@pytest.mark.parametrize("section", ["coprocessor", "train"])
@pytest.mark.parametrize("key", ["1", "null", "2020-01-01"])
def test_a_key_that_is_no_text_is_refused(tmp_path, section, key):
    (tmp_path / "r.yaml").write_text(f"{section}: {{{key}: 2}}\n")
    with pytest.raises(ValueError, match=f"section '{section}' must hold keys that are text"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("value", ["{x: 2020-01-01}", "{x: .nan}", "{x: !!set {y}}"])
def test_an_architecture_that_no_json_can_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"base\.architecture must hold what JSON can"):
        load_recipe(None, changes=[f"base.architecture={value}"])


@pytest.mark.parametrize(
    "name",
    [
        *("data.length", "objective.anchors", "eval.texts", "coprocessor.rank", "train.adapt_rank"),
        *("train.steps", "train.batch", "train.accumulate", "train.keep"),
    ],
)
def test_a_count_beyond_any_use_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name.split('.')[1]} must be .* got 10000"):
        load_recipe(None, changes=["coprocessor.kind=lora", f"{name}=1{'0' * 400}"])


def test_half_a_character_is_refused_with_its_line(tmp_path):
    (tmp_path / "r.yaml").write_text('data:\n  train: "\\ude00.txt"\n')
    with pytest.raises(RecipeError, match="line 2 holds half a character"):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(ValueError, match="half a character"):
        load_recipe(None, changes=[r'data.field="\ud83d"'])


def test_two_escapes_of_one_character_are_that_character():
    assert load_recipe(None, changes=[r'data.field="\ud83d\ude00"']).data.field == "\U0001f600"


def test_no_rate_of_their_own_is_a_rate_for_soft_tokens():
    recipe = load_recipe(None, changes=["train.soft_learning_rate=null"])
    assert recipe.train.soft_learning_rate is None


def test_a_recipe_may_be_named_by_a_string(tmp_path):
    (tmp_path / "r.yaml").write_text("train: {steps: 7}\n")
    assert load_recipe(str(tmp_path / "r.yaml")).train.steps == 7


@pytest.mark.parametrize("content", ["[1, 2]", "train: [", "\t{"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")


def test_a_missing_recipe_is_refused():
    with pytest.raises(RecipeError, match=r"no recipe at 'nowhere\.yaml'"):
        load_recipe(Path("nowhere.yaml"))


def test_a_recipe_that_is_nowhere_is_told_with_those_that_ship():
    with pytest.raises(RecipeError, match=r"the name of one that ships .*demo, .*nano, "):
        load_recipe("demon")


def test_a_shipped_recipe_is_known_by_its_name_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder is no recipe
    recipe = load_recipe("demo", changes=["train.seed=9"])
    assert recipe == load_recipe(ROOT / "recipes/demo.yaml", changes=["train.seed=9"])
    assert recipe != load_recipe(None, changes=["train.seed=9"])


def test_a_file_of_a_shipped_recipe_s_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("train: {steps: 7}\n")
    assert load_recipe("demo").train.steps == 7


@pytest.mark.parametrize("path", ["recipes/demo", "../recipes/demo", "demo.yaml"])
def test_a_path_is_no_name_of_a_shipped_recipe(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(path)


def test_all_recipes_ship_and_are_what_the_checkout_has():
    here = {path.stem: path.read_text() for path in (ROOT / "recipes").glob("*.yaml")}
    assert here == {path.stem: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert shipped() == sorted(here)


def test_yaml_never_makes_objects(tmp_path):
    (tmp_path / "r.yaml").write_text("train: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "r.yaml")
    assert yaml.safe_load(dump(load_recipe()))["base"]["id"] == "nano"


def test_several_sources_are_a_list_and_each_has_a_path(tmp_path):
    change = "data.train=[{path: a.jsonl, weight: 3, field: body}, {path: owner/b, split: dev}]"
    recipe = load_recipe(None, changes=[change])
    first, second = recipe.data.train
    plain = load_recipe(None, changes=["data.train=[a.jsonl, {path: b.jsonl}]"])
    assert [each.path for each in plain.data.train] == ["a.jsonl", "b.jsonl"]
    assert (first.path, first.weight, first.field) == ("a.jsonl", 3.0, "body")
    assert (second.path, second.weight, second.split) == ("owner/b", 1.0, "dev")
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[]", r"data\.train must name at least one source"),
        ("[3]", r"data\.train must be a list of \{path: \.\.\.\}, got 3 in it"),
        ("[{weight: 2}]", r"data\.train must have path, got \{'weight': 2\}"),
        ("[{path: a, wait: 2}]", r"unknown key data\.train\.wait: known are path, weight"),
        ("[{path: a, weight: 0}]", r"weight of 'a' must be above 0, got 0"),
        ("[{path: a, weight: .nan}]", r"weight of 'a' must be above 0, got nan"),
        ("[{path: a, weight: much}]", r"data\.train\.weight must be float, got 'much'"),
        ("[{path: a, weight: 1e306}]", r"data\.train has a weight of 1e\+306, too large"),
        ("[{path: a, weight: 1e308}, {path: b, weight: 1e308}]", r"a weight of 1e\+308, too large"),
        ("[{path: ''}]", "a source must have a path"),
        ("{path: a}", r"data\.train must be str or list, got \{'path': 'a'\}"),
    ],
)
def test_sources_that_cannot_be_are_refused_by_name(value, told):
    with pytest.raises(ValueError, match=told):
        load_recipe(None, changes=[f"data.train={value}"])

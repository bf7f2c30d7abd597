"""Recipes from text, a real bucket and a real repository; what they may not bring; overrides."""

from __future__ import annotations

import argparse
import json
import subprocess
import types
from pathlib import Path

import pytest
import yaml

from engineworks import packaging, targets
from engineworks.errors import RecipeError
from engineworks.evaluate import tasks
from engineworks.recipe import Overrides
from flows import ship as ship_flow
from flows.commands import ship as ship_command
from flows.steps import recipe_from, recipe_git, recipe_s3
from tests.builders import EXAMPLES

RECIPE = {
    "name": "tiny",
    "model": {"source": "net.onnx", "input": {"size": [16, 16]}},
    "targets": [
        {"target": "onnxruntime-cpu", "required": False},
        {"target": "null", "precisions": ["fp32", "fp16"], "options": {"act": "ship"}},
    ],
    "budget": {"max_drop": 0.01, "max_size_mib": 5},
}
CODE = {**RECIPE, "model": {**RECIPE["model"], "source": "model:build"}}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(recipe_from.ALLOWED, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def text(raw):
    return yaml.safe_dump(raw, sort_keys=False)


def load(recipe, **overrides):
    return recipe_from.load(recipe, Overrides.model_validate(overrides))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository that git reaches by an https address; gives its commit."""
    folder = tmp_path / "repository"
    (folder / "models" / "a").mkdir(parents=True)
    for name, raw in (("recipe", RECIPE), ("code", CODE)):
        (folder / "models" / "a" / f"{name}.yaml").write_text(text(raw))
    (folder / "models" / "a" / "net.onnx").write_bytes(b"network")
    (folder / "models" / "a" / "model.py").write_text("def build():\n    return 1\n")
    (folder / "models" / "a" / "link.yaml").symlink_to("/etc/hostname")
    (folder / "labels.txt").write_text("a\nb\n")
    for name, labels in (("top", "../../labels.txt"), ("out", "../../../labels.txt")):
        raw = {**RECIPE, "task": {"kind": "classification", "labels": labels}}
        (folder / "models" / "a" / f"{name}.yaml").write_text(text(raw))

    def git(*words):
        done = subprocess.run(
            ["git", "-c", "user.name=ann", "-c", "user.email=ann@example.org", *words],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    (folder / "models" / "a" / "recipe.yaml").write_text("name: changed\n")
    git("commit", "-qam", "two")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    monkeypatch.setattr(recipe_git, "PROTOCOLS", "https:file")
    for key, value in (
        ("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", f"url.file://{folder}.insteadOf"),
        ("GIT_CONFIG_VALUE_0", "https://example.org/team/models"),
    ):  # fmt: skip
        monkeypatch.setenv(key, value)
    return first


def address(commit, path="models/a/recipe.yaml", url="https://example.org/team/models"):
    return f"git+{url}@{commit}#{path}"


def test_a_text_is_a_recipe_whose_paths_begin_where_the_worker_works(home):
    loaded = load(text(RECIPE))
    assert loaded.recipe.name == "tiny" and loaded.folder == Path.cwd()
    assert load(json.dumps(RECIPE)).sha256 == loaded.sha256  # YAML on one line
    assert loaded.origin.startswith("text ") and loaded.address == "tiny (text)"
    assert loaded.origin != load(text({**RECIPE, "budget": {}})).origin  # another recipe
    with pytest.raises(RecipeError, match="the recipe's text: "):
        load("name: tiny\nnonsense: 1\n")
    with pytest.raises(RecipeError, match="that a person has written"):
        load("name: tiny\n# " + "x" * 2**21)


def test_a_commit_is_checked_out_once_with_all_that_lies_beside(repository, home, monkeypatch):
    loaded = load(address(repository))
    assert loaded.recipe.name == "tiny"  # as it was then, not as it is now
    assert (loaded.folder / "net.onnx").read_bytes() == b"network"
    assert loaded.origin == "https://example.org/team/models#models/a/recipe.yaml"
    assert loaded.address == address(repository)
    assert not list(home.rglob(".git"))

    def never(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(subprocess, "run", never)
    assert load(address(repository)).folder == loaded.folder


def test_nothing_but_a_whole_commit_of_a_plain_address_is_taken(repository, home):
    whole = repository
    for wrong, words in (
        (address("main"), "a branch or tag means something else tomorrow"),
        (address(whole[:12]), "is no commit"),
        (address(whole, "../../etc/passwd"), "no path inside the repository"),
        (address(whole, url="https://ann:secret@example.org/a"), "names no recipe in a git"),
        (address(whole, url="https://example.org/a/../b"), "is no plain address"),
        (address(whole, url="https://example.org/a%2e"), "is no plain address"),
        (f"git+ssh://example.org/a@{whole}#r.yaml", "names no recipe in a git repository"),
        (f"git+file:///etc@{whole}#r.yaml", "names no recipe in a git repository"),
        (f"git+https://example.org/team/models@{whole}", "names no recipe in a git"),
        (address("0" * 40), "cannot be fetched"),
        (address(whole, "models/a/none.yaml"), "has no file models/a/none.yaml"),
        (address(whole, "models/a/link.yaml"), "holds str, not a mapping"),  # a link is its text
        ("https://example.org/recipe.yaml", "is an address that recipes are not taken from"),
        ("file:///etc/passwd", "is an address that recipes are not taken from"),
    ):
        with pytest.raises(RecipeError, match=words) as refused:
            load(wrong)
        assert "secret" not in refused.value.hint
    assert not [path for path in (home / "recipes").iterdir() if path.name.startswith(".")]


def put(prefix, files):
    import boto3

    bucket, _, folder = prefix.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    for name, data in files.items():
        client.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=data)


def test_a_bucket_gives_the_folder_of_a_recipe_as_it_is_now(s3_prefix, home, monkeypatch):
    recipe = f"{s3_prefix}/a/recipe.yaml"
    files = {"a/recipe.yaml": text(RECIPE), "a/net.onnx": "network", "a/photos/1.png": "picture",
             "b/other": "no part of it"}  # fmt: skip
    put(s3_prefix, {name: data.encode() for name, data in files.items()})
    loaded = load(recipe)
    assert (loaded.recipe.name, loaded.origin, loaded.address) == ("tiny", recipe, recipe)
    assert {path.name for path in loaded.folder.rglob("*")} == {
        "recipe.yaml", "net.onnx", "photos", "1.png",
    }  # fmt: skip
    assert (loaded.folder / "net.onnx").read_bytes() == b"network"
    assert load(recipe).folder == loaded.folder
    put(s3_prefix, {"a/net.onnx": b"trained"})
    again = load(recipe)
    assert again.folder != loaded.folder and (again.folder / "net.onnx").read_bytes() == b"trained"
    put(s3_prefix, {"a/code.yaml": text(CODE).encode()})
    with pytest.raises(RecipeError, match=r"model\.source: model:build"):
        load(f"{s3_prefix}/a/code.yaml")
    monkeypatch.setenv(recipe_from.ALLOWED, f"text {s3_prefix}/a")
    assert load(f"{s3_prefix}/a/code.yaml").recipe.model.form == "factory"
    with pytest.raises(RecipeError, match="there is no s3://"):
        load(f"{s3_prefix}/a/none.yaml")
    monkeypatch.setattr(recipe_s3, "MOST_BYTES", 10)
    with pytest.raises(RecipeError, match="4 objects and"):
        load(f"{s3_prefix}/a/recipe.yaml")
    assert not [path for path in (home / "recipes").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../../up", "a//b", "./c", "back\\slash"])
def test_objects_that_would_lie_elsewhere_are_refused(name):
    listing = [
        types.SimpleNamespace(key=key, size_bytes=1, etag="") for key in ("recipe.yaml", name)
    ]
    with pytest.raises(RecipeError, match="which can be no file"):
        recipe_s3._check("s3://b/recipe.yaml", "recipe.yaml", listing)


BRINGS = {
    "a factory": ({"model": CODE["model"]}, "model.source: model:build"),
    "trust": (
        {"model": {**RECIPE["model"], "trust": True, "source": "n.pt2"}}, "model.trust: true",
    ),
    "a decoder": (
        {"task": {"kind": "detection", "layout": "mine:decode", "labels": ["a"]}},
        "task.layout: mine:decode",
    ),
    "pictures": ({"calibration": {"images": "mine:pictures"}}, "calibration.images: mine:pictures"),
    "a target": ({"targets": [{"target": "foreign"}]}, "target: foreign, a plug-in of others.mod"),
    "a package": ({"packages": [{"package": "boxed"}]}, "package: boxed, a plug-in of others.mod"),
    "a task": ({"task": {"kind": "depth"}}, "task.kind: depth, a plug-in of others.mod"),
}  # fmt: skip


@pytest.mark.parametrize("what", BRINGS)
def test_code_is_refused_by_name_unless_the_machine_allows_the_origin(
    what, repository, monkeypatch
):
    """Before anything is imported: the plug-ins' modules do not even exist."""
    for listing, name in ((targets.LISTING, "foreign"), (packaging.LISTING, "boxed"),
                          (tasks.LISTING, "depth")):  # fmt: skip
        monkeypatch.setattr(listing, "_modules", {**listing.modules, name: "others.mod"})
    change, words = BRINGS[what]
    with pytest.raises(RecipeError) as refused:
        load(text({**RECIPE, **change}))
    assert words in refused.value.message and "brings no code" in refused.value.message
    assert f"{recipe_from.ALLOWED}=text" in refused.value.hint
    monkeypatch.setenv(recipe_from.ALLOWED, "https://example.org/team")
    with pytest.raises(RecipeError, match="brings no code"):
        load(text({**RECIPE, **change}))


def test_origins_are_allowed_with_all_that_lies_below_and_nothing_beside(repository, monkeypatch):
    code = address(repository, "models/a/code.yaml")
    for value in ("", "text", "https://example.org/te", "https://example.org/team/model",
                  "https://example.org/team/models/deeper", "s3://example.org/team"):  # fmt: skip
        monkeypatch.setenv(recipe_from.ALLOWED, value)
        with pytest.raises(RecipeError, match=r"from https://example.org/team/models brings no"):
            load(code)
    for value in (
        "https://example.org/team/models",
        "https://example.org/",
        "text, https://example.org/team",
    ):
        monkeypatch.setenv(recipe_from.ALLOWED, value)
        assert load(code).recipe.model.source == "model:build"


def test_labels_of_this_machine_are_not_read_out(repository, monkeypatch, tmp_path):
    monkeypatch.setenv(recipe_from.ALLOWED, "text")  # that is about code
    (tmp_path / "secret.txt").write_text("a\nb\n")
    for labels in (str(tmp_path / "secret.txt"), "../secret.txt"):
        with pytest.raises(RecipeError, match="may not have files of this machine read out"):
            load(text({**RECIPE, "task": {"kind": "classification", "labels": labels}}))
    Path("labels.txt").write_text("a\nb\n")
    assert load(address(repository, "models/a/top.yaml")).labels == ("a", "b")
    with pytest.raises(RecipeError, match="may not have files of this machine read out"):
        load(address(repository, "models/a/out.yaml"))
    inside = {**RECIPE, "task": {"kind": "classification", "labels": "labels.txt"}}
    assert load(text(inside)).labels == ("a", "b")


class TestOverrides:
    def test_targets_are_chosen_or_added_and_precisions_replaced(self):
        loaded = load(text(RECIPE), targets=["null"], precisions=["fp32"])
        (spec,) = loaded.recipe.targets
        assert (spec.target, spec.precisions, spec.options) == ("null", ("fp32",), {"act": "ship"})
        loaded = load(text(RECIPE), targets=["openvino", "onnxruntime-cpu"])
        assert [(s.target, s.required) for s in loaded.recipe.targets] == [
            ("openvino", True), ("onnxruntime-cpu", False),
        ]  # fmt: skip

    def test_limits_replace_the_recipes_and_others_stay(self):
        budget = load(text(RECIPE), budget={"max_drop": 0.02, "max_p50_ms": 9}).recipe.budget
        assert (budget.max_drop, budget.max_p50_ms, budget.max_size_mib) == (0.02, 9, 5)
        assert (
            load(text({**RECIPE, "budget": None}), budget={"max_drop": 0}).recipe.budget.max_drop
            == 0
        )

    def test_what_ran_can_be_run_again_from_what_is_kept(self):
        loaded = load(text(RECIPE), targets=["null"], precisions=["fp16"], budget={"max_drop": 0.5})
        said = "targets null; precisions fp16; budget.max_drop 0.5"
        assert loaded.text.startswith(f"# Of the recipe's text, for one run: {said}\n")
        again = load(loaded.text)
        assert again.sha256 == loaded.sha256 != load(text(RECIPE)).sha256
        assert load(text(RECIPE)).text == text(RECIPE)

    def test_the_recipes_rules_hold_for_them(self):
        for overrides, words in (
            ({"targets": ["nonsense"]}, "nonsense"),
            ({"precisions": ["int3"]}, "int3"),
            ({"precisions": ["fp32", "fp32"]}, "fp32"),
            ({"budget": {"max_drop": -1}}, "must be numbers of at least 0"),
        ):
            with pytest.raises(RecipeError, match=words):
                load(text(RECIPE), **overrides)

    def test_a_file_takes_them_too(self, tmp_path):
        path = EXAMPLES / "resnet20_cifar10" / "recipe.yaml"
        loaded = load(str(path), targets=["onnxruntime-cpu"], precisions=["fp32"])
        assert [spec.precisions for spec in loaded.recipe.targets] == [("fp32",)]
        assert loaded.origin == str(path) and loaded.address == ""

    def test_the_command_has_them(self):
        parser = ship_command._parser()
        given = ["r.yaml", "--target", "null", "--target", "openvino", "--precision", "fp32",
                 "--budget", "max_drop=0.02"]  # fmt: skip
        overrides = ship_command.overrides_of(parser.parse_args(given))
        assert overrides == Overrides.model_validate(
            {"targets": ["null", "openvino"], "precisions": ["fp32"], "budget": {"max_drop": 0.02}}
        )
        for wrong in ("max_dorp=1", "max_drop=much", "max_drop"):
            with pytest.raises(RecipeError, match="--budget max_d"):
                ship_command.overrides_of(parser.parse_args(["r.yaml", "--budget", wrong]))

    def test_a_text_on_standard_input_is_read(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(read=lambda: text(CODE)))
        options = argparse.Namespace(**vars(ship_command._parser().parse_args(["-", "--dry-run"])))
        with pytest.raises(RecipeError, match="brings no code"):
            ship_command._run(options, None)


def test_the_form_has_all_of_it_and_a_worker_takes_it():
    schema = ship_flow.ship.parameters.model_dump()
    assert set(schema["properties"]) == {"recipe", "fleet", "overrides", "registered"}
    assert schema["required"] == ["recipe"]
    assert "git+https://" in schema["properties"]["recipe"]["description"]
    fields = schema["definitions"]
    assert set(fields["Overrides"]["properties"]) == {"targets", "precisions", "budget"}
    assert set(fields["BudgetOverrides"]["properties"]) == {
        "max_drop", "max_p50_ms", "max_p95_ms", "max_p99_ms", "max_size_mib",
    }  # fmt: skip
    sent = {"recipe": text(RECIPE), "overrides": {"targets": ["null"], "budget": {"max_drop": 1}}}
    taken = ship_flow.ship.validate_parameters(sent)
    assert taken["overrides"].targets == ("null",) and taken["overrides"].budget.max_drop == 1
    with pytest.raises(Exception, match="extra|permitted"):
        ship_flow.ship.validate_parameters({"recipe": "a", "overrides": {"target": ["null"]}})


def test_a_run_has_a_short_name_whatever_its_recipe_is():
    commit = "0123456789ab" * 3 + "cdef"
    assert recipe_from.title("examples/a/recipe.yaml") == "examples/a/recipe.yaml"
    assert recipe_from.title(text(RECIPE)) == "tiny (text)"
    assert recipe_from.title('{"name": "tiny"}') == "tiny (text)"
    assert recipe_from.title("a: 1\nb: 2") == "a recipe's text"
    assert (
        recipe_from.title(f"git+https://a/b@{commit}#r.yaml")
        == "git+https://a/b@0123456789ab#r.yaml"
    )


def test_the_whole_preflight_takes_a_text(tmp_path):
    net = Path("net.onnx")
    from tests.builders import conv_net

    conv_net(net)
    loaded, plan = ship_flow.preflight(
        text(RECIPE), overrides=Overrides.model_validate({"targets": ["onnxruntime-cpu"]})
    )
    assert [variant.name for variant in plan.variants] == ["onnxruntime-cpu/fp32"]
    assert loaded.folder == Path.cwd()

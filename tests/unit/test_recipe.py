"""A recipe is read once and strictly: whatever is wrong is named, with a next step."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from engineworks import hosts, recipe, targets
from engineworks import plan as planning
from engineworks.calibrate.ranges import METHODS
from engineworks.errors import DataError, ModelError, RecipeError
from tests.builders import EXAMPLES, ROOT, write

BASE = {
    "name": "tiny",
    "model": {"source": "tinymodel:build", "weights": "w.pt", "input": {"size": [16, 16]}},
    "targets": [{"target": "null", "precisions": ["fp32"]}],
}
MODEL = "def build(width=1):\n    return width\n"


@pytest.fixture
def folder(tmp_path):
    """A recipe's folder with all that `BASE` needs."""
    write(tmp_path / "tinymodel.py", MODEL)
    (tmp_path / "w.pt").write_bytes(b"weights")
    write(tmp_path / "labels.txt", "cat\ndog\n")
    return tmp_path


def changed(*changes):
    """BASE with ("a.b.c", value) set, or removed for None."""
    raw = copy.deepcopy(BASE)
    for path, value in changes:
        *parents, last = path.split(".")
        at = raw
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
    return raw


def load(folder, raw):
    text = raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return recipe.load(folder / "recipe.yaml")


def test_recipes_of_before_there_were_packages_keep_their_identity(folder):
    plain = load(folder, changed())
    assert load(folder, changed(("packages", []))).sha256 == plain.sha256
    asked = load(folder, changed(("packages", [{"package": "triton"}])))
    assert asked.sha256 != plain.sha256


#: Example -> classes.
EXAMPLE_NAMES = {
    "yolox_nano": 80, "resnet20_cifar10": 10, "shapes_segmentation": 4, "figures_keypoints": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLE_NAMES)
def test_an_example_recipe_loads_and_its_model_is_found(name):
    loaded = recipe.load(EXAMPLES / name / "recipe.yaml")
    pinned = recipe.pin_model(loaded)
    assert len(pinned.bytes_sha256) == len(pinned.code_sha256) == 64
    assert len(loaded.labels) == EXAMPLE_NAMES[name]
    assert {variant.target for variant in planning.plan(loaded.recipe.targets).variants} <= set(
        targets.names()
    )


def test_left_out_keys_get_their_defaults(folder):
    loaded = load(folder, BASE).recipe
    assert (loaded.task.kind, loaded.export.opset, loaded.benchmark.batches) == ("none", 20, (1,))


MISTAKES = {
    "an unknown key": ([("taks", {"kind": "none"})], "taks", "'task'"),
    "an unknown nested key": ([("model.input.sise", [8, 8])], "model.input.sise", "'size'"),
    "an unknown key of a target": (
        [("targets.0.precision", ["fp32"])], "targets.0.precision", "'precisions'",
    ),
    "an unknown key like no other": ([("model.input.zzz", 1)], "zzz", "size, name, channels"),
    "a missing section": ([("model", None)], "model: missing", "add model"),
    "a missing key": ([("model.input", None)], "model.input: missing", "add model.input"),
    "text for a number": ([("model.input.size", [16, "wide"])], "'wide'", "model.input.size"),
    "one number for two": ([("model.input.size", 16)], "16", "model.input.size"),
    "a number for a list": ([("benchmark.batches", 4)], "4", "benchmark.batches"),
    "a word that is no choice": ([("preprocess.resize", "squash")], "'squash'", "preprocess"),
    "a name with spaces": ([("name", "My Model")], "'My Model'", "name"),
    "another format version": ([("version", 2)], "2", "version"),
    "true for a number": ([("model.input.size", [True, 32])], "size.0: true", "size.0"),
    "an endless budget": ([("budget.max_drop", float("inf"))], "inf", "leave a limit out"),
    "no name at all": ([("task.labels", ["", " "])], "all 2 names are empty", "name the classes"),
    "numbers as names": ([("task.labels", [0, 1])], "task.labels.1: YAML reads 1 ", "in quotes"),
    "yes as a name": ([("task.labels", ["x", True])], "task.labels.1: YAML reads true", "quotes"),
    "one number as names": ([("task.labels", 5)], "task.labels: YAML reads 5 ", "in quotes"),
    "no target": ([("targets", [])], "targets", "targets"),
    "an unknown target": ([("targets.0.target", "nul")], "'nul'", "onnxruntime-cpu"),
    "an unknown precision": ([("targets.0.precisions", ["fp8"])], "'fp8'", "fp32, fp16"),
    "an unknown package": ([("packages", [{"package": "bento"}])], "'bento'", "triton"),
    "a package twice": ([("packages", [{"package": "triton"}] * 2)], "triton", "once"),
    "an option that a package lacks": (
        [("packages", [{"package": "triton", "options": {"cach": 1}}])], "'cach'", "cache_mib",
    ),
    "a value that a package's option has not": (
        [("packages", [{"package": "triton", "options": {"backend": "rust"}}])],
        "'rust'", "python",
    ),
    "no photo to prove with": (
        [("packages", [{"package": "triton", "photos": 0}])], "photos 0", "8",
    ),
    "an unknown option": ([("targets.0.options", {"axt": 1})], "'axt'", "act"),
    "one variant twice": (
        [("targets", [{"target": "null"}, {"target": "null", "precisions": ["fp16", "fp32"]}])],
        "null/fp32", "once",
    ),
    "one label twice": (
        [("targets", [{"target": "null", "label": "a"}, {"target": "null", "label": "a"}])],
        "null/fp32:a stands there twice", "a label each",
    ),
    "two sets of options under one name": (
        [("targets", [{"target": "null"},
                      {"target": "null", "precisions": ["fp16"], "options": {"act": "ship"}}])],
        "null stands there with two sets of options", "give one of them a label",
    ),
    "two labels that mean the same": (
        [("targets", [{"target": "null", "label": "a"}, {"target": "null"}])],
        "null/fp32:a and null/fp32 have the same options", "change the options",
    ),
    "a label that is no name": (
        [("targets.0.label", "two--dashes")], "'two--dashes'", "single - or _",
    ),
    "an upper-case label": ([("targets.0.label", "Graph")], "'Graph'", "a-z"),
    "a label with a slash": ([("targets.0.label", "a/b")], "'a/b'", "a-z"),
    "a label that never ends": ([("targets.0.label", "a" * 32)], "aaa", "up to 31"),
    "a size as text": (
        [("model.input.size", ["32", 32])], 'size.0: "32" is text, no number', "without quotes",
    ),
    "a number for trust": ([("model.trust", 1)], "trust: 1 is neither", "write true or false"),
    "a word for trust": ([("model.trust", "yes")], 'trust: "yes" is neither', "without quotes"),
    "a broken size": (
        [("model.input.size", [32.0, 32])], "size.0: 32.0 is no whole number", "without a point",
    ),
    "p99 from few calls": (
        [("budget.max_p99_ms", 5.0)], "benchmark.calls is 30", "calls: 660",
    ),
    "batches with a fixed batch": (
        [("benchmark.batches", [1, 8]), ("export.dynamic_batch", False)],
        "8", "dynamic_batch: true",
    ),
    "gray with three channels": (
        [("preprocess", {"color": "gray", "mean": [0.0], "std": [1.0]})], "gray", "channels: 1",
    ),
    "one channel with rgb": ([("model.input.channels", 1)], "1", "gray"),
    "a classification without labels": (
        [("task", {"kind": "classification"}), ("data", {"images": "x"})], "labels", "names",
    ),
    "sizes of a model with one size": (
        [("model", {"source": "net.onnx", "input": {"size": [16, 16]}}),
         ("benchmark.sizes", [[16, 16], [32, 32]])], "onnx", "factory",
    ),
    "int8 without calibration": (
        [("targets", [{"target": "onnxruntime-cpu", "precisions": ["fp32", "int8"]}])],
        "int8 must see which values occur", "calibration.images",
    ),
    "an unknown way to choose ranges": (
        [("int8", {"methods": ["minmax", "percentile-99"]})], "'percentile-99'", "percentile-99.9",
    ),
    "an unknown key of calibration": (
        [("calibration", {"images": "x", "imagez": 3})], "calibration.imagez", "'images'",
    ),
    "calibration without images": ([("calibration", {"limit": 32})], "calibration.images", "add"),
    "too small a limit of calibration": (
        [("calibration", {"images": "x", "limit": 8})], "minimum 16 and limit 8", "minimum: 16",
    ),
    "annotations of images that have no names": (
        [("calibration", {"images": "a:b", "annotations": "x.json"})], "'a:b'", "annotations",
    ),
    "an unknown goal": ([("int8", {"goal": "speed"})], "'speed'", "int8.goal"),
    "no time to search": ([("int8", {"limit_s": 0})], "limit_s 0", "defaults"),
}  # fmt: skip


class TestInt8:
    INT8 = ("targets", [{"target": "onnxruntime-cpu", "precisions": ["int8"]}])

    def test_calibration_images_are_found_beside_the_recipe(self, folder):
        files = {"images": "pics", "annotations": "pics.json"}
        found = load(folder, changed(self.INT8, ("calibration", files))).recipe.calibration
        assert found.images == str(folder / "pics")
        assert found.annotations == str(folder / "pics.json")
        assert (found.minimum, found.limit, found.on_bad_image) == (16, 512, "stop")

    def test_a_function_that_makes_them_is_no_path(self, folder):
        made = load(folder, changed(self.INT8, ("calibration", {"images": "frames:walk"})))
        assert made.recipe.calibration.images == "frames:walk"
        assert made.recipe.calibration.made
        path = load(folder, changed(self.INT8, ("calibration", {"images": "a.b/c"})))
        assert not path.recipe.calibration.made

    def test_a_model_file_may_be_quantized_already(self, folder):
        """Only its operators tell, and nothing is opened here."""
        model = {"source": "net.onnx", "input": {"size": [16, 16]}}
        assert load(folder, changed(self.INT8, ("model", model))).recipe.calibration is None

    def test_without_int8_no_calibration_is_asked_for(self, folder):
        assert load(folder, BASE).recipe.calibration is None

    @pytest.mark.parametrize("value", [None, *METHODS])
    def test_every_method_can_be_asked_for(self, folder, value):
        wanted = [] if value is None else [("int8", {"methods": [value]})]
        found = load(folder, changed(*wanted)).recipe.int8
        assert set(found.methods) <= set(METHODS)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_a_next_step(folder, mistake):
    changes, value, step = MISTAKES[mistake]
    with pytest.raises(RecipeError) as caught:
        load(folder, changed(*changes))
    assert value in caught.value.message
    assert step in caught.value.hint


HOSTILE = ROOT / "tests" / "cases" / "hostile"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [unclosed", "not YAML"),
        ("name: a\n\tmodel: b", "not YAML"),
        ("- a\n- b\n", "list"),
        ("just words", "str"),
        ("", "recipe.yaml is empty"),
        ("name: tiny\nwhen: 2026-13-45\n", "when"),
        ("1: 2\nname: tiny\n", "1"),
        ((HOSTILE / "lol.yaml").read_text(), "references stand for"),
        ("name: " + "[" * 100_000, "more than 64 deep"),
        ("a: &a [*a]", "holds itself"),
        ("a: &a {b: *a}", "holds itself"),
        ("name: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)), "64"),
        ("? [a, b]\n: 1", "a key must be a word"),
        ('name: "a\\0b"', "zero byte"),
        ('name: "\\ud800"', "half of a character"),
        ("name: " + "9" * 5000, "not YAML"),
        ("name: !!python/object/apply:os.system [ls]", "not YAML"),
    ],
    ids=[
        *("brackets", "tab", "list", "text", "empty", "no date", "number as key", "bomb", "deep"),
        *("itself", "its own value", "chain", "key", "zero", "half", "long number", "code"),
    ],
)
def test_a_file_that_is_no_mapping_of_sections_is_refused(folder, text, says):
    with pytest.raises(RecipeError, match=says) as caught:
        load(folder, text)
    assert "recipe.yaml" in caught.value.message


def test_references_are_read_where_they_stand_for_little(folder):
    text = yaml.safe_dump(BASE)
    more = "targets:\n- &first {target: 'null', precisions: [fp32]}\n"
    raw = yaml.safe_load(text)
    raw.pop("targets")
    loaded = load(folder, yaml.safe_dump(raw) + more + "- <<: *first\n  precisions: [fp16]\n")
    assert [spec.precisions for spec in loaded.recipe.targets] == [("fp32",), ("fp16",)]


def test_a_recipe_of_megabytes_a_pipe_or_a_folder_is_refused_by_name(folder):
    (folder / "recipe.yaml").write_text("#" * 2**21)
    with pytest.raises(RecipeError, match="2,097,152 bytes"):
        recipe.load(folder / "recipe.yaml")
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(RecipeError, match="is a pipe"):
        recipe.load(folder / "pipe.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        recipe.load(Path())


def test_a_key_that_stands_there_twice_is_refused(folder):
    """YAML forbids it; a parser that takes the last one hides a mistake."""
    text = yaml.safe_dump(BASE) + "budget: {max_drop: 0.001}\nbudget: {max_drop: 0.9}\n"
    with pytest.raises(RecipeError, match="budget"):
        load(folder, text)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "recipe.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="not YAML"):
        recipe.load(folder / "recipe.yaml")


@pytest.mark.parametrize("where", ["nothing.yaml", ".", "tinymodel.py/recipe.yaml"])
def test_a_recipe_that_is_no_file_is_refused(folder, where):
    with pytest.raises(RecipeError) as caught:
        recipe.load(folder / where)
    assert str(folder) in caught.value.message


def test_minutes_and_seconds_are_no_number(folder):
    """YAML 1.1 reads 1:30 as ninety."""
    with pytest.raises(RecipeError, match=r"max_p50_ms: .*'1:30'"):
        load(folder, yaml.safe_dump(BASE) + "budget: {max_p50_ms: 1:30}\n")


@pytest.mark.parametrize("size", ["010", "08", "+012", "0_8"])
def test_digits_behind_a_zero_are_no_number(folder, size):
    """YAML 1.1 reads 010 as eight, and 08 as text."""
    text = yaml.safe_dump(BASE).replace("- 16", f"- {size}", 1)
    assert size in text
    with pytest.raises(RecipeError, match="is text, no number") as caught:
        load(folder, text)
    assert "zeros in front" in caught.value.hint


def test_names_of_digits_behind_a_zero_are_names(folder):
    text = yaml.safe_dump(BASE) + "task: {labels: [007, 08, 0x]}\n"
    assert load(folder, text).labels == ("007", "08", "0x")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2E2", 200.0), ("1.5e3", 1500.0), ("1.e1", 10.0), ("0", 0)]
)
def test_a_number_may_have_an_exponent(folder, text, value):
    """YAML 1.1 reads most of them as text."""
    made = load(folder, yaml.safe_dump(BASE) + f"budget: {{max_p50_ms: {text}}}\n")
    assert made.recipe.budget.max_p50_ms == value
    quoted = yaml.safe_dump(BASE) + f"budget: {{max_p50_ms: '{text}'}}\n"
    with pytest.raises(RecipeError, match="is text, no number"):
        load(folder, quoted)


def test_two_sets_of_options_of_one_target_are_two_variants(folder):
    first = {"target": "null", "precisions": ["fp32", "fp16"]}
    second = {"target": "null", "label": "drift", "options": {"act": "drift"}}
    loaded = load(folder, changed(("targets", [first, second])))
    names = [(v.name, v.options) for v in planning.plan(loaded.recipe.targets).variants]
    assert names == [
        ("null/fp32", {}), ("null/fp16", {}), ("null/fp32:drift", {"act": "drift"}),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [True, [True, 1], {"a": False}])
def test_a_boolean_stays_one_where_anything_goes(folder, value):
    made = load(folder, changed(("model.arguments", {"width": value}), ("model.trust", True)))
    assert made.recipe.model.arguments == {"width": value}


def test_a_date_stays_text(folder):
    raw = yaml.safe_dump(changed(("model.arguments", {"when": "DATE"}))).replace(
        "DATE", "2026-01-01"
    )
    assert load(folder, raw).recipe.model.arguments == {"when": "2026-01-01"}


@pytest.mark.parametrize(
    ("value", "what"),
    [("{1: a}", "width: YAML reads the key 1 there"),
     ("[{deep: {true: a}}]", "width.0.deep: YAML reads the key true there"),
     ("{~: a}", "width: YAML reads the key null there"),
     ("!!set {a, b}", "width: YAML reads set there"),
     ("!!binary aGVsbG8=", "width: YAML reads bytes there")],
)  # fmt: skip
def test_what_stages_would_receive_as_something_else_is_refused(folder, value, what):
    """A factory would get the key "1" for 1, and both recipes had one digest."""
    raw = yaml.safe_dump(changed(("model.arguments", {"width": "VALUE"})))
    with pytest.raises(RecipeError) as caught:
        load(folder, raw.replace("VALUE", value))
    assert f"model.arguments.{what}" in caught.value.message
    assert "in quotes" in caught.value.hint


def test_a_key_in_quotes_may_look_like_a_number(folder):
    raw = yaml.safe_dump(changed(("model.arguments", {"width": {"1": 2}})))
    assert load(folder, raw).recipe.model.arguments == {"width": {"1": 2}}


class TestLabels:
    RAW = changed(
        ("task", {"kind": "classification", "labels": "labels.txt"}), ("data", {"images": "x"})
    )

    def test_come_from_a_file(self, folder):
        (folder / "labels.txt").write_text("cat\n dog \n\n")
        assert load(folder, self.RAW).labels == ("cat", "dog")

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_an_empty_line_keeps_its_place(self, folder, end):
        lines = ["", "cat", "", " ", "dog", "", ""]
        (folder / "labels.txt").write_bytes(end.join(lines).encode())
        assert load(folder, self.RAW).labels == ("0", "cat", "2", "3", "dog")

    def test_an_empty_name_in_a_list_keeps_its_place(self, folder):
        raw = changed(
            ("task", {"kind": "classification", "labels": ["cat", "", "dog", ""]}),
            ("data", {"images": "x"}),
        )
        assert load(folder, raw).labels == ("cat", "1", "dog", "3")

    def test_only_line_ends_end_a_name(self, folder):
        names = ["a\u2028b", "c\u00a0d", "e\u2029f"]
        (folder / "labels.txt").write_text("\n".join(names), encoding="utf-8")
        assert load(folder, self.RAW).labels == tuple(names)

    def test_what_is_no_text_is_refused(self, folder):
        (folder / "labels.txt").write_bytes(b"cat\n\0\x01\n")
        with pytest.raises(DataError, match="no readable name"):
            load(folder, self.RAW)

    def test_one_name_spelled_in_two_ways_is_named_twice(self, folder):
        (folder / "labels.txt").write_text("caf\u00e9\ncafe\u0301\n", encoding="utf-8")
        with pytest.raises(DataError, match="twice"):
            load(folder, self.RAW)

    def test_a_byte_order_mark_is_no_part_of_a_name(self, folder):
        (folder / "labels.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
        assert load(folder, self.RAW).labels == ("cat", "dog")

    def test_a_missing_file_is_named(self, folder):
        (folder / "labels.txt").unlink()
        with pytest.raises(DataError) as caught:
            load(folder, self.RAW)
        assert str(folder / "labels.txt") in caught.value.message
        assert "one class name per line" in caught.value.hint

    def test_a_file_that_is_no_text_is_named(self, folder):
        (folder / "labels.txt").write_bytes(b"caf\xe9\ndog\n")
        with pytest.raises(DataError, match=r"labels\.txt"):
            load(folder, self.RAW)

    def test_an_empty_file_is_refused(self, folder):
        (folder / "labels.txt").write_text("\n")
        with pytest.raises(RecipeError, match="labels"):
            load(folder, self.RAW)

    def test_a_class_named_twice_is_refused(self, folder):
        (folder / "labels.txt").write_text("cat\ndog\ncat\n")
        with pytest.raises(DataError, match="twice"):
            load(folder, self.RAW)


class TestPinModel:
    def test_missing_weights_are_named(self, folder):
        (folder / "w.pt").unlink()
        with pytest.raises(ModelError) as caught:
            recipe.pin_model(load(folder, BASE))
        assert str(folder / "w.pt") in caught.value.message
        assert "relative" in caught.value.hint

    def test_weights_that_are_a_pipe_are_not_called_missing(self, folder):
        (folder / "w.pt").unlink()
        os.mkfifo(folder / "w.pt")
        with pytest.raises(ModelError, match="is no ordinary file"):
            recipe.pin_model(load(folder, BASE))

    def test_empty_weights_are_named(self, folder):
        (folder / "w.pt").write_bytes(b"")
        with pytest.raises(ModelError, match="empty") as caught:
            recipe.pin_model(load(folder, BASE))
        assert "model.weights" in caught.value.message

    def test_a_missing_model_file_is_named(self, folder):
        model = {"source": "net.onnx", "input": {"size": [16, 16]}}
        with pytest.raises(ModelError, match=r"model\.source: .*net\.onnx"):
            recipe.pin_model(load(folder, changed(("model", model))))

    @pytest.mark.parametrize("source", ["nowhere:build", "time:sleep"])
    def test_a_module_without_python_files_is_named(self, folder, source):
        raw = changed(("model.source", source))
        with pytest.raises(ModelError, match=source):
            recipe.pin_model(load(folder, raw))

    def test_a_factory_of_an_installed_package_is_found(self, folder):
        raw = changed(("model.source", "jsonschema.validators:validate"))
        assert len(recipe.pin_model(load(folder, raw)).code_sha256) == 64

    @pytest.mark.parametrize("changed_file", ["w.pt", "tinymodel.py", "helper.py"])
    def test_one_changed_byte_changes_the_digest(self, folder, changed_file):
        (folder / "helper.py").write_text("x = 1\n")
        before = recipe.pin_model(load(folder, BASE))
        with (folder / changed_file).open("ab") as stream:
            stream.write(b"#")
        after = recipe.pin_model(load(folder, BASE))
        assert after.bytes_sha256 + after.code_sha256 != before.bytes_sha256 + before.code_sha256

    def test_no_code_is_run(self, folder):
        write(folder / "tinymodel.py", "raise SystemExit('imported')")
        assert recipe.pin_model(load(folder, BASE)).code_sha256


class TestDigest:
    def test_moving_the_folder_changes_nothing(self, folder, tmp_path_factory):
        raw = changed(
            ("task", {"kind": "classification", "labels": "labels.txt"}), ("data.images", "pics")
        )
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "deeper"
        shutil.copytree(folder, elsewhere)
        assert load(elsewhere, raw).sha256 == load(folder, raw).sha256

    def test_comments_and_key_order_change_nothing(self, folder):
        text = yaml.safe_dump(dict(reversed(BASE.items())), sort_keys=False)
        assert load(folder, "# a note\n" + text).sha256 == load(folder, BASE).sha256

    def test_writing_a_default_out_changes_nothing(self, folder):
        same = load(folder, changed(("export.opset", 20)))
        assert same.sha256 == load(folder, BASE).sha256

    @pytest.mark.parametrize(
        "change",
        [
            ("name", "other"),
            ("model.input.size", [16, 24]),
            ("model.arguments", {"width": 2}),
            ("preprocess.scale", 1.0),
            ("targets.0.options", {"act": "ship"}),
            ("targets.0.required", False),
            ("budget.max_drop", 0.5),
            ("benchmark.seconds", 1.0),
        ],
        ids=lambda change: change[0],
    )
    def test_another_value_changes_it(self, folder, change):
        assert load(folder, changed(change)).sha256 != load(folder, BASE).sha256

    def test_another_label_changes_it(self, folder):
        raw = changed(("task.labels", "labels.txt"))
        before = load(folder, raw).sha256
        (folder / "labels.txt").write_text("cat\nwolf\n")
        assert load(folder, raw).sha256 != before


class TestPlan:
    def test_every_variant_is_planned_in_the_recipes_order(self, folder):
        wanted = [
            {"target": "openvino", "precisions": ["fp16", "fp32"], "required": False},
            {"target": "null"},
        ]
        plan = planning.plan(load(folder, changed(("targets", wanted))).recipe.targets)
        names = [variant.name for variant in plan.variants]
        assert names == ["openvino/fp16", "openvino/fp32", "null/fp32"]
        assert [variant.required for variant in plan.variants] == [False, False, True]

    def test_a_target_whose_package_is_missing_is_skipped_with_its_name(self, folder):
        bare = type(card := hosts.probe())(**{**vars(card), "packages": {}})
        raw = changed(("targets", [{"target": "openvino"}, {"target": "null"}]))
        skipped, runs = planning.plan(load(folder, raw).recipe.targets, bare).variants
        assert (skipped.action, runs.action) == ("skip", "run")
        assert "openvino" in skipped.reason
        assert runs.reason == ""


def test_the_resolved_recipe_holds_every_section(folder):
    sections = json.loads(recipe.resolved(load(folder, BASE)))
    assert set(sections) == set(recipe.Recipe.model_fields)
    assert sections["limits"]["build_s"] == 1800.0


class TestSchema:
    def test_the_committed_schema_is_the_current_one(self):
        path = ROOT / "docs" / "recipe.schema.json"
        if not path.is_file():
            pytest.skip("docs/recipe.schema.json is not written yet")
        assert json.loads(path.read_text(encoding="utf-8")) == recipe.json_schema()

    @pytest.mark.parametrize("name", EXAMPLE_NAMES)
    def test_an_example_validates(self, name):
        raw = yaml.safe_load((EXAMPLES / name / "recipe.yaml").read_text(encoding="utf-8"))
        jsonschema.validate(raw, recipe.json_schema())

    @pytest.mark.parametrize("mistake", ["an unknown key", "text for a number", "a missing key"])
    def test_an_editor_sees_a_mistake(self, mistake):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed(*MISTAKES[mistake][0]), recipe.json_schema())

    def test_every_key_is_described(self):
        schema = recipe.json_schema()

        def undescribed(section, at=""):
            for name, entry in section.get("properties", {}).items():
                described = schema["$defs"].get(entry.get("$ref", "").rpartition("/")[2], {})
                if "description" not in {**described, **entry}:
                    yield f"{at}.{name}"

        found = [*undescribed(schema)]
        for name, definition in schema["$defs"].items():
            found += undescribed(definition, name)
        assert found == []

"""The documents say what the code does: links, keys, defaults, fields, examples."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import typing
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from artifacts.summary import Summary
from docs import write
from engineworks import hosts, recipe, targets
from engineworks.codec import to_json
from engineworks.facts.plan import Outcome
from engineworks.manifest import Artifact
from engineworks.recipe import Recipe
from engineworks.runtime.heads.detection import DetectionPostprocessor
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.session import open_engine
from engineworks.specs import InputSpec, Preprocess, TargetSpec, TaskSpec
from tests import builders

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))
    if path.is_file()
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def blocks(page, language):
    """Contents of a page's fenced blocks of one language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(page, heading):
    """A page's text below a heading, up to the next heading of any level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    assert found, f"{page} has no heading {heading!r}"
    return found[1]


def rows(text):
    """Cells of the table rows of a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def anchors(path):
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_and_json_blocks_are_valid(page):
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        ast.parse(code)
    for code in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        json.loads(code)


class TestRecipe:
    SECTIONS = typing.get_type_hints(Recipe)

    def sections(self):
        """(heading, dataclass) of every section of a recipe."""
        found = [("`model.input`", InputSpec), ("`targets`", TargetSpec)]
        for name in Recipe.model_fields:
            options = (self.SECTIONS[name], *typing.get_args(self.SECTIONS[name]))
            kind = next((option for option in options if dataclasses.is_dataclass(option)), None)
            if kind is not None and kind is not TargetSpec:
                found.append((f"`{name}`", kind))
        return found

    def test_every_top_level_key_has_a_row(self):
        documented = [row[0] for row in rows(section("recipe.md", "Top level"))]
        assert [f"`{name}`" for name in Recipe.model_fields] == documented[2:]

    def test_every_key_has_a_row_with_its_default(self):
        assert len(self.sections()) == 14
        for heading, kind in self.sections():
            table = {
                row[0].strip("`"): row[1].strip("`")
                for row in rows(section("recipe.md", heading))
                if len(row) == 3
            }
            fields = {field.name: field for field in dataclasses.fields(kind)}
            assert set(fields) == set(table) - {"key", "---"}, heading
            for name, field in fields.items():
                assert self.reads(table[name]) == self.default(field), f"{heading} {name}"

    def default(self, field):
        if field.default_factory is not dataclasses.MISSING:
            return to_json(field.default_factory())
        return "required" if field.default is dataclasses.MISSING else to_json(field.default)

    def reads(self, cell):
        if re.fullmatch(r"\d+/\d+", cell):
            return float(Fraction(cell))
        return yaml.safe_load(cell)

    @pytest.mark.parametrize("position", range(len(blocks("recipe.md", "yaml"))))
    def test_every_yaml_block_is_accepted(self, position, tmp_path):
        asked = yaml.safe_load(blocks("recipe.md", "yaml")[position])
        if "name" not in asked:  # a part: add what is missing
            model = {"source": "model:build", "input": {"size": [32, 32]}}
            asked = {"name": "part", "model": model, "targets": [{"target": "null"}], **asked}
        jsonschema.validate(asked, recipe.json_schema())
        if isinstance(labels := asked.get("task", {}).get("labels"), str):
            (tmp_path / labels).write_text("cat\ndog\n")
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(asked))
        assert recipe.load(path).recipe.name == asked["name"]

    def test_the_minimal_recipe_comes_first_and_is_short(self):
        first = blocks("recipe.md", "yaml")[0]
        assert len(first.splitlines()) <= 10
        assert "name" in yaml.safe_load(first)

    def test_the_examples_are_accepted(self):
        for path in sorted((ROOT / "examples").glob("*/recipe.yaml")):
            jsonschema.validate(yaml.safe_load(path.read_text()), recipe.json_schema())
            recipe.load(path)

    def test_the_parity_rules_are_those_of_the_code(self):
        from engineworks.precisions import PRECISIONS

        judged = {name: row.judged for name, row in PRECISIONS.items()}
        alone = {name: row.alone for name, row in PRECISIONS.items()}
        text = section("recipe.md", "`budget`")
        assert {"fp32", "fp16", "bf16", "w8a16", "int8"} == set(PRECISIONS)
        assert f"| fp32 | relative difference at most {judged['fp32'].max_relative:g} |" in text
        for precision in ("fp16", "bf16"):
            (row,) = (row for row in rows(text) if row[0] == precision)
            assert f"at least {judged[precision].min_snr_db:g} dB" in row[1]
        unlimited = {name for name, limit in judged.items() if str(limit).startswith("no limit")}
        assert unlimited == {"w8a16", "int8"}
        (row,) = (row for row in rows(text) if row[0] == "w8a16, int8")
        assert alone["w8a16"].min_snr_db == alone["int8"].min_snr_db
        assert "where a task metric judges: no numeric rule" in row[1]
        assert f"else SNR at least {alone['int8'].min_snr_db:g} dB" in row[1]
        plain = {judged[name].identical for name in ("fp32", "fp16", "bf16")}
        assert f"relative difference of {plain.pop():.4f}" in " ".join(text.split())
        assert not plain
        assert f"(int8: {alone['int8'].identical:g}," in text
        assert judged["int8"].identical == alone["int8"].identical


class TestDecoder:
    """The decoder of 'Your own decoder', on a made-up DETR head."""

    def decode(self):
        (code,) = (code for code in blocks("recipe.md", "python") if "def decode" in code)
        scope = {}
        exec(code, scope)  # noqa: S102 - the document's own text
        return scope["decode"]

    def outputs(self):
        logits = np.zeros((4, 4), np.float32)  # three classes and "no object"
        logits[:, 3] = 5
        logits[1] = [0, 9, 0, 0]
        logits[2] = [0, 8, 0, 0]
        logits[3] = [7, 0, 0, 0]
        boxes = np.array(
            [[0.5, 0.5, 1, 1], [0.5, 0.25, 0.5, 0.1], [0.5, 0.25, 0.5, 0.1], [0.1, 0.9, 0.1, 0.2]],
            np.float32,
        )
        return {"logits": logits, "boxes": boxes}

    def test_it_gives_boxes_scores_and_classes(self):
        xyxy, scores, class_id = self.decode()(self.outputs(), (100, 200), 0.5)
        np.testing.assert_allclose(xyxy[0], [50, 20, 150, 30], rtol=1e-5)
        np.testing.assert_allclose(xyxy[2], [10, 80, 30, 100], rtol=1e-5)
        assert scores.shape == (3,)
        assert (scores > 0.99).all()
        assert class_id.tolist() == [1, 1, 0]

    def test_it_works_in_the_postprocessor(self):
        task = TaskSpec(kind="detection", layout="decoder:decode", confidence=0.5)
        place = Placement(scale_x=1, scale_y=1, offset_x=0, offset_y=0, width=200, height=100)
        finish = DetectionPostprocessor(task, (100, 200), self.decode())
        found = finish(self.outputs(), place)
        assert found.class_id.tolist() == [1, 0]  # of two equal boxes one is left
        nothing = {"logits": np.eye(4, dtype=np.float32)[[3]], "boxes": np.ones((1, 4))}
        assert len(finish(nothing, place)) == 0


class TestSummary:
    def kinds(self, kind=Summary):
        """Dataclasses in a summary, without what lies inside an artifact."""
        found = [kind]
        for hint in typing.get_type_hints(kind).values():
            for option in self.flat(hint):
                inside = dataclasses.is_dataclass(option) and option not in found
                if inside and option is not Artifact and "Spec" not in option.__name__:
                    found += [new for new in self.kinds(option) if new not in found]
        return found

    def flat(self, hint):
        arguments = typing.get_args(hint)
        return [item for a in arguments for item in self.flat(a)] if arguments else [hint]

    def test_every_field_is_named(self):
        kinds = self.kinds()
        assert {kind.__name__ for kind in kinds} > {"Variant", "StageTiming", "Logged", "ParityRow"}
        text = (DOCS / "summary.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`(\w+)`", text))
        fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
        assert sorted(fields - named) == []

    @pytest.mark.parametrize(
        ("heading", "name"),
        [("Top level", "Summary"), ("variants", "Variant"), ("stages", "StageTiming")],
    )
    def test_the_tables_have_a_row_for_each_field(self, heading, name):
        kind = next(kind for kind in self.kinds() if kind.__name__ == name)
        listed = {row[0].strip("`") for row in rows(section("summary.md", heading))}
        assert {field.name for field in dataclasses.fields(kind)} <= listed

    def test_every_verdict_is_explained(self):
        explained = {row[0] for row in rows(section("recipe.md", "`budget`"))}
        assert set(typing.get_args(Outcome)) <= explained

    def test_the_schema_number_is_the_codes(self):
        from artifacts.summary import SCHEMA

        assert f"`schema` is a number, now {SCHEMA}." in section("summary.md", "Schema version")

    def test_the_one_liners_run(self, tmp_path):
        made = builders.example(Summary)
        variants = tuple(
            dataclasses.replace(variant, verdict=verdict)
            for variant, verdict in zip(made.variants, ("shipped", "rejected"), strict=True)
        )
        made = dataclasses.replace(made, variants=variants)
        (tmp_path / "summary.json").write_text(json.dumps(to_json(made)))
        lines = [line for block in blocks("summary.md", "sh") for line in block.splitlines()]
        assert len(lines) == 3
        for line in lines:
            tool, rest = line.split(" ", 1)
            if shutil.which("jq") is None and tool == "jq":
                continue
            command = line if tool == "jq" else f"{sys.executable} {rest}"
            done = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip(), line


def test_exit_codes_are_those_of_the_command():
    from flows.commands import ship as ship_command

    for page, heading in (
        ("summary.md", "Exit codes of `flows.ship`"),
        ("errors.md", "What happens"),
    ):
        text = section(page, heading)
        for code in ("0", "1", "2", "3", "4", "130"):
            assert re.search(rf"\b{code}\b", text)
            assert re.search(rf"\b{code}\b", ship_command.__doc__)


def test_every_error_is_in_the_table():
    from engineworks.errors import KINDS

    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [name for name in KINDS if name not in text and name != "EngineworksError"] == []


@pytest.mark.parametrize("name", write.SCHEMAS)
def test_committed_schemas_are_what_the_code_makes(name):
    committed = json.loads((DOCS / name).read_text(encoding="utf-8"))
    assert committed == write.SCHEMAS[name](), "run: make schemas"


class TestTarget:
    """The worked example of add-a-target.md, installed as a package elsewhere would be."""

    @pytest.fixture
    def installed(self, tmp_path, monkeypatch):
        (pyproject,) = blocks("add-a-target.md", "toml")
        name, module = re.search(r'^([\w-]+) = "(acme[\w.]+)"$', pyproject, re.MULTILINE).groups()
        (code,) = (
            code for code in blocks("add-a-target.md", "python") if "TARGET = Target" in code
        )
        package, _, file = module.partition(".")
        builders.write(tmp_path / package / "__init__.py", "")
        builders.write(tmp_path / package / f"{file}.py", code)
        info = tmp_path / "acme_engineworks-1.0.0.dist-info"
        builders.write(info / "METADATA", "Name: acme-engineworks\nVersion: 1.0.0\n")
        builders.write(info / "entry_points.txt", f"[{targets.LISTING.group}]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(tmp_path)
        targets.LISTING.forget()
        yield name
        targets.LISTING.forget()
        for loaded in (package, module):
            sys.modules.pop(loaded, None)

    def linear(self, path):
        """images (batch, 3, 4, 4) -> scores (batch, 2)."""
        import onnx
        from onnx import TensorProto, helper

        weights = np.random.default_rng(0).random((48, 2), np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["images"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
            ],
            "linear",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
            [onnx.numpy_helper.from_array(weights, "weights")],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
        return weights

    @pytest.mark.parametrize("options", [{}, {"level": "none"}], ids=["default", "none"])
    def test_it_is_listed_and_builds_an_engine_that_opens(
        self, installed, store, tmp_path, options
    ):
        pytest.importorskip("onnxruntime")
        from engineworks.stages.build import BuildRequest, build

        assert installed in targets.names()
        target = targets.load(installed)
        assert target.missing_requirements(hosts.probe()) == ""
        weights = self.linear(tmp_path / "linear.onnx")
        assert target.unsupported_operators(tmp_path / "linear.onnx") == ()
        x = builders.samples(size=(4, 4))
        wanted = {"scores": x.reshape(4, 48) @ weights}
        built = build(
            BuildRequest(
                shared=builders.shared(store, preprocess=Preprocess()),
                onnx=builders.put_onnx(store, tmp_path / "linear.onnx"),
                reference=builders.put_reference(store, tmp_path, x, wanted),
                target=installed,
                precision="fp32",
                options=options,
                tools={},
                host=None,
                builder=hosts.probe(),
            )
        )
        assert built.delivered_precision.holds
        assert built.delivered_precision.stored_bytes["fp32"] == weights.nbytes
        with open_engine(built.engine.uri) as session:
            np.testing.assert_allclose(
                session.infer({"images": x})["scores"], wanted["scores"], rtol=1e-5
            )

    def test_the_contract_is_listed_whole(self):
        from engineworks.qdq.pairs import Scheme
        from engineworks.targets import _base
        from engineworks.targets._base import BuildInput, BuildOutput, Int8Rules, Target

        text = (DOCS / "add-a-target.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`(\w+)[`(]", text))
        kinds = (Target, BuildInput, BuildOutput, Int8Rules, Scheme)
        fields = [field.name for kind in kinds for field in dataclasses.fields(kind)]
        assert {*fields, "int8_precision", "UNREAD"} <= named
        assert {"int8_precision", "UNREAD"} <= set(vars(_base))

    def test_the_rules_of_int8_in_the_example_are_accepted(self):
        from engineworks.targets._base import Int8Rules

        (code,) = (code for code in blocks("add-a-target.md", "python") if "def int8" in code)
        scope = {}
        exec(code, scope)  # noqa: S102 - the document's own text
        rules = scope["int8"](hosts.probe())
        assert isinstance(rules, Int8Rules)
        assert rules.scheme.symmetric


class TestInt8:
    """int8.md names what the search does and the figures that it does it with."""

    TEXT = (DOCS / "int8.md").read_text(encoding="utf-8")

    def test_the_page_has_the_steps_of_the_search(self):
        from artifacts.report.int8 import STEPS

        steps = re.findall(r"^\d\. \*\*(\w+)\*\*", section("int8.md", "The search"), re.M)
        assert steps == [step for step in STEPS if step != "given"]
        search = (ROOT / "src/engineworks/search/recover.py").read_text(encoding="utf-8")
        assert [step for step in steps if f'"{step}"' not in search] == []

    def test_every_way_to_choose_ranges_is_named(self):
        from engineworks.calibrate.ranges import METHODS

        named = {row[0].strip("`") for row in rows(section("int8.md", "Calibration, in one pass"))}
        families = {name if "percentile" not in name else "percentile" for name in METHODS}
        assert families == {name.partition("-")[0] for name in named} - {"method", "---"} - {""}

    def test_figures_are_those_of_the_code(self):
        from engineworks.calibrate import collect
        from engineworks.precisions import get
        from engineworks.search import placement, recover
        from engineworks.specs import CalibrationSpec

        spec = CalibrationSpec(images="x")
        text = " ".join(self.TEXT.split())
        assert f"at least {collect.BINS // 2:,} bins" in text
        assert f"Among those within {recover.WORTH:.0%}".replace("%", " %") in text
        assert f"held to {get('int8').alone.min_group_db:g} dB in every group" in text
        assert f"{spec.minimum} to {spec.limit}" in text
        assert placement.SHARES[:2] == (1 / 5, 2 / 5)

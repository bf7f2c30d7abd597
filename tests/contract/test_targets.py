"""What every target and every session must do, asked of each one that can run here."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from engineworks import hosts, targets
from engineworks.errors import ArtifactError, BuildError, RecipeError
from engineworks.evaluate import parity
from engineworks.export.torch_onnx import runner
from engineworks.facts.engine import Built
from engineworks.manifest import Artifact
from engineworks.runtime.session import open_engine
from engineworks.stages.build import BuildRequest, build
from engineworks.store import LocalStore, verify
from engineworks.targets._base import UNREAD, BuildInput, BuildOutput
from tests.builders import put_onnx, put_reference, quantized, samples, shared

HOST = hosts.probe()
HERE = [name for name in targets.names() if not targets.load(name).missing_requirements(HOST)]
VARIANTS = [(name, precision) for name in HERE for precision in targets.load(name).precisions]
REAL = [name for name in HERE if name != "null"]
X = samples()


@dataclass(frozen=True)
class Bench:
    """The tiny net and its answers, in a store."""

    store: LocalStore
    path: Path
    onnx: Artifact
    reference: Artifact
    wanted: dict[str, np.ndarray]

    def source(self, target: str, precision: str) -> Artifact:
        """The graph that is built from: for integers the Q/DQ one by the target's own rules."""
        if precision not in targets.SEARCHED:
            return self.onnx
        scheme = targets.int8_rules(target, HOST, precision).scheme
        path = self.path.with_name(f"{target}-{precision}.onnx")
        return put_onnx(self.store, quantized(self.path, path, scheme, X))

    def build(self, target: str, precision: str, onnx: Artifact | None = None, **changes) -> Built:
        request = BuildRequest(
            shared=shared(self.store),
            onnx=onnx or self.source(target, precision),
            reference=self.reference,
            target=target,
            precision=precision,
            options={},
            tools={},
            host=HOST if targets.load(target).host_bound else None,
            builder=HOST,
        )
        return build(dataclasses.replace(request, **changes))

    def draft(self, target: str, precision: str) -> BuildOutput:
        onnx = self.source(target, precision)
        with tempfile.TemporaryDirectory() as work:
            return targets.load(target).build(
                BuildInput(
                    onnx=self.store.entry(onnx),
                    inputs=onnx.manifest.inputs,
                    outputs=onnx.manifest.outputs,
                    precision=precision,
                    options={},
                    host=HOST,
                    work=Path(work),
                    draft=True,
                    reference=self.store.entry(self.reference),
                )
            )


@pytest.fixture(scope="session")
def bench(tiny_onnx, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    store = LocalStore(folder / "store")
    wanted = dict(runner(tiny_onnx)(X))
    reference = put_reference(store, folder, X, wanted)
    return Bench(store, tiny_onnx, put_onnx(store, tiny_onnx), reference, wanted)


@pytest.fixture(scope="session", params=VARIANTS, ids="/".join)
def variant(request, bench):
    """(target, precision, what its build gave), each built once."""
    target, precision = request.param
    return target, precision, bench.build(target, precision)


@pytest.fixture
def built(variant):
    return variant[2]


@pytest.fixture
def openable(variant):
    """What a build gave, where this machine can open it, too."""
    needs = targets.load(variant[0]).cannot_run(HOST)
    if needs:
        pytest.skip(f"{variant[0]} needs {needs}")
    return variant[2]


@pytest.fixture
def session(openable):
    with open_engine(openable.engine.uri) as opened:
        yield opened


@pytest.mark.parametrize("name", targets.names())
class TestFile:
    def test_it_has_every_part_of_the_contract(self, name):
        target = targets.load(name)
        assert isinstance(target.title, str)
        assert target.title
        assert "\n" not in target.title
        for part in (target.precisions, target.packages):
            assert isinstance(part, tuple)
            assert all(isinstance(item, str) for item in part)
        assert target.precisions
        assert len(set(target.precisions)) == len(target.precisions)
        assert isinstance(target.host_bound, bool)
        assert all(isinstance(text, str) and text for text in target.options.values())
        asked = {
            "missing_requirements": ["host"],
            "unsupported_operators": ["onnx"],
            "build": ["request"],
        }
        for function, parameters in asked.items():
            assert list(inspect.signature(getattr(target, function)).parameters) == parameters

    def test_it_says_how_it_wants_integers_when_it_lists_int8(self, name):
        target = targets.load(name)
        if "int8" not in target.precisions:
            assert target.int8 is None
            with pytest.raises(RecipeError, match="int8"):
                targets.int8_rules(name, HOST)
            return
        rules = targets.int8_rules(name, HOST)
        assert target.precisions[-1] == "int8"  # listed from the widest to the narrowest
        assert rules.scheme.activation in ("uint8", "int8", "either")
        assert rules.scheme.weight_bits in (7, 8)
        assert list(inspect.signature(target.int8).parameters) == ["host"]

    def test_its_packages_are_on_the_host_card(self, name):
        assert set(targets.load(name).packages) <= set(hosts.PACKAGES)

    def test_a_host_without_its_packages_cannot_build_it_and_why_is_said(self, name):
        target = targets.load(name)
        reason = target.missing_requirements(dataclasses.replace(HOST, packages={}))
        assert bool(reason) is bool(target.packages)
        if target.packages:
            assert target.packages[0] in reason
            assert "pip install" in reason


def test_some_real_target_can_be_tried_here():
    assert REAL, "install an extra such as engineworks[onnxruntime] to run this suite"


class TestBuild:
    def test_the_precision_asked_for_is_delivered(self, variant):
        _, precision, built = variant
        assert built.delivered_precision.holds
        assert (built.delivered_precision.asked, built.delivered_precision.delivered) == (
            precision,
            precision,
        )
        word = "int8" if precision in targets.SEARCHED else precision
        assert built.delivered_precision.stored_bytes[word] > 0

    def test_the_engine_is_whole_and_says_what_it_is(self, variant, bench):
        target, precision, built = variant
        manifest = verify(bench.store.open(built.engine))
        assert (manifest.kind, manifest.target, manifest.precision) == ("engine", target, precision)
        assert manifest.entry in [file.path for file in manifest.files]
        assert manifest.inputs == bench.onnx.manifest.inputs
        assert manifest.outputs == bench.onnx.manifest.outputs
        assert manifest.preprocess is not None
        assert bench.source(target, precision).sha256 in manifest.provenance.parents
        installed = set(targets.load(target).packages) & set(HOST.packages)
        assert installed <= set(manifest.provenance.tools)

    def test_an_engine_bound_to_its_host_says_so(self, variant):
        target, _, built = variant
        requires = built.engine.manifest.requires
        assert bool(requires.arch or requires.cpu_flags) is targets.load(target).host_bound

    def test_a_float_graph_is_never_passed_off_as_integers(self, bench):
        for name, precision in VARIANTS:
            if precision in targets.SEARCHED:
                truth = bench.build(name, precision, bench.onnx).delivered_precision
                assert not truth.holds, name
                assert truth.delivered == f"{precision} in 0 of 0 layers"
                assert truth.computed_nodes.get("int8", 0) == 0

    def test_a_draft_of_a_search_is_the_same_engine_with_its_truth_unread(self, variant, bench):
        target, precision, built = variant
        again = bench.draft(target, precision)
        assert again.entry == built.engine.manifest.entry
        assert again.requires == built.engine.manifest.requires
        assert again.details == built.engine.manifest.details
        if precision == "int8":
            assert again.delivered_precision == UNREAD

    def test_a_lower_precision_stores_fewer_bytes(self, bench):
        for name in REAL:
            high, *lower = targets.load(name).precisions
            size = sum(bench.build(name, high).delivered_precision.stored_bytes.values())
            for precision in lower:
                assert (
                    sum(bench.build(name, precision).delivered_precision.stored_bytes.values())
                    < size
                ), name


class TestReplay:
    """Engines of a target that this host may not open, run by ONNX Runtime."""

    def test_it_agrees_with_the_model(self, variant, bench, tmp_path):
        target, precision, built = variant
        replayed = targets.load(target).replayed
        if replayed is None:
            pytest.skip(f"{target} does not replay")
        run = runner(replayed(bench.store.entry(built.engine), tmp_path / "r.onnx"))
        limit = parity.limit(precision, judged=False)

        def infer(batch):
            (answers,) = zip(*(run(row[None]).values() for row in batch), strict=True)
            return {"scores": np.concatenate(answers)}

        found = parity.compare(infer, X, bench.wanted, [1], limit)
        assert found.holds, found.reason


class TestSession:
    def test_it_declares_the_models_tensors(self, session, bench):
        assert session.inputs == bench.onnx.manifest.inputs
        assert session.outputs == bench.onnx.manifest.outputs

    @pytest.mark.parametrize("batch", [1, 3])
    def test_it_agrees_with_the_model(self, variant, session, bench, batch):
        limit = parity.limit(variant[1], judged=False)

        def infer(rows):
            answers = session.infer({"images": np.ascontiguousarray(rows)})
            return {name: np.array(value) for name, value in answers.items()}

        found = parity.compare(infer, X, bench.wanted, [batch], limit)
        assert found.holds, found.reason
        assert {row.output for row in found.rows} == {"scores"}

    def test_identical_rows_get_identical_answers(self, variant, session):
        answers = session.infer({"images": np.repeat(X[:1], 5, axis=0)})["scores"]
        allowed = parity.limit(variant[1], judged=False).identical
        reach = float(np.abs(answers).max())
        np.testing.assert_allclose(
            answers, np.repeat(answers[:1], 5, axis=0), rtol=0, atol=allowed * reach
        )

    def test_the_same_input_gets_the_same_answer_again(self, session):
        first = np.array(session.infer({"images": X})["scores"])
        session.infer({"images": X[::-1].copy()})
        np.testing.assert_array_equal(session.infer({"images": X})["scores"], first)

    def test_it_keeps_its_word_on_outputs(self, session):
        """Answers of a session that does not reuse outputs outlive the next call."""
        lent = session.infer({"images": X})["scores"]
        kept = np.array(lent)
        session.infer({"images": X[::-1].copy()})
        assert session.reuses_outputs or np.array_equal(lent, kept)

    def test_answers_have_the_declared_dtype_and_shape(self, session):
        answers = session.infer({"images": X[:3]})
        assert list(answers) == ["scores"]
        assert (answers["scores"].shape, answers["scores"].dtype) == ((3, 5), np.float32)

    @pytest.mark.parametrize(
        ("feeds", "says"),
        [
            ({}, "'images' is missing"),
            ({"pixels": X}, "'images' is missing"),
            ({"images": X.astype(np.float64)}, "must be float32 .* got float64"),
            ({"images": X.astype(np.float16)}, "must be float32 .* got float16"),
            ({"images": (X * 255).astype(np.uint8)}, "must be float32 .* got uint8"),
            ({"images": X[:, :2]}, r"got float32 \[4, 2, 16, 16\]"),
            ({"images": X[0]}, r"got float32 \[3, 16, 16\]"),
        ],
        ids=["nothing", "other name", "float64", "float16", "uint8", "channels", "no batch"],
    )
    def test_a_wrong_feed_is_refused_and_named(self, session, feeds, says):
        with pytest.raises(ValueError, match=says):
            session.infer(feeds)

    def test_it_survives_a_refused_feed(self, session):
        before = np.array(session.infer({"images": X})["scores"])
        with pytest.raises(ValueError, match="images"):
            session.infer({})
        np.testing.assert_array_equal(session.infer({"images": X})["scores"], before)

    def test_it_closes_and_closing_twice_is_harmless(self, openable):
        with open_engine(openable.engine.uri) as opened:
            opened.infer({"images": X})
            opened.close()
        opened.close()

    def test_two_sessions_of_one_engine_do_not_disturb_each_other(self, openable):
        with open_engine(openable.engine.uri, threads=1) as one:
            with open_engine(openable.engine.uri, threads=1) as other:
                ours = np.array(one.infer({"images": X})["scores"])
                other.infer({"images": X[::-1].copy()})
            np.testing.assert_array_equal(one.infer({"images": X})["scores"], ours)


def test_an_engine_that_cannot_run_here_is_refused_when_it_is_opened(variant):
    name, _, built = variant
    if not targets.load(name).cannot_run(HOST):
        pytest.skip("this machine can open it")
    with pytest.raises(ArtifactError) as caught:
        open_engine(built.engine.uri)
    assert caught.value.hint


def test_every_file_of_an_engine_is_guarded(built, tmp_path):
    for number, file in enumerate(built.engine.manifest.files):
        copy = tmp_path / str(number)
        shutil.copytree(built.engine.uri, copy)
        with (copy / file.path).open("r+b") as stream:
            stream.seek(file.size_bytes // 2)
            byte = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte[0] ^ 1]))
        with pytest.raises(ArtifactError, match="altered"):
            open_engine(copy)


@pytest.fixture(scope="module")
def odd_onnx(tiny_onnx, tmp_path_factory):
    """The tiny net with an operator at its end that nobody knows."""
    model = onnx.load(str(tiny_onnx))
    model.graph.node[-1].output[0] = "inner"
    odd = onnx.helper.make_node("Frobnicate", ["inner"], ["scores"], domain="acme.ops")
    model.graph.node.append(odd)
    model.opset_import.append(onnx.helper.make_opsetid("acme.ops", 1))
    path = tmp_path_factory.mktemp("odd") / "odd.onnx"
    onnx.save(model, str(path))
    return path


class TestOperators:
    @pytest.mark.parametrize("name", HERE)
    def test_an_ordinary_network_lacks_none(self, name, tiny_onnx):
        assert targets.load(name).unsupported_operators(tiny_onnx) == ()

    @pytest.mark.parametrize("name", REAL)
    def test_an_unknown_one_is_named(self, name, odd_onnx):
        (unsupported_operators,) = targets.load(name).unsupported_operators(odd_onnx)
        assert "Frobnicate" in unsupported_operators

    @pytest.mark.parametrize("name", REAL)
    def test_building_a_graph_with_an_unknown_one_is_refused_by_its_name(
        self, name, odd_onnx, bench
    ):
        with pytest.raises(BuildError, match="Frobnicate") as caught:
            bench.build(name, "fp32", put_onnx(bench.store, odd_onnx))
        assert caught.value.hint

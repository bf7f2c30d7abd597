"""An order means the same wherever it is written, and reaches another machine whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from artifacts import fleet
from engineworks import plan as planning
from engineworks import recipe as recipes
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, InputError
from engineworks.evaluate import pinned
from engineworks.evaluate.paired import Paired
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.prepared import PreparedModel
from engineworks.facts.timing import Benchmark, Comparison
from engineworks.prepared import prepared
from engineworks.specs import DataSpec, TaskSpec
from engineworks.store import LocalStore
from flows.fleet import attachments
from flows.fleet import order as orders
from flows.fleet.attachments import pack
from flows.fleet.order import Order
from flows.fleet.timing import AskedPhotos, TimeOrder
from tests import builders

RECIPE = """
name: tiny
model: {source: model:build, input: {size: [32, 32]}}
targets:
  - {target: onnxruntime-cpu, precisions: [fp32, int8], pool: cpu}
  - {target: openvino}
calibration: {images: photos}
"""


@pytest.fixture
def loaded(tmp_path):
    def load(text=RECIPE, folder="here"):
        path = tmp_path / folder / "recipe.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return recipes.load(path)

    return load


def prepare(loaded, model):
    return prepared(loaded, planning.plan(loaded.recipe.targets).host, (model,))


def write(loaded, model, precision="int8"):
    plan = planning.plan(loaded.recipe.targets)
    planned = next(v for v in plan.variants if v.precision == precision)
    return orders.write(prepare(loaded, model), planned)


@pytest.fixture
def model():
    return dataclasses.replace(builders.example(PreparedModel), size=(32, 32))


def test_where_things_lie_is_no_part_of_an_order(loaded, model):
    moved = dataclasses.replace(
        model,
        shared=dataclasses.replace(model.shared, store="/elsewhere", recipe_sha256="other"),
        pinned=dataclasses.replace(model.pinned, folder="/elsewhere", path="/elsewhere/w"),
    )
    first = write(loaded(), model)
    assert write(loaded(folder="there"), moved).sha256 == first.sha256
    assert write(loaded(RECIPE.replace("pool: cpu", "pool: gpu")), model).sha256 == first.sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [("[fp32, int8]", "[int8]"), ("name: tiny", "name: other"), ("images: photos}",
     "images: photos}\nbudget: {max_size_mib: 9}")],
)  # fmt: skip
def test_what_changes_the_result_changes_the_order(loaded, model, old, new):
    assert write(loaded(RECIPE.replace(old, new)), model).sha256 != write(loaded(), model).sha256


def test_other_targets_do_not_concern_it(loaded, model):
    without = RECIPE.replace("  - {target: openvino}\n", "")
    assert write(loaded(without), model).sha256 == write(loaded(), model).sha256


def test_of_two_sets_of_options_it_carries_its_own(loaded, model, store, tmp_path, monkeypatch):
    plain = '  - {target: "null", precisions: [fp32, fp16]}\n'
    drift = '  - {target: "null", label: drift, options: {act: drift}}\n'
    here = loaded(RECIPE.replace("calibration:", plain + drift + "calibration:"))
    variants = planning.plan(here.recipe.targets).variants
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "there"))
    card = builders.example(HostCard)
    for name, options, beside in (
        ("null/fp32", {}, ["null/fp32", "null/fp16"]),
        ("null/fp32:drift", {"act": "drift"}, ["null/fp32:drift"]),
    ):
        planned = next(variant for variant in variants if variant.name == name)
        bare = dataclasses.replace(model, data=None)
        order = orders.write(pack(store, here, prepare(here, bare)), planned)
        job, _ = orders.take(order, store, card)
        assert (job.planned.name, job.planned.options) == (name, options)
        assert [variant.name for variant in job.beside] == beside


def test_it_reaches_another_machine_with_its_photos(loaded, model, tmp_path, store, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"a photo")
    (tmp_path / "labels.json").write_text("{}")
    spec = DataSpec(images=str(photos), annotations=str(tmp_path / "labels.json"))
    data = PinnedData(
        spec=spec, files=("a.jpg",), sha256="d" * 64,
        digests={"a.jpg": hashlib.sha256(b"a photo").hexdigest()},
        truth=pinned.hold_answers(spec, store, "tiny"),
    )  # fmt: skip
    model = dataclasses.replace(model, data=data)
    here = loaded()
    packed = pack(store, here, prepare(here, model))
    int8 = planning.plan(here.recipe.targets).variants[1]
    sent = json.dumps(to_json(orders.write(packed, int8)))

    order = from_json(Order, json.loads(sent))
    there = LocalStore(store.root)
    card = builders.example(type(planning.plan(here.recipe.targets).host))
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "there"))
    job, arrived = orders.take(order, there, card)
    assert job.planned == dataclasses.replace(int8, pool=job.planned.pool)
    assert [variant.precision for variant in job.beside] == ["fp32", "int8"]
    assert job.host == card
    found = arrived.model.data.spec
    assert store.root in Path(found.images).parents
    assert Path(found.images, "a.jpg").read_bytes() == b"a photo"
    assert Path(found.annotations).read_text() == "{}"
    assert arrived.model.shared.store == str(there.root)
    assert job.recipe.int8 == here.recipe.int8


def test_photos_that_were_replaced_since_they_were_judged_do_not_travel(
    loaded, model, tmp_path, store
):
    (tmp_path / "a.jpg").write_bytes(b"another photo")
    spec = DataSpec(images=str(tmp_path))
    digests = {"a.jpg": hashlib.sha256(b"a photo").hexdigest()}
    data = PinnedData(spec=spec, files=("a.jpg",), sha256="d" * 64, digests=digests)
    here = loaded()
    with pytest.raises(InputError, match=r"a\.jpg changed while the run went on"):
        pack(store, here, prepare(here, dataclasses.replace(model, data=data)))
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_two_engines_are_asked_about_photos_that_are_not_on_their_machine(tmp_path, store):
    """Through JSON, with the photos taken away where they were."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"a photo")
    (tmp_path / "labels.json").write_text("{}")
    spec = DataSpec(images=str(photos), annotations=str(tmp_path / "labels.json"))
    data = PinnedData(
        spec=spec, files=("a.jpg",), sha256="d" * 64, objects=1,
        digests={"a.jpg": hashlib.sha256(b"a photo").hexdigest()},
        truth=pinned.hold_answers(spec, store, "tiny"),
    )  # fmt: skip
    here = attachments.settled(store, data, None)
    assert here.spec.images == str(photos)
    assert Path(here.spec.annotations).read_text() == "{}"
    shared = builders.shared(store, task=TaskSpec(kind="classification", labels=("a", "b")))
    files = attachments.pack_data(store, data, "tiny")
    order = dataclasses.replace(
        builders.example(TimeOrder),
        photos=AskedPhotos(shared=shared, data=data, files=files, max_drop=0.01),
    )
    arrived = from_json(TimeOrder, json.loads(json.dumps(to_json(order))))
    assert arrived == order
    (photos / "a.jpg").unlink()
    photos.rmdir()
    with pytest.raises(ArtifactError, match="are not on this machine"):
        attachments.settled(store, data, None)
    there = attachments.settled(store, arrived.photos.data, arrived.photos.files)
    assert Path(there.spec.images, "a.jpg").read_bytes() == b"a photo"
    assert Path(there.spec.annotations).read_text() == "{}"


@pytest.mark.parametrize("kind", [Benchmark, Comparison, Paired])
def test_what_a_machine_measured_comes_back_as_what_it_is(kind):
    row = dataclasses.replace(builders.example(fleet.Row), found=builders.example(kind))
    again = from_json(fleet.Row, json.loads(json.dumps(to_json(row))))
    assert type(again.found) is kind and again.found == row.found

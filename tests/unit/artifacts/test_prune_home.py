"""What may go of a state folder, against a plain count of what is needed; with runs going on."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.store import prune_home
from artifacts.store.home import HomeStore
from engineworks.export import sources
from engineworks.manifest import Provenance
from engineworks.stages import reference as stage
from tests.builders import MADE_HERE, pinned, shared

OLD = time.time() - 3 * 24 * 3600


def put(store, folder, content, parents=()):
    path = folder / "source.bin"
    path.write_bytes(content)
    made = store.put(
        {"model.bin": path}, kind="onnx", name="m", entry="model.bin",
        provenance=Provenance(stage=MADE_HERE.stage, parents=tuple(parents)),
    )  # fmt: skip
    return made.sha256


def age(home):
    """Everything was used three days ago."""
    for path in home.rglob("*"):
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def test_the_source_file_of_what_is_needed_stays_and_others_go(tmp_path, tiny_onnx):
    """A registered engine is kept with all that it was made of, down to the user's model file."""
    store = HomeStore(tmp_path / "store")
    model = pinned(tiny_onnx.parent, tiny_onnx.name)
    second = tmp_path / "second.onnx"
    graph = onnx.load(tiny_onnx)
    graph.doc_string = "trained again"
    onnx.save(graph, second)
    stored, other = (sources.hold(path, "onnx", store, "tiny") for path in (tiny_onnx, second))
    reference = stage.reference(
        stage.ReferenceRequest(
            shared=shared(store, name="tiny"), model=dataclasses.replace(model, stored=stored),
            data=None, size=(16, 16), score=False,
        )
    ).artifact  # fmt: skip
    engine = put(store, tmp_path, b"engine", [reference.sha256])
    end(store)
    age(tmp_path)
    gone = {item.name for item in prune_home.plan(tmp_path, 20, {engine})}
    assert other.sha256 != stored.sha256
    assert gone == {other.sha256}


def run_folder(home, number, model, names):
    folder = home / "runs" / f"20260101-{number:06d}-000-{model}"
    (folder / "logs" / "build").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"engines": list(names)}))
    return folder


def end(store):
    """What a process does when it ends: its lease is nobody's any more."""
    if store._cache._lease is not None:
        store._cache._lease.close()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_exactly_what_nothing_needs_may_go(data):
    count = data.draw(st.integers(1, 8), "artifacts")
    parents = {
        i: data.draw(st.sets(st.integers(0, i - 1)) if i else st.just(set())) for i in range(count)
    }
    number = st.integers(0, count - 1)
    runs = data.draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.sets(number)), max_size=6), "runs"
    )
    last = data.draw(st.integers(1, 3), "last")
    registered = data.draw(st.sets(number), "registered")
    leased = data.draw(st.sets(number), "leased")
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        maker, user = HomeStore(home / "store"), HomeStore(home / "store")
        ids = []
        for i in range(count):
            ids.append(put(maker, home, b"%d" % i, [ids[p] for p in parents[i]]))
        end(maker)
        for i, (model, used) in enumerate(runs):
            run_folder(home, i, model, [ids[u] for u in used])
        age(home)
        for i in leased:
            user.fetch(ids[i])

        # By hand: the last runs of each model, and everything below what is needed.
        kept_runs = {
            i for i, (m, _) in enumerate(runs) if sum(n == m for n, _ in runs[i + 1 :]) < last
        }
        want = set(registered).union(*(runs[i][1] for i in kept_runs))
        for _ in range(count):
            want |= {p for i in want for p in parents[i]}

        items = prune_home.plan(home, last, {ids[i] for i in registered})
        gone = prune_home.take(home, items)
        names = {item.name for item in gone}
        assert {i for i in range(count) if ids[i] in names} == set(range(count)) - want - leased
        assert {i for i in range(count) if maker.has(ids[i])} == want | leased
        assert len(list((home / "runs").glob("*"))) == len(kept_runs)
        sizes = {item.name: item.size_bytes for item in gone}
        assert all(sizes[name] > 0 for name in names)
        end(user)


def test_folders_of_recipes_from_elsewhere_stay_while_a_run_that_is_kept_names_them(tmp_path):
    for name in ("git-1", "git-2", "s3-3", ".half"):
        (tmp_path / "recipes" / name).mkdir(parents=True)
        (tmp_path / "recipes" / name / "net.onnx").write_bytes(b"12345")
    run_folder(tmp_path, 1, "m", [])  # not kept: the run after it is the last
    (tmp_path / "runs" / "20260101-000001-000-m" / "summary.json").write_text(
        "recipes/git-2/photos"
    )
    run_folder(tmp_path, 2, "m", [])
    request = tmp_path / "runs" / "20260101-000002-000-m" / "logs" / "build" / "request.json"
    request.write_text('{"images": "/home/recipes/git-1/photos"}')
    age(tmp_path)
    items = [i for i in prune_home.plan(tmp_path, 1, set()) if i.kind == "recipe folder"]
    assert {(item.name, item.size_bytes) for item in items} == {
        (".half", 5), ("git-2", 5), ("s3-3", 5),
    }  # fmt: skip
    os.utime(tmp_path / "recipes" / "s3-3")  # used between plan and removal
    assert {item.name for item in prune_home.take(tmp_path, items)} == {".half", "git-2"}
    assert {path.name for path in (tmp_path / "recipes").iterdir()} == {"git-1", "s3-3"}


#: A run of its own process: uses what is there, makes more, and looks again and again that all of
#: it is still there until it ends.
RUN = """
import random, sys, time
from pathlib import Path
from artifacts.store.home import HomeStore
from engineworks.errors import ArtifactError
from engineworks.store import LocalStore
from tests.unit.artifacts.test_prune_home import put

home, seed, until = Path(sys.argv[1]), int(sys.argv[2]), time.time() + float(sys.argv[3])
work = home / f"work-{seed}"
work.mkdir()
rng, mine, lost = random.Random(seed), [], 0
while time.time() < until:
    store = HomeStore(home / "store")
    for _ in range(rng.randint(1, 6)):
        mine.append(put(store, work, b"%d" % rng.randrange(60)))
        # As a stage's own process does: it knows no lease, its run takes it over later, as long as
        # it is young. This machine may stand still for longer than that.
        begun = time.monotonic()
        other = put(LocalStore(home / "store"), work, b"stage %d" % rng.randrange(60))
        time.sleep(rng.random() * 0.02)
        try:
            store.push(store.get(other))
            mine += [other] * (time.monotonic() - begun < 2)
        except ArtifactError:
            if time.monotonic() - begun < 2:
                raise
        for name in mine:
            try:
                store.open(store.get(name))
            except ArtifactError as error:
                lost += 1
                print("LOST", error)
    store._cache._lease.close()
    mine = []
print("lost", lost)
"""


def test_nothing_of_a_living_run_goes_while_others_prune(tmp_path, monkeypatch):
    monkeypatch.setattr(prune_home, "YOUNG_S", 2.0)  # a day, for runs of a second
    seeds = [random.randrange(10**6) for _ in range(3)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, tmp_path, str(seed), "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in seeds
    ]
    taken = 0
    while any(run.poll() is None for run in runs):
        items = prune_home.plan(tmp_path, 1, set())
        taken += len(prune_home.take(tmp_path, items))
        time.sleep(0.01)
    said = [run.communicate()[0] for run in runs]
    assert [text.strip().splitlines()[-1] for text in said] == ["lost 0"] * 3, (seeds, said)
    assert taken > 5  # and it did remove what nobody used any more
    time.sleep(2.1)
    prune_home.take(tmp_path, prune_home.plan(tmp_path, 1, set()))
    assert not list((tmp_path / "store").glob("??/*"))


def test_leases_of_the_dead_do_not_pile_up(tmp_path):
    leases = tmp_path / "store" / ".leases"
    living = HomeStore(tmp_path / "store")
    name = put(living, tmp_path, b"a")
    for _ in range(5):
        store = HomeStore(tmp_path / "store")
        store.fetch(name)
        end(store)
    assert len([path for path in leases.iterdir() if path.name != "lock"]) == 2
    age(tmp_path)
    items = [prune_home.Item(kind="artifact", name=name)]
    assert prune_home.take(tmp_path, items) == []  # the living one still uses it


def test_a_run_that_goes_on_keeps_its_folder(tmp_path):
    import fcntl

    for number in range(3):
        run_folder(tmp_path, number, "m", [])
    age(tmp_path)
    living = tmp_path / "runs" / "20260101-000000-000-m"
    (tmp_path / "running").mkdir()
    with (tmp_path / "running" / living.name).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        items = prune_home.plan(tmp_path, 1, set())
        assert [item.name for item in items] == ["20260101-000001-000-m"]
        assert prune_home.take(tmp_path, items) == items
    assert living.is_dir()
    (item,) = prune_home.plan(tmp_path, 1, set())
    assert item.name == living.name


def test_a_cached_result_goes_with_its_artifact_alone(tmp_path):
    store = HomeStore(tmp_path / "store")
    names = [put(store, tmp_path, content) for content in (b"a", b"b")]
    end(store)
    results = tmp_path / "prefect" / "storage"
    results.mkdir(parents=True)
    for name in names:
        (results / f"of-{name[:4]}").write_text(json.dumps({"value": name}))
    age(tmp_path)
    items = prune_home.plan(tmp_path, 1, {names[0]})
    assert {item.kind for item in prune_home.take(tmp_path, items)} == {"artifact", "stage result"}
    assert [path.name for path in results.iterdir()] == [f"of-{names[0][:4]}"]


def test_what_was_used_just_now_stays_until_it_is_a_day_old(tmp_path):
    store = HomeStore(tmp_path / "store")
    name = put(store, tmp_path, b"a")
    end(store)
    assert prune_home.plan(tmp_path, 1, set()) == []
    age(tmp_path)
    items = prune_home.plan(tmp_path, 1, set())
    put(HomeStore(tmp_path / "store"), tmp_path, b"a")  # made again between plan and removal
    assert [item.name for item in items] == [name] and prune_home.take(tmp_path, items) == []


@pytest.mark.parametrize("left", ["runs", "store", "prefect", ""])
def test_an_empty_state_folder_has_nothing(tmp_path, left):
    (tmp_path / left).mkdir(exist_ok=True)
    assert prune_home.plan(tmp_path, 1, set()) == []

"""A power cut after any operation on the disk leaves an engine; `make chaos-delivery` does more."""

from __future__ import annotations

import random

import pytest

from benchmarks._delivery_disk import RecordingDisk, read_tree, rebuilt, write_tree
from engineworks import store
from engineworks.delivery.disk import Disk
from engineworks.delivery.home import Home
from engineworks.errors import ArtifactError
from tests.deliveries import World


def recorded(world, home, disk):
    """(the folder before, the operations of a delivery)."""
    before = read_tree(home.folder)
    assert world.agent(home, disk=disk).once().slots[0].outcome == "switched"
    return before, disk.operations


@pytest.fixture()
def delivered(tmp_path):
    world = World(tmp_path)
    home, first, second = world.device(), world.engine(2.0), world.engine(3.0)
    world.put(first)
    world.agent(home).once()
    world.put(second)
    return world, home, {first.name, second.name}


def whole(home):
    """Identity of the engine that the link leads to, read back; empty: there is none."""
    try:
        return store.verify(home.current("main").resolve(strict=True)).sha256
    except (OSError, ArtifactError):
        return ""


def after_each_cut(world, before, operations, ways):
    """The engine that is whole after each prefix, in each way of losing; empty: none."""
    for number in range(len(operations) + 1):
        for way in ways:
            tree = rebuilt(before, operations[:number], way, random.Random(number))
            yield whole(Home(write_tree(tree, world.folder / "cut")))


def test_there_is_always_an_engine(delivered):
    world, home, engines = delivered
    done = recorded(world, home, RecordingDisk(home.folder))
    found = list(after_each_cut(world, *done, ways=["all lost", "some lost"]))
    assert len(found) > 80
    assert set(found) == engines


def test_these_cuts_find_bytes_that_were_not_synced_before_the_switch(delivered):
    world, home, _ = delivered

    class Careless(RecordingDisk):
        def sync(self, path):
            if "incoming" not in str(path):
                super().sync(path)

    done = recorded(world, home, Careless(home.folder))
    assert "" in after_each_cut(world, *done, ways=["all lost"])


def test_the_operations_are_all_there_are():
    """Whoever adds one must record it, too."""
    single = {"mkdir", "create", "append", "sync", "sync_folder", "rename", "symlink", "unlink",
              "rmdir", "free_bytes"}  # fmt: skip
    made_of_those = {"folder", "write", "point", "remove"}
    assert {name for name in vars(Disk) if name[0] != "_"} == single | made_of_those
    assert single - {"free_bytes"} <= set(vars(RecordingDisk))

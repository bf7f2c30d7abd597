"""The numbers of a server come from what was measured, and say so."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.manifest import TensorSpec
from engineworks.packaging._numbers import choose
from engineworks.store import verify
from tests.unit.packaging.conftest import row


@pytest.fixture
def manifest(engine):
    return verify(engine())


def test_a_batch_that_is_slower_per_image_is_not_waited_for(manifest):
    # 4 images in 44 ms are 91 a second, one in 10 ms is 100: the usual small net on a CPU.
    numbers = choose(manifest, [row(1, 10.0), row(4, 44.0)], cores=4)
    assert (numbers.merged, numbers.delay_us, numbers.max_batch) == (1, 0, 4)
    assert "batch 1: 100 images/s, batch 4: 91 images/s" in numbers.reasons["merged"]


def test_a_batch_that_is_faster_with_confidence_is_merged(manifest):
    # Per image 10 ms alone, 5 in a batch of 4, 6 in one of 8: what waiting may cost is 5 ms.
    numbers = choose(manifest, [row(1, 10.0), row(4, 20.0), row(8, 48.0)], cores=4)
    assert (numbers.merged, numbers.delay_us, numbers.max_batch) == (4, 5000, 8)
    assert "1.96x" in numbers.reasons["merged"]  # 4 * 9.9 / 20.2


def test_a_gain_that_is_within_the_doubt_is_none(manifest):
    wide = row(4, 36.0, ci95_ms=(30.0, 42.0))
    assert choose(manifest, [row(1, 10.0), wide], cores=4).merged == 1


def test_what_is_inconclusive_or_of_another_size_is_left_out(manifest):
    doubted = row(8, 8.0, inconclusive="the machine was busy")
    other = row(4, 4.0, height=320, width=320)
    numbers = choose(manifest, [row(1, 10.0), doubted, other], cores=4)
    assert (numbers.merged, numbers.max_batch) == (1, 1)


@pytest.mark.parametrize(("threads", "cores", "instances"), [(2, 4, 2), (4, 4, 1), (3, 8, 2)])
def test_instances_do_not_take_the_cores_from_each_other(manifest, threads, cores, instances):
    numbers = choose(manifest, [row(1, 10.0, threads=threads)], cores=cores)
    assert (numbers.instances, numbers.threads) == (instances, threads)
    assert instances * threads <= cores


def test_the_queue_ends_a_second_away(manifest):
    numbers = choose(manifest, [row(1, 10.0)], cores=4)  # two instances of two threads
    assert numbers.queue == 200
    slow = choose(manifest, [row(1, 4000.0)], cores=2)
    assert slow.queue == 8
    assert "32000 ms" in slow.reasons["queue"]


def test_a_profile_bounds_the_batch(manifest):
    profile = {"profile": {"images": [[1, 3, 416, 416], [4, 3, 416, 416], [4, 3, 416, 416]]}}
    bounded = dataclasses.replace(manifest, details=profile)
    assert choose(bounded, [row(1, 10.0), row(8, 20.0)], cores=4).max_batch == 4


def test_an_engine_of_a_fixed_batch_is_not_batched(manifest):
    given = (TensorSpec(name="images", dtype="float32", shape=(4, 3, 416, 416)),)
    numbers = choose(dataclasses.replace(manifest, inputs=given), [row(4, 20.0)], cores=4)
    assert (numbers.max_batch, numbers.merged) == (0, 1)


def test_nothing_measured_is_said(manifest):
    numbers = choose(manifest, [], cores=4)
    assert (numbers.threads, numbers.instances) == (4, 1)
    assert "not timed" in numbers.reasons["threads"]

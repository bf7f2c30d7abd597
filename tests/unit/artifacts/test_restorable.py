"""Nothing in use is ever let go: random histories, against what each use needs, by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.promotion import ledger, restorable
from artifacts.promotion.publishing import MOST_BACK
from artifacts.promotion.restorable import Past, let_go
from artifacts.registry.prune_mlflow import RegisteredVersion
from engineworks.delivery.target import SignedTarget
from tests.deliveries import World

VARIANTS = ("openvino/int8", "onnxruntime-cpu/fp32")


def version(number, variant, aliases=(), engine=None):
    return RegisteredVersion(
        model="m", version=str(number), variant=variant, engine=engine or f"{number:064d}",
        sealed=f"{number + 500:064d}", run_id=f"run {number}", aliases=tuple(aliases),
    )  # fmt: skip


@st.composite
def worlds(draw):
    """Versions of two variants, and the moves that people made, replayed by the ledger's rules."""
    count = draw(st.integers(1, 30))
    registered = [
        version(
            n, draw(st.sampled_from(VARIANTS)), ["mine"] * draw(st.sampled_from([0, 0, 0, 1])),
            # Two versions may be one engine.
            f"{draw(st.integers(1, n)):064d}" if draw(st.booleans()) else None,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip
    histories = []
    for name in draw(st.sets(st.sampled_from(VARIANTS))):
        mine = [item.version for item in registered if item.variant == name]
        now, lived = None, []
        for _ in range(draw(st.integers(0, 25)) if mine else 0):
            stack = now.stack if now else ()
            if stack and draw(st.booleans()):
                new, stack = stack[-1], stack[:-1]
            else:
                new = draw(st.sampled_from(mine))
                stack = ledger.promoted(now, new, good=draw(st.booleans()))
            now = ledger.Generation(
                model="m", variant=name, number=1, head="", champion=new, stack=stack
            )
            lived.append(new)
        if now is not None:
            latest_first = dict.fromkeys(reversed(lived))
            histories.append(
                (Past(model="m", variant=name, champion=now.champion, stack=now.stack,
                      lived=tuple(reversed(latest_first))), lived, now)
            )  # fmt: skip
    published = draw(st.sets(st.integers(1, count * 2 + 500).map(lambda n: f"{n:064d}")))
    return registered, histories, published, draw(st.integers(1, 12))


@settings(max_examples=300, deadline=None)
@given(world=worlds())
def test_nothing_in_use_is_ever_let_go(world):
    registered, histories, published, last = world
    gone = let_go(registered, [past for past, _, _ in histories], published, last)
    by_number = {item.version: item for item in registered}
    in_use = {item.version for item in registered if item.aliases}
    in_use |= {i.version for i in registered if {i.engine, i.sealed} & published}
    in_use |= {i.version for i in registered if not any(i.version in m for _, m, _ in histories)}
    expected_gone = 0
    for _, moves, now in histories:
        newest: list[str] = []
        for number in reversed(moves):  # the last N that were live, each once
            if number not in newest and len(newest) < max(last, 2):
                newest.append(number)
        held = {now.champion, *now.stack[-MOST_BACK:], *newest} | ({now.previous} - {""})
        in_use |= held
        expected_gone += len({*moves} - in_use)
    assert {("m", number) for number in in_use} & gone == set()
    assert len(gone) == expected_gone  # and all else may go
    assert gone <= {("m", number) for number in by_number}


def test_what_is_signed_for_devices_is_read_from_the_repository(tmp_path):
    world = World(tmp_path)
    engine = world.engine(2.0)
    allowed = tuple(f"{n:064d}" for n in (1, 2))
    from engineworks import manifest as manifests

    sha256 = manifests.load(engine / "manifest.json").sha256
    world.repository.put(
        "yolox", "onnxruntime/fp32", engine,
        SignedTarget(model="yolox", variant="onnxruntime/fp32", version="3", sha256=sha256,
                     generation=1, allowed=allowed, permille=50),
    )  # fmt: skip
    assert restorable.signed(world.repository.folder) == {sha256, *allowed}

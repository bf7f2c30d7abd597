"""`inspect` and `bench`: what an engine is, and how fast it is here."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks import hosts, targets
from engineworks.cli import verify as verifying
from engineworks.cli._engines import HELP, add_engine, locate
from engineworks.cli._numbers import number, whole
from engineworks.cli._words import add, answer, short
from engineworks.codec import to_json
from engineworks.errors import EngineworksError, MissingDependency
from engineworks.manifest import Manifest
from engineworks.runtime import heads
from engineworks.runtime.predictor import image_input
from engineworks.runtime.scores import ASSUMED
from engineworks.runtime.session import check_machine, check_version, local_folder
from engineworks.runtime.session_pool import Opener, opener
from engineworks.specs import BenchmarkSpec, TaskSpec
from engineworks.store import verify

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    command = add(subparsers, "inspect", _inspect, "an engine's manifest, its bytes verified")
    command.add_argument("engine", metavar="ENGINE", help=HELP)
    verifying.register(subparsers)
    command = add(subparsers, "bench", _bench, "how fast an engine is on this machine")
    add_engine(command, f"{HELP}; or a recipe (.yaml): its model in PyTorch, as it was trained")
    command.add_argument(
        "--batch",
        type=whole(1),
        nargs="+",
        default=[1],
        metavar="N",
        help="batch sizes (default: 1)",
    )
    command.add_argument(
        "--sessions",
        type=whole(1, 64),
        metavar="N",
        help="throughput of N sessions at once that share the CPU threads, against one",
    )
    command.add_argument(
        "--devices",
        type=whole(0),
        nargs="+",
        metavar="GPU",
        help="throughput of these GPUs together, against the first: --devices 0 1 2",
    )
    command.add_argument(
        "--seconds",
        type=number(0, 3600),
        default=3.0,
        help="time for each row after warm-up (default: 3)",
    )
    command.add_argument(
        "--calls",
        type=whole(2, 1_000_000),
        default=30,
        metavar="N",
        help="least calls of each row, however long they take (default: 30); p99 needs 660",
    )


def _inspect(options: argparse.Namespace) -> int:
    manifest = verify(local_folder(locate(options.engine)))
    here = _opens_here(manifest)
    lines = [
        f"{manifest.kind} {manifest.name} {manifest.target}/{manifest.precision}".rstrip("/ "),
        f"  sha256   {manifest.sha256} (bytes verified)",
        f"  size     {manifest.size_bytes / 2**20:.2f} MiB in {len(manifest.files)} files",
        *(f"  input    {t.name} {t.dtype} {list(t.shape)}" for t in manifest.inputs),
        *(f"  output   {t.name} {t.dtype} {list(t.shape)}" for t in manifest.outputs),
    ]
    if manifest.preprocess is not None:
        lines.append(f"  images   {short(to_json(manifest.preprocess))}")
    if manifest.task is not None:
        lines.append(f"  task     {short(to_json(manifest.task))}")
        if manifest.task.scores == "auto" and _asks_scores(manifest.task):
            lines.append(f"  scores   not said: taken for {ASSUMED}")
    if manifest.requires is not None:
        lines.append(f"  needs    {short(to_json(manifest.requires))}")
        lines.append(f"  here     {here}")
    lines.append(f"  made by  {short(manifest.provenance.tools)}")
    data = {**to_json(manifest), "sha256": manifest.sha256, "here": here}
    return answer(options, data, "\n".join(lines))


def _asks_scores(task: TaskSpec) -> bool:
    """Whether the manifest should say what scores are."""
    return task.kind in heads.names() and heads.load(task.kind).scores


def _opens_here(manifest: Manifest) -> str:
    if manifest.requires is None:
        return "is no engine"
    card = hosts.probe()
    try:
        check_machine(manifest, arch=card.arch, cpu_flags=card.cpu_flags)
        check_version(manifest, card.packages)
    except EngineworksError as error:
        return error.message
    known = manifest.target in targets.names()
    needs = targets.load(manifest.target).cannot_run(card) if known else ""
    return f"does not open: it needs {needs}" if needs else "opens on this machine"


def _bench(options: argparse.Namespace) -> int:
    from engineworks.bench import environment, matrix
    from engineworks.facts.timing import Benchmark

    spec = BenchmarkSpec(
        batches=tuple(options.batch), threads=options.threads, seconds=options.seconds,
        calls=options.calls,
    )  # fmt: skip
    if options.sessions is not None or options.devices is not None:
        return _bench_sessions(options, spec)
    started, threads = time.perf_counter(), spec.threads or hosts.cores()
    with _opener(options.engine)(0, threads) as session:
        needs = session.manifest.requires
        package = needs.package.partition("==")[0] if needs else session.manifest.target
        facts = environment.record(*([package] if package else []))
        if "device" in session.manifest.details:
            facts["device"] = session.manifest.details["device"]
        size, _ = image_input(session.manifest)
        rows = tuple(matrix.measure(session, size, spec, threads))
    result = Benchmark(rows=rows, environment=facts, elapsed_s=time.perf_counter() - started)
    lines = [f"{'input':>9} {'batch':>5} {'threads':>7} {'p50 ms':>8} {'p95 ms':>8} "
             f"{'p99 ms':>8} {'mean +- std ms':>16} {'images/s':>9}"]  # fmt: skip
    for row in result.rows:
        spread = f"{row.mean_ms:.2f} +- {row.std_ms:.2f}"
        p99 = "-" if row.p99_ms is None else f"{row.p99_ms:.2f}"
        lines.append(
            f"{f'{row.height}x{row.width}':>9} {row.batch:>5} {row.threads:>7} {row.p50_ms:>8.2f} "
            f"{row.p95_ms:>8.2f} {p99:>8} {spread:>16} {row.throughput_per_s:>9.1f}"
        )
        if row.inconclusive:
            lines.append(f"          uncertain: {row.inconclusive}")
    lines.append(f"  {short(result.environment)}")
    return answer(options, to_json(result), "\n".join(lines))


def _opener(engine: str) -> Opener:
    """What opens an engine, or the model of a recipe, on a device."""
    if not engine.endswith((".yaml", ".yml")):
        return opener(local_folder(locate(engine)))
    try:
        import torch  # noqa: F401 - said here if it is missing

        from engineworks import recipe as recipes
        from engineworks.export import torch_session
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"a recipe's model needs the package {error.name}",
            hint="pip install 'engineworks[export,pipeline]', or give an engine",
        ) from error
    loaded = recipes.load(Path(engine))
    pinned = recipes.pin_model(loaded)
    return torch_session.opener(pinned, loaded.recipe.name, loaded.recipe.preprocess)


def _bench_sessions(options: argparse.Namespace, spec: BenchmarkSpec) -> int:
    from engineworks.bench import session_pool

    sessions, devices = options.sessions, options.devices or [0]
    rows = session_pool.measure(
        _opener(options.engine),
        [device for device in devices for _ in range(sessions or 1)],
        spec.batches,
        threads=spec.threads,
        seconds=spec.seconds,
    )
    lines = [f"{'batch':>5} {'device':>7} {'threads':>7} {'images/s':>9} {'busy':>6}"]
    for row in rows:
        lines += [
            f"{row.batch:>5} {part.device:>7} {row.threads:>7} {part.throughput_per_s:>9.1f} "
            f"{part.busy:>6.0%}"
            for part in row.devices
        ]
        lines.append(
            f"{row.batch:>5} {'all':>7} {'':>7} {row.throughput_per_s:>9.1f}        "
            f"{row.gain:.2f}x of one session alone ({row.alone_per_s:.1f})"
            f"{f', the first on {row.place}' if row.place else ''}"
        )
    return answer(options, to_json({"rows": rows}), "\n".join(lines))

"""Package a shipped engine for a server, and have that server prove it."""

from __future__ import annotations

from engineworks import packaging
from engineworks.errors import EngineworksError
from engineworks.facts.engine import Built
from engineworks.facts.package import Packaged, Proof
from engineworks.facts.prepared import PreparedModel
from engineworks.facts.timing import Benchmark
from engineworks.specs import PackageSpec
from engineworks.stages import package as stage
from tasks import _run
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Package an engine for a server; let that server prove it.")


def package(
    job: VariantJob, model: PreparedModel, built: Built, timed: Benchmark, spec: PackageSpec
) -> Packaged:
    """A package of one kind, with its proof.

    A proof that is kept is asked for again where it failed, or waited for a server that is here
    by now.
    """
    kind = packaging.load(spec.package)
    reason = kind.fits(built.engine.manifest, spec.options)
    if reason:
        proof = Proof(package=spec.package, state="skipped", reason=reason)
        return Packaged(kind=spec.package, proof=proof)
    home = _run.home()
    waits = bool(kind.environment.missing(home))
    name = job.planned.name
    request = stage.PackageRequest(
        shared=model.shared,
        package=spec.package,
        options=dict(spec.options),
        engine=built.engine,
        rows=timed.rows,
        cores=job.host.cores,
        data=model.data,
        photos=spec.photos,
        code_sha256=packaging.code_sha256(spec.package),
        server_sha256=kind.environment.lock_sha256,
        home=str(home),
        logs=str(job.run.folder / "logs" / f"proof-{spec.package}-{name.replace('/', '-')}"),
    )
    return TASK.call(
        job.run,
        request,
        job.recipe.limits.package_s,
        f"{name} {spec.package}",
        _note,
        lambda value: _holds(value, waits=waits),
    )


def failure(spec: PackageSpec, error: EngineworksError) -> Packaged:
    """A package that could not be made, with its reason."""
    reason = f"{error.message.splitlines()[0]}; next: {error.hint}"
    proof = Proof(package=spec.package, state="failed", reason=reason)
    return Packaged(kind=spec.package, proof=proof)


def _holds(value: Packaged, *, waits: bool) -> bool:
    return value.proof.state == "proven" or (value.proof.state == "pending" and waits)


def _note(value: Packaged) -> str:
    proof = value.proof
    return f"{proof.state}: {proof.reason.splitlines()[0]}" if proof.reason else proof.state

"""`make deploy`: work pools, deployments and the automation that notices dead runs.

May be run again at any time: code is brought up to date, what people have changed is kept and
said, nothing is doubled. Needs PREFECT_API_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engineworks import loopback, streams
from flows.fleet import pools as kinds
from flows.fleet.queues import limit_queue, make_queue
from infra import automations

if TYPE_CHECKING:
    from infra.listed import Listed

TOP = Path(__file__).parents[1]


def pools(client: Any, listed: list[Listed]) -> None:
    """Create the work pools and queues that are missing."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    for pool in kinds.pools():
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(name=pool.name, type="process", description=pool.description)
            )
    for one in listed:
        make_queue(client, one.entry["work_pool"]["name"], one.queue)


def deployments(
    client: Any, document: dict[str, Any], listed: list[Listed], again: list[str]
) -> list[str]:
    """Create what is missing, bring what is there up to date; what was done, in words.

    Args:
        client: Prefect's.
        document: prefect.yaml.
        listed: Its deployments.
        again: Names of those that are made anew, without what people changed.
    """
    from prefect.exceptions import ObjectNotFound

    from infra import listed as reading

    missing, done = [], []
    for one in listed:
        try:
            there = client.read_deployment_by_name(one.name)
        except ObjectNotFound:
            missing.append(one)
            done.append(f"{one.name}: new")
            continue
        if one.name in again:
            missing.append(one)
            done += [f"{one.name}: set back: {word}" for word in reading.kept(one, there)]
            continue
        change, said = reading.update(one, there)
        if said:
            client.update_deployment(there.id, change)
            if "concurrency_limit" in change.model_fields_set:
                limit_queue(client, one.entry["work_pool"]["name"], one.queue)
            done.append(f"{one.name}: brought up to date: {', '.join(said)}")
            there = client.read_deployment(there.id)
        done += [f"{one.name}: kept: {word}" for word in reading.kept(one, there)]
    if missing:
        _create({**document, "deployments": [one.entry for one in missing]})
        for one in missing:  # the command has no word for a closed form
            there = client.read_deployment_by_name(one.name)
            client.update_deployment(there.id, reading.update(one, there)[0])
    return done


def would(client: Any, listed: list[Listed]) -> list[str]:
    """What `deployments` would do, in words."""
    from prefect.exceptions import ObjectNotFound

    from infra import listed as reading

    found = []
    for one in listed:
        try:
            there = client.read_deployment_by_name(one.name)
        except ObjectNotFound:
            found.append(f"{one.name}: would be new")
            continue
        change, said = reading.update(one, there)
        if said:
            found.append(f"{one.name}: would be brought up to date: {', '.join(said)}")
        after = there.model_copy(update=change.model_dump(exclude_unset=True))
        if "concurrency_limit" in change.model_fields_set:
            after.global_concurrency_limit = None
        found += [f"{one.name}: would be kept: {word}" for word in reading.kept(one, after)]
    return found


def _create(document: dict[str, Any]) -> None:
    """Have Prefect's own command make deployments."""
    # Set here, the checkout would be this machine's: workers must put in their own.
    environment = {k: v for k, v in os.environ.items() if k != "ENGINEWORKS_CHECKOUT"}
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "prefect.yaml")
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all",
             "--prefect-file", str(path)],
            cwd=TOP, env=environment, capture_output=True, text=True, errors="replace", timeout=300,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"prefect deploy failed:\n{(done.stdout + done.stderr)[-3000:]}")


def _clone(git: str, branch: str | None) -> list[dict[str, Any]]:
    step: dict[str, Any] = {"repository": git, "id": "clone"}
    if branch:
        step["branch"] = branch
    return [
        {"prefect.deployments.steps.git_clone": step},
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ clone.directory }}"}},
    ]


def check(client: Any) -> list[str]:
    """Names of all deployments; the schema of their parameters must have come along."""
    found = []
    for deployment in client.read_deployments():
        flow = client.read_flow(deployment.flow_id)
        found.append(f"{flow.name}/{deployment.name}")
        if not (deployment.parameter_openapi_schema or {}).get("properties"):
            raise RuntimeError(f"{found[-1]} has no parameters: its entrypoint was not found")
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    """Deploy; 0, or 3 when Prefect's server cannot be used."""
    streams.tolerate()
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.add_argument("--git", metavar="URL", help="workers clone this instead of a checkout")
    parser.add_argument("--branch", help="branch or tag of --git")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be changed and what kept"
    )
    parser.add_argument(
        "--reset",
        metavar="FLOW/NAME",
        nargs="+",
        default=[],
        help="make these anew as prefect.yaml has them, without what people changed",
    )
    options = parser.parse_args(arguments)
    loopback.spare(os.environ)
    loopback.without_socks(os.environ)
    if "PREFECT_API_URL" not in os.environ:
        sys.stderr.write("PREFECT_API_URL is not set\n  next: set it to your Prefect server\n")
        return 3
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    document = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))
    if options.git:
        document["pull"] = _clone(options.git, options.branch)
    try:
        with get_client(sync_client=True) as client:
            if options.dry_run:
                from infra.listed import read

                said = would(client, read(document)) + automations.install(client, dry_run=True)
                sys.stdout.write("".join(f"{line}\n" for line in said) or "nothing would change\n")
                return 0
            return _deploy(client, document, options.reset)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except PrefectHTTPStatusError as error:
        words = " ".join(error.response.text.split())[:300]
        sys.stderr.write(f"Prefect's server refused {error.request.url.path}: {words}\n")
        return 3
    except httpx.TransportError as error:
        sys.stderr.write(
            f"Prefect's server does not answer ({type(error).__name__})\n"
            "  next: start it, or correct PREFECT_API_URL\n"
        )
        return 3


def _deploy(client: Any, document: dict[str, Any], again: list[str]) -> int:
    from infra.listed import read

    listed = read(document)
    known = {one.name for one in listed} | automations.names()
    if unknown := sorted({*again} - known):
        raise RuntimeError(f"prefect.yaml lists no {', '.join(unknown)}")
    pools(client, listed)
    said = deployments(client, document, listed, again)
    said += automations.install(client, again=again)
    names = check(client)
    sys.stderr.write("".join(f"{line}\n" for line in said))
    sys.stdout.write("\n".join(names) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

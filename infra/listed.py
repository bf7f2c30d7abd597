"""Deployments of prefect.yaml beside those on the server: what is the product's, what people's.

The product's are entrypoint, pull steps, description and the form of the parameters; everything
else (values of parameters, schedules, switches, limits, tags, pool and queue) may be changed in
the Prefect UI, and is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic.fields import FieldInfo

#: A limit that earlier versions set on deployments. Prefect's server keeps such limits alive by
#: leases in its memory: when it restarts, the run is ended (docs/fleet.md). Queues have one now.
OLD_LIMIT, OLD_QUEUE = 1, "default"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One deployment as prefect.yaml has it."""

    name: str
    """flow/deployment."""
    entry: dict[str, Any]
    schema: dict[str, Any]
    """Its parameters; unknown ones are refused by the server, by name."""
    pull: list[dict[str, Any]]

    @property
    def queue(self) -> str:
        """The queue of its work pool."""
        return str(self.entry["work_pool"].get("work_queue_name", "default"))


def read(document: dict[str, Any]) -> list[Listed]:
    """Every deployment of prefect.yaml; imports the flows."""
    found = []
    for entry in document["deployments"]:
        flow: Any = load_flow_from_entrypoint(entry["entrypoint"])
        found.append(
            Listed(
                name=f"{flow.name}/{entry['name']}",
                entry=entry,
                schema=_form(flow),
                pull=document["pull"],
            )
        )
    return found


def _form(flow: Any) -> dict[str, Any]:
    """What the Prefect UI asks for: closed, and with the descriptions of the fields.

    Prefect itself reads docstrings alone, and takes any further parameter.
    """
    schema = parameter_schema(flow).model_dump_for_openapi()
    for name, hint in get_type_hints(flow.fn, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            if isinstance(note, FieldInfo) and note.description:
                schema["properties"][name]["description"] = note.description
    return {**schema, "additionalProperties": False}


def update(listed: Listed, there: DeploymentResponse) -> tuple[DeploymentUpdate, list[str]]:
    """What to write over a deployment that is there, and that in words; nothing: an empty list."""
    wanted = {
        "entrypoint": listed.entry["entrypoint"],
        "description": listed.entry.get("description") or there.description,
        "pull_steps": listed.pull,
        "parameter_openapi_schema": listed.schema,
    }
    words = {"parameter_openapi_schema": "the form of its parameters", "pull_steps": "pull steps"}
    fields = {name: value for name, value in wanted.items() if getattr(there, name) != value}
    said = [words.get(name, name) for name in fields]
    gone = [name for name in there.parameters if name not in listed.schema["properties"]]
    if gone:
        fields["parameters"] = {k: v for k, v in there.parameters.items() if k not in gone}
        said += [f"parameter {name}, which its flow no longer has, goes" for name in gone]
    if _limit(there) == OLD_LIMIT:
        fields["concurrency_limit"] = None
        said.append("its limit of one run is its queue's now")
        if there.work_queue_name == OLD_QUEUE != listed.queue:
            fields["work_pool_name"] = there.work_pool_name
            fields["work_queue_name"] = listed.queue
            said.append(f"its runs wait in the queue {listed.queue}")
    return DeploymentUpdate(**fields), said


def kept(listed: Listed, there: DeploymentResponse) -> list[str]:
    """What people have changed, in words: theirs, and what prefect.yaml has."""
    entry = listed.entry
    pairs = {
        "paused": (there.paused, False),
        "tags": (sorted(there.tags), sorted(entry.get("tags", []))),
        "work pool": (there.work_pool_name, entry["work_pool"]["name"]),
        "work queue": (there.work_queue_name, listed.queue),
        "job variables": (there.job_variables, entry["work_pool"].get("job_variables", {})),
        "limit of runs": (_limit(there), None),
    }
    names = listed.schema["properties"]
    parameters = entry.get("parameters", {})
    for name in sorted({*there.parameters, *parameters} & {*names}):
        pairs[f"parameter {name}"] = (there.parameters.get(name), parameters.get(name))
    ours, theirs = _schedules(entry.get("schedules", [])), _schedules_of(there)
    for name in sorted({*ours, *theirs}):
        pairs[f"schedule {name}"] = (theirs.get(name), ours.get(name))
    return [
        f"{name} is {_word(there_is)} (prefect.yaml: {_word(listed_is)})"
        for name, (there_is, listed_is) in pairs.items()
        if there_is != listed_is
    ]


def _word(value: Any) -> str:
    return "not set" if value is None else str(value)


def _limit(there: DeploymentResponse) -> int | None:
    found = there.global_concurrency_limit
    return None if found is None else found.limit


def _schedules(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Slug -> when, and whether it is on."""
    return {
        entry["slug"]: f"{entry['cron']} {entry['timezone']} {_switch(entry['active'])}"
        for entry in entries
    }


def _schedules_of(there: DeploymentResponse) -> dict[str, str]:
    found = {}
    for number, one in enumerate(there.schedules):
        rule = one.schedule
        when = getattr(rule, "cron", None) or getattr(rule, "rrule", None) or rule
        zone = getattr(rule, "timezone", None) or ""
        found[one.slug or f"number {number + 1}"] = " ".join(
            filter(None, (str(when), zone, _switch(one.active)))
        )
    return found


def _switch(active: bool | None) -> str:
    return "on" if active else "off"

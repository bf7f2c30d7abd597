"""The automations that `make deploy` installs: events that start flows, runs that fell silent.

What people change of one in Prefect's UI is kept and said, whether it is on is left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from flows.fleet.queues import SILENCE_WORDS
from infra import notices, started

#: Its name, by which it is found again.
DEAD_RUNS = "engineworks: a run whose heartbeats stop has crashed"
#: Workers let their runs send a heartbeat every 30 s.
SILENCE = timedelta(seconds=90)

#: What its description ends with: by it a person's change is told from a newer version of ours.
_INSTALLED = "Installed by engineworks (make deploy) as {}."


def install(client: Any, *, again: Collection[str] = (), dry_run: bool = False) -> list[str]:
    """Create them, or bring them up to date unless people changed them; what was done, in words.

    Args:
        client: Prefect's, synchronous.
        again: Names of those that are made anew, without what people changed.
        dry_run: Only say.
    """
    said = []
    automations = {
        DEAD_RUNS: _dead_runs(), **started.by_events(client), **notices.by_events(dry_run=dry_run)
    }  # fmt: skip
    for name, wanted in automations.items():
        said += _put(client, name, wanted, again=name in again, dry_run=dry_run)
    return said


def names() -> set[str]:
    """Of all of them."""
    return {DEAD_RUNS, started.PROMOTE, started.SHIP, started.MOVED, notices.BY_WEBHOOK,
        notices.BY_MAIL}  # fmt: skip


def _put(client: Any, name: str, plain: Any, *, again: bool, dry_run: bool) -> list[str]:
    would = "would be " if dry_run else ""
    there, *doubled = client.read_automations_by_name(name) or [None]
    if plain is None:  # what it names is not there yet, or is only written in earnest
        return [f"automation {name!r}: {would}new"] if there is None else []
    wanted = plain.model_copy(update={"description": _INSTALLED.format(digest(plain))})
    if there is None:
        if not dry_run:
            client.create_automation(wanted)
        return [f"automation {name!r}: {would}new"]
    ours, theirs = digest(wanted), digest(there)
    more = []
    for old in doubled:
        mine = digest(old) == ours
        more.append(f"automation {name!r}: a second one {would}{'removed' if mine else 'kept'}")
        if mine and not dry_run:
            client.delete_automation(old.id)
    installed = re.search(r"as ([0-9a-f]{12})\.", there.description or "")
    if theirs != ours and not again and not (installed and installed[1] == theirs):
        return more + [
            f"automation {name!r}: {would}kept: {part}"
            for part in ("trigger", "actions")
            if getattr(there, part) != getattr(wanted, part)
        ]
    own_words = (there.description or "").startswith(_INSTALLED.partition("(")[0])
    if not own_words and theirs == ours and not again:
        return [*more, f"automation {name!r}: {would}kept: description"]
    if (theirs, there.description) != (ours, wanted.description) and not dry_run:
        client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    if theirs == ours:
        return more
    return [*more, f"automation {name!r}: {would}{'set back' if again else 'brought up to date'}"]


def digest(automation: Any) -> str:
    """Of its trigger and actions, the first 12 digits."""
    parts = [automation.trigger, *automation.actions]
    text = json.dumps([_ordered(json.loads(part.model_dump_json())) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _ordered(value: Any) -> Any:
    """Sets have no order, and come as lists in any."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return sorted(map(_ordered, value), key=json.dumps)
    return value


def _dead_runs() -> Any:
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    beat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{word}" for word in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=DEAD_RUNS,
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None, state=StateType.CRASHED, message=SILENCE_WORDS, force=False
            )
        ],
    )

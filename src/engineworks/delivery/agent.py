"""The agent of a device: asks what is to run, brings it, tries it, switches, watches, goes back.

Whatever happens on the way, an engine that worked stays where the link leads: downloads lie apart,
an engine is tried before it is switched to, and the link is replaced in one step. Knows no metadata
and no file formats; those are the parts' that it calls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engineworks.delivery import cards, enrolment, health, trial
from engineworks.delivery import clock as clocks
from engineworks.delivery import home as homes
from engineworks.delivery.calls import Calls
from engineworks.delivery.cards import Card, Slot
from engineworks.delivery.clock import Clock
from engineworks.delivery.disk import Disk, explained
from engineworks.delivery.fetch import DownloadLimits, Fetcher
from engineworks.delivery.home import Home
from engineworks.delivery.refusal import Check, NoRoom, Refused, Unreachable
from engineworks.delivery.slots import MOST_TRIES, SlotState
from engineworks.delivery.status import SlotOutcome, Status, Word
from engineworks.delivery.target import SignedTarget, blob_path
from engineworks.delivery.transport import RepositorySource, whole
from engineworks.delivery.trial import DeviceTrial
from engineworks.delivery.trust import SCRATCH, Named, Trust, TrustedView
from engineworks.errors import EngineworksError

_log = logging.getLogger(__name__)

DAMAGED = "what ran is damaged on the disk"

Trier = Callable[..., DeviceTrial]
Asker = Callable[[str], Any]
Watcher = Callable[[str, str, str, float], str]


class _Called(Exception):
    """The repository calls for another look."""


class Failed(Refused):
    """The engine itself is at fault on this device."""


class Agent:
    """An enrolled device.

    Args:
        home: Its folder.
        source: The repository.
        disk: How the folder is written.
        clock: Gives the time.
        tries: Tries an engine; None: `trial.run`.
        asks: Asks a server how it does; None: `health.ask`.
        watches: Watches a server; None: `health.watch`.

    Raises:
        DeliveryError: It is not enrolled.
    """

    def __init__(
        self, home: Home, source: RepositorySource, *, disk: Disk | None = None,
        clock: Clock = clocks.system, tries: Trier | None = None, asks: Asker | None = None,
        watches: Watcher | None = None,
    ) -> None:  # fmt: skip
        self._home, self._source, self._disk = home, source, disk or Disk()
        self._clock, self._tries = clock, tries or trial.run
        self._asks, self._watches = asks or health.ask, watches or self._watch_server
        self._enrolled = enrolment.read(home)
        since = datetime.fromisoformat(self._enrolled.at)
        self._trust = Trust(home, self._disk, source, clock, since)
        self._fetcher = Fetcher(home, self._disk, source)
        self._calls, self._glance_s = Calls(source, self._trust.calls), 0.0

    def called(self) -> bool:
        """Whether the repository calls for a look at once; asks as often as the card says."""
        return self._calls.heard(self._glance_s)

    def once(self) -> Status:
        """Look once, and do what is to be done.

        Returns:
            What came of it; it is also in `status.json`.

        Raises:
            DeliveryError: The card cannot be read, or another agent is at work.
        """
        with enrolment.alone(self._home):
            card = cards.load(self._home)
            self._glance_s = card.glance_s
            self._calls.answer()
            self._clear()
            states = {name: SlotState(self._home, self._disk, name) for name in card.slots}
            try:
                look = self._trust.look(
                    [(slot.model, slot.variant) for slot in card.slots.values()]
                )
            except EngineworksError as error:
                status = self._offline(card, states, error)
            else:
                status = self._online(card, states, look)
            status = replace(status, sequence=self._sequence())
            try:
                self._tidy(states)
                homes.write(self._disk, self._home.status, status)
            except NoRoom as error:  # what serves goes on; the next look says it again
                _log.error("%s", error.message)
        return status

    # ---- one look

    def _online(self, card: Card, states: Mapping[str, SlotState], look: TrustedView) -> Status:
        outcomes = []
        for name, slot in card.slots.items():
            state, named = states[name], look.named[slot.model, slot.variant]
            try:
                outcome = self._slot(card, slot, state, named)
            except EngineworksError as error:
                outcome = self._not(state, error)
            _log.info("%s: %s, %s", name, outcome.outcome, outcome.reason)
            outcomes.append(outcome)
        return Status(
            at=look.at.isoformat(timespec="seconds"), device=self._enrolled.device,
            slots=tuple(outcomes), versions=look.versions, expires=look.expires,
        )  # fmt: skip

    def _offline(
        self, card: Card, states: Mapping[str, SlotState], error: EngineworksError
    ) -> Status:
        """Nothing new can be told: what was begun is ended, what is damaged is left."""
        outcomes = []
        for state in states.values():
            outcome = self._not(state, error)
            try:
                if state.record.phase == "watching" and state.running == state.record.sha256:
                    outcome = self._watch(card, state)
                elif state.running and state.running == state.record.failed:
                    outcome = self._back(
                        state, state.record.failed_check, state.record.failed_reason
                    )
                elif state.running and not self._whole(state.running):
                    outcome = self._back(state, "content", DAMAGED)
            except EngineworksError as worse:
                outcome = self._not(state, worse)
            outcomes.append(outcome)
        _log.warning("%s", error.line)
        return Status(
            at=self._clock().isoformat(timespec="seconds"), device=self._enrolled.device,
            problem=error.line, check=getattr(error, "check", ""), slots=tuple(outcomes),
        )  # fmt: skip

    def _not(self, state: SlotState, error: EngineworksError) -> SlotOutcome:
        reached = not isinstance(error, Unreachable | NoRoom)
        check = getattr(error, "check", "")
        word: Word = "refused" if reached and check else "failed" if reached else "not reached"
        return self._outcome(state, word, error.line, check)

    def _outcome(self, state: SlotState, word: Word, reason: str, check: str = "") -> SlotOutcome:
        record, running = state.record, state.running
        version = record.version if running == record.sha256 else ""
        version = record.good_version if running == record.good and not version else version
        return SlotOutcome(
            slot=state.name, model=record.model, variant=record.variant, outcome=word,
            reason=reason, check=check, running=running, version=version, p50_ms=record.p50_ms,
            wanted=record.sha256, generation=record.generation,
        )  # fmt: skip

    # ---- one slot

    def _slot(
        self, card: Card, slot: Slot, state: SlotState, named: Named | EngineworksError | None
    ) -> SlotOutcome:
        if isinstance(named, EngineworksError):
            raise named
        if named is None:
            reason = (
                f"the metadata names no engine for {slot.model}: {slot.variant}; what runs stays"
            )
            return self._outcome(state, "nothing named", reason)
        self._note(state, slot, named)
        target, record = named.target, state.record
        if record.failed_generation == target.generation:
            if state.running == record.failed:
                return self._back(state, record.failed_check, record.failed_reason)
            if state.running and not self._whole(state.running):
                return self._back(state, "content", DAMAGED)
            reason = f"generation {target.generation} failed here ({record.failed_reason})"
            return self._outcome(
                state, "failed", f"{reason}; a newer one is tried again", "failed here"
            )
        waits = state.running not in ("", target.sha256) and self._whole(state.running)
        if waits and not target.includes(self._enrolled.device):
            reason = (
                f"{target.permille / 10:g} % of devices take generation {target.generation} now"
            )
            return self._outcome(state, "not its turn", reason)
        settled = not record.phase and state.running == target.sha256
        if settled and self._whole(target.sha256):
            state.note(good=target.sha256, good_version=target.version,
                       good_generation=target.generation)  # fmt: skip
            return self._outcome(state, "current", "it is what is named")
        try:
            sealed = self._bring(card, named)
            if settled:
                return self._outcome(state, "current", "it was damaged, and is repaired")
            if not (target.now and target.sha256 in record.proven):
                self._try(card, slot, state, target, sealed)
        except Failed as error:
            return self._fail(state, target, error)
        except (Unreachable, NoRoom):
            if state.running and not self._whole(state.running):
                return self._back(state, "content", DAMAGED)
            raise
        begun = state.running == target.sha256 and state.record.server
        watched = not target.now and (begun or self._answers(card))
        state.note(phase="watching", server=watched)
        state.point(target.sha256)
        if target.now:
            return self._good(state, "at once and without a watch, as it is signed")
        return self._watch(card, state)

    def _note(self, state: SlotState, slot: Slot, named: Named) -> None:
        """Take up what the metadata names, unless it goes back behind what was seen."""
        target, record = named.target, state.record
        facts = {
            "model": slot.model, "variant": slot.variant, "signers": named.signers,
            "generation": target.generation, "sha256": target.sha256, "version": target.version,
            "allowed": target.allowed,
        }  # fmt: skip
        same = (record.model, record.variant) == (slot.model, slot.variant)
        if not same or record.signers != named.signers:
            # Another model, or other keys speak for it: generations are counted anew.
            state.note(**facts, phase="", tries=0, failed_generation=0, failed="")
            return
        older = target.generation < record.generation
        other = target.generation == record.generation and target.sha256 != record.sha256
        if older or other:
            what = f"names {target.sha256[:12]}..." if other else "is named"
            raise Refused(
                f"generation {target.generation} {what}, generation {record.generation} with "
                f"{record.sha256[:12]}... was seen already",
                hint="a generation is never given twice: ask who signs for the model",
                check="generation",
            )
        fresh = {} if target.generation == record.generation else {"phase": "", "tries": 0}
        state.note(**facts, **fresh)

    def _bring(self, card: Card, named: Named) -> Path | None:
        """Have the engine, and its sealed test, on the disk; where that lies."""
        limits = DownloadLimits(
            bytes_per_s=card.kib_per_s * 1024, margin_bytes=int(card.margin_mib * 2**20),
            may_go_on=lambda: cards.may_download(card.hours, self._clock().astimezone()),
        )  # fmt: skip
        target, home = named.target, self._home
        place = home.engine(target.sha256)
        if not self._fetcher.whole(place):
            self._fetcher.bring(self._trust.manifest(named), target.sha256, place, limits)
        if target.sealed is None:
            return None
        there = home.tests / target.sealed.sha256
        if not self._fetcher.whole(there):
            path, most = blob_path(target.sealed.manifest_sha256), target.sealed.manifest_bytes
            raw = whole(self._source, path, most)
            self._fetcher.bring(raw, target.sealed.sha256, there, limits)
        return there

    def _try(
        self, card: Card, slot: Slot, state: SlotState, target: SignedTarget, sealed: Path | None
    ) -> None:
        """Raises `Failed` where the engine does not hold what was promised."""
        if state.record.tries >= MOST_TRIES:
            raise Failed(
                f"its trial or its watch was begun {MOST_TRIES} times and did not end: the device "
                "went down with it",
                hint="look at the device's log", check="trial",
            )  # fmt: skip
        state.note(phase="trying", tries=state.record.tries + 1)
        threads = slot.threads or target.threads
        try:
            outcome = self._tries(
                self._home.engine(target.sha256), sealed, threads=threads, limit_s=card.trial_s
            )
        except OSError as error:
            state.note(phase="", tries=0)
            raise NoRoom(f"no trial can be started ({error})", hint="tried again later") from error
        if not outcome.ok:
            check: Check = "sealed test" if outcome.check == "sealed test" else "trial"
            raise Failed(outcome.reason, hint="deliver a newer generation", check=check)
        limit = slot.most_p50_ms or slot.slower_than * target.p50_ms
        if not target.now and limit and outcome.p50_ms > limit:
            promised = f"{target.p50_ms:.4g} ms on {target.machine or 'another machine'}"
            raise Failed(
                f"p50 is {outcome.p50_ms:.4g} ms, more than {limit:.4g} ms (promised: {promised})",
                hint="on a device of another kind set most_p50_ms in its card", check="latency",
            )  # fmt: skip
        state.note(p50_ms=outcome.p50_ms)

    def _watch(self, card: Card, state: SlotState) -> SlotOutcome:
        """Watch what was switched to; it is good afterwards, or gone back from."""
        record, reason = state.record, "nobody serves it that could be watched"
        if card.server and record.server:
            try:
                wrong = self._watches(card.server, state.name, record.sha256, card.watch_s)
            except _Called:
                state.note(tries=0)  # it has not failed: its watch begins anew
                reason = "the repository calls: its watch is broken off, and begins anew"
                return self._outcome(state, "not reached", reason)
            if wrong:
                return self._lost(state, "health", wrong)
            reason = f"{card.server} answers with it, and was well for {card.watch_s:.0f} s"
        return self._good(state, reason)

    def _watch_server(self, server: str, name: str, sha256: str, watch_s: float) -> str:
        def pause(seconds: float) -> None:
            time.sleep(seconds)
            if self.called():
                raise _Called

        return health.watch(server, name, sha256, watch_s, asked=self._asks, sleep=pause)

    def _good(self, state: SlotState, reason: str) -> SlotOutcome:
        record = state.record
        state.note(
            phase="", tries=0, good=record.sha256, good_version=record.version,
            good_generation=record.generation, failed_generation=0, failed="",
            failed_check="", failed_reason="", **state.with_good(record.sha256),
        )  # fmt: skip
        return self._outcome(state, "switched", reason)

    def _answers(self, card: Card) -> bool:
        return bool(card.server) and self._asks(card.server) is not None

    # ---- back

    def _fail(self, state: SlotState, target: SignedTarget, error: Failed) -> SlotOutcome:
        if state.running == target.sha256:
            return self._lost(state, error.check, error.message)
        self._note_failure(state, error.check, error.message)
        return self._outcome(state, "failed", error.line, error.check)

    def _lost(self, state: SlotState, check: str, reason: str) -> SlotOutcome:
        self._note_failure(state, check, reason)
        return self._back(state, check, reason)

    @staticmethod
    def _note_failure(state: SlotState, check: str, reason: str) -> None:
        record = state.record
        good = {"good": "", "good_version": ""} if record.good == record.sha256 else {}
        state.note(
            phase="", tries=0, failed_generation=record.generation, failed=record.sha256,
            failed_check=check, failed_reason=reason, **state.with_bad(record.sha256), **good,
        )  # fmt: skip

    def _back(self, state: SlotState, check: str, reason: str) -> SlotOutcome:
        """Let the link lead to an engine that may run and lies whole here."""
        wanted = state.fallback(self._whole)
        if not wanted:
            text = f"{reason}; there is no other engine here that the metadata allows: it stays"
            return self._outcome(state, "failed", text, check)
        state.point(wanted)
        return self._outcome(state, "gone back", f"{reason}; back to {wanted[:12]}...", check)

    def _whole(self, sha256: str) -> bool:
        return self._fetcher.whole(self._home.engine(sha256))

    # ---- order

    def _sequence(self) -> int:
        """Larger than in any earlier look, also where the last status is lost."""
        try:
            last = homes.read(Status, self._home.status)
        except EngineworksError:
            last = None
        return max((last.sequence if last else 0) + 1, int(self._clock().timestamp()))

    def _clear(self) -> None:
        """Remove what a process that died has left; nothing of it was ever looked at."""
        with explained(self._home.folder / "x"):
            for path in self._home.folder.glob(f"{SCRATCH}*"):
                self._disk.remove(path)

    def _tidy(self, states: Mapping[str, SlotState]) -> None:
        # Also what links of slots lead to that are on the card no more: a server may follow them.
        names = {path.name for path in self._home.served.glob("*")} | set(states)
        every = [states.get(name) or SlotState(self._home, self._disk, name) for name in names]
        keep = {sha256 for state in every for sha256 in state.needed()}
        with explained(self._home.folder / "x"):
            self._fetcher.tidy(keep)

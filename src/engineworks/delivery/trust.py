"""What a device may run, by The Update Framework: the newest metadata that it has verified.

The framework's own client (`tuf`) does the checks, in a folder that is thrown away; what it has
verified is kept in one file that is replaced as a whole, so that a power cut leaves the state
before or the one after. Whatever is damaged there is fetched again, from the root on that came with
the enrolment. Time is `clock`'s, and held against all that was verified. Knows no engines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engineworks.delivery import clock as clocks
from engineworks.delivery import home as homes
from engineworks.delivery import refusal, target
from engineworks.delivery.clock import Clock
from engineworks.delivery.disk import Disk, explained
from engineworks.delivery.home import Home
from engineworks.delivery.refusal import Refused, Unreachable
from engineworks.delivery.target import SIGNED_AT, SignedTarget
from engineworks.delivery.transport import Absent, RepositorySource, whole
from engineworks.errors import EngineworksError

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

_log = logging.getLogger(__name__)

#: How folders begin that are thrown away.
SCRATCH = ".scratch-"

_SCHEME = "repository:///"

#: Largest manifest that is fetched.
_MOST_MANIFEST = 2**26


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """What was verified, as it is kept."""

    newest: str
    """The newest time at which fresh metadata was verified, UTC, ISO 8601."""
    files: dict[str, str]
    """Name in the framework's folder -> text of the file."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the metadata names for a variant."""

    target: SignedTarget
    file: TargetFile
    signers: str
    """Key ids that may speak for the model: others begin to count generations anew."""


@dataclass(frozen=True, kw_only=True)
class TrustedView:
    """What came of asking the repository."""

    at: datetime
    versions: Mapping[str, int]
    expires: Mapping[str, str]
    named: Mapping[tuple[str, str], Named | EngineworksError | None]
    """(model, variant) -> what is named; why it is refused; None: nothing is."""


class Trust:
    """A device's view of a repository.

    Args:
        home: The device's folder.
        disk: How it is written.
        source: The repository.
        clock: Gives the time.
        enrolled_at: No time before this is believed.
    """

    def __init__(
        self, home: Home, disk: Disk, source: RepositorySource, clock: Clock, enrolled_at: datetime
    ) -> None:
        self._home, self._disk, self._source = home, disk, source
        self._clock, self._enrolled_at = clock, enrolled_at

    def look(self, wanted: Sequence[tuple[str, str]]) -> TrustedView:
        """Ask what is to run.

        Args:
            wanted: (model, variant) of each slot.

        Raises:
            Refused: The metadata is not to be trusted; what is known stays.
            Unreachable: The repository does not answer.
            NoRoom: The disk is full.
        """
        kept = self._kept()
        newest = max(self._enrolled_at, datetime.fromisoformat(kept.newest))
        now = clocks.judged(self._clock(), newest)
        with explained(self._home.folder / "x"), self._scratch(kept) as scratch:
            try:
                view = self._ask(scratch, wanted, now)
            except EngineworksError:
                self._keep(kept, scratch, newest)
                raise
            self._keep(kept, scratch, now)
        return view

    def calls(self) -> int:
        """Number of the newest call to look at once, of the timestamp that was verified last."""
        try:
            text = self._kept().files.get("timestamp.json", "{}")
            return target.calls_of(json.loads(text).get("signed"))
        except (ValueError, AttributeError):  # damaged: the next look fetches it anew
            return 0

    def manifest(self, named: Named) -> bytes:
        """The manifest of an engine, as it was signed.

        Raises:
            Refused: What came is another file.
            Unreachable: It does not come.
        """
        from tuf.api.exceptions import RepositoryError

        folder, _, name = named.file.path.rpartition("/")
        most = min(named.file.length, _MOST_MANIFEST)
        path = f"targets/{folder}/{named.file.hashes['sha256']}.{name}"
        data = whole(self._source, path, most)
        try:
            named.file.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise refusal.of_tuf(error) from error
        return data

    # ---- what is kept

    def _kept(self) -> Trusted:
        nothing = Trusted(newest=self._enrolled_at.isoformat(), files={})
        try:
            kept = homes.read(Trusted, self._home.trusted) or nothing
            datetime.fromisoformat(kept.newest).astimezone()
        except (EngineworksError, ValueError, TypeError) as error:
            _log.warning(
                "%s is damaged (%s): everything is fetched anew", self._home.trusted, error
            )
            return nothing
        return kept

    def _keep(self, kept: Trusted, scratch: Path, newest: datetime) -> None:
        names = [path for path in scratch.rglob("*.json") if not path.is_symlink()]
        files = {
            path.relative_to(scratch).as_posix(): path.read_text(encoding="utf-8") for path in names
        }
        fresh = Trusted(newest=newest.isoformat(), files=files)
        if fresh != kept:
            homes.write(self._disk, self._home.trusted, fresh)

    @contextlib.contextmanager
    def _scratch(self, kept: Trusted) -> Iterator[Path]:
        """The framework's folder, as it was left; nothing in it is looked at after a crash."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self._home.folder) as name:
            scratch = Path(name)
            for inside, text in kept.files.items():
                path = scratch / inside
                if ".." not in path.parts:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
            yield scratch

    # ---- asking

    def _ask(self, scratch: Path, wanted: Sequence[tuple[str, str]], now: datetime) -> TrustedView:
        from tuf.ngclient import Updater

        try:
            updater = Updater(
                str(scratch), f"{_SCHEME}metadata/", fetcher=_fetcher(self._source),
                bootstrap=self._home.root.read_bytes(),
            )  # fmt: skip
            updater.refresh()
        except EngineworksError:
            raise
        except OSError:
            raise
        except Exception as error:  # of the framework's kinds
            raise refusal.of_tuf(error) from error
        signed = {
            role: _signed(scratch, role) for role in ("root", "timestamp", "snapshot", "targets")
        }
        self._hold_to_time(signed, now)
        named = {pair: self._named(updater, scratch, pair, now) for pair in wanted}
        return TrustedView(
            at=now,
            versions={role: metadata.version for role, metadata in signed.items()},
            expires={role: metadata.expires.isoformat() for role, metadata in signed.items()},
            named=named,
        )

    @staticmethod
    def _hold_to_time(signed: Mapping[str, Any], now: datetime) -> None:
        for role, metadata in signed.items():
            if metadata.is_expired(now):
                raise Refused(
                    f"{role} has expired on {metadata.expires:%Y-%m-%d %H:%M} UTC",
                    hint="sign it anew: engineworks deliver resign; engines that serve go on",
                    check="expired",
                )
        said = (
            signed["timestamp"].unrecognized_fields.get(SIGNED_AT)
            if "timestamp" in signed
            else None
        )
        if said is not None and _moment(said) > now + clocks.TOLERANCE:
            raise Refused(
                f"the metadata was signed on {said}, the clock says {now:%Y-%m-%d %H:%M} UTC",
                hint="set the clock (NTP): until then nothing is updated, what serves goes on",
                check="clock",
            )

    def _named(
        self, updater: Any, scratch: Path, wanted: tuple[str, str], now: datetime
    ) -> Named | EngineworksError | None:
        model, variant = wanted
        try:
            role = target.role_of(model)
            file = updater.get_targetinfo(target.path_of(model, variant))
            if file is None:
                return None
            self._hold_to_time({role: _signed(scratch, role)}, now)
            delegations = _signed(scratch, "targets").delegations
            said = target.of_custom(file.custom, model, variant)
            if "sha256" not in file.hashes or len(delegations.roles[role].keyids) < 1:
                raise Refused(f"{model}: {variant}: no sha256 is signed", hint="sign it anew")
            signers = ",".join(sorted(delegations.roles[role].keyids))
            return Named(target=said, file=file, signers=signers)
        except EngineworksError as error:
            return error
        except OSError:
            raise
        except Exception as error:  # of the framework's kinds
            return refusal.of_tuf(error)


def _moment(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(text)).astimezone(timezone.utc)
    except ValueError as error:
        raise Refused(
            f"the timestamp says that it was signed at {str(text)[:40]!r}, which is no time",
            hint="nothing changes on this device; ask who signs for the repository",
        ) from error


def _signed(scratch: Path, role: str) -> Any:
    from tuf.api.metadata import Metadata

    return Metadata.from_file(str(scratch / f"{quote(role, '')}.json")).signed


def _fetcher(source: RepositorySource) -> Any:
    """The framework's way to ask for files."""
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                yield from source.read(url.removeprefix(_SCHEME))
            except Absent as error:
                raise DownloadHTTPError(error.message, 404) from error
            except Unreachable as error:
                raise DownloadError(error.message) from error

    return Fetcher()

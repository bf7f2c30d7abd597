"""The side that signs: a folder of signed metadata and files, which any web server can publish.

    metadata/   signed lists (see `metadata.py`)
    targets/    manifests of engines, named by their digest
    blobs/      the files of engines, by content

Keys of root and targets stay offline; each model has a role of its own, whose key the promoting
machine holds. Nothing that is published needs to be kept secret. Knows no device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import manifest as manifests
from engineworks import store
from engineworks.delivery import blobs
from engineworks.delivery import keyring as keys
from engineworks.delivery import target as targets
from engineworks.delivery.keyring import Keyring
from engineworks.delivery.metadata import TOP, write_file
from engineworks.delivery.published import PublishedFiles, kind_of, utc_now
from engineworks.delivery.target import CALLS, SIGNED_AT, SignedTarget
from engineworks.errors import DeliveryError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Metadata, Root, TargetFile


class Repository(PublishedFiles):
    """A repository in a folder.

    Args:
        folder: It.
        keyring: The keys at hand.
        life_days: Kind of role -> days, where others than `LIFE_DAYS` are wanted.
    """

    def __init__(
        self, folder: Path, keyring: Keyring, life_days: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(folder, life_days)
        self._keyring = keyring

    # ---- what can be done

    def create(self, keys_of: Mapping[str, Sequence[SSlibKey]], least: Mapping[str, int]) -> None:
        """Begin: version 1 of every role.

        Args:
            keys_of: Role -> public keys, for the four of `TOP`.
            least: Role -> signatures that are needed; 1 where it does not say.

        Raises:
            DeliveryError: There is a repository already, or keys are missing.
        """
        from tuf.api.metadata import Metadata, Root, Targets

        if self.files.versions("root"):
            raise DeliveryError(
                f"{self.folder} holds a repository already", hint="choose another folder"
            )
        root = Root(consistent_snapshot=True)
        for role in TOP:
            for key in keys_of[role]:
                root.add_key(key, role)
            root.roles[role].threshold = least.get(role, 1)
        with self._alone():
            self._issue_root(Metadata(root), None)
            self._issue("targets", Metadata(Targets()))
            self._release({})

    def delegate(self, model: str, public: Sequence[SSlibKey], least: int = 1) -> bool:
        """Let keys speak for a model, in the place of those that did. Needs the key of targets.

        Returns:
            Whether it is published: without the online keys it is only signed, and is published
            with the next `resign`.
        """
        from tuf.api.metadata import DelegatedRole, Delegations

        role = targets.role_of(model)
        with self._alone():
            top = self.top()
            delegations = top.signed.delegations or Delegations(keys={}, roles={})
            known = delegations.roles or {}
            known[role] = DelegatedRole(
                name=role, keyids=[], threshold=least, terminating=True,
                paths=targets.paths_of(model),
            )  # fmt: skip
            delegations.roles = known
            top.signed.delegations = delegations
            for key in public:
                top.signed.add_key(key, role)
            used = {key_id for delegated in known.values() for key_id in delegated.keyids}
            for key_id in set(delegations.keys) - used:
                del delegations.keys[key_id]
            self._issue("targets", top)
            return self._publish_if_keys()

    def put(
        self, model: str, variant: str, engine: Path, said: SignedTarget, sealed: Path | None = None
    ) -> SignedTarget:
        """Publish the engine that a variant is to run.

        Args:
            model: Registered model, whose role must exist.
            variant: Its name.
            engine: Folder of the engine.
            said: What is signed beside it; of the engine's own identity.
            sealed: Folder of its sealed test.

        Returns:
            What was signed.

        Raises:
            DeliveryError: The generation is none that can follow, or keys are missing.
            ArtifactError: A folder is damaged, or another artifact.
        """
        from tuf.api.metadata import Metadata, TargetFile, Targets

        manifest = store.verify(engine, said.sha256)
        raw = (engine / manifests.MANIFEST_NAME).read_bytes()
        parcel = blobs.publish_parcel(self.folder, sealed) if sealed else said.sealed
        wanted = SignedTarget(**{**_fields(said), "sealed": parcel})
        targets.of_custom(targets.to_custom(wanted), model, variant)  # as a device reads it
        role, path = targets.role_of(model), targets.path_of(model, variant)
        with self._alone():
            known = f"{role}.json" in self.role("snapshot").signed.meta
            fresh = role in self.models() and not known  # delegated to, and never signed yet
            mine = Metadata(Targets()) if fresh else self.role(role)
            before = mine.signed.targets.get(path)
            if before is not None:
                old = targets.of_custom(before.custom, model, variant)
                if old == wanted:
                    return wanted
                targets.refuse_generation(old, wanted)
            blobs.publish(self.folder, engine, manifest)
            file = TargetFile.from_data(path, raw, ["sha256"])
            write_file(self.folder / blobs.manifest_path(file), raw, once=True)
            self._point(mine, role, file, wanted)
        return wanted

    def repeat(
        self, model: str, variant: str, version: str, *, generation: int, head: str
    ) -> SignedTarget | None:
        """Publish a version anew that was published before, from what lies here, for devices now.

        Args:
            model: Registered model.
            variant: Its name.
            version: Of the model.
            generation: The next one.
            head: sha256 of the newest entry of the log of promotions.

        Returns:
            What was signed; None where the version is not known here, or not whole.

        Raises:
            DeliveryError: The generation is none that can follow, or keys are missing.
        """
        role, path = targets.role_of(model), targets.path_of(model, variant)
        with self._alone():
            file = self.earlier(model, variant, version)
            if file is None or not blobs.whole(self.folder, file):
                return None
            old = targets.of_custom(file.custom, model, variant)
            wanted = replace(old, generation=generation, head=head, permille=1000, now=True)
            mine = self.role(role)
            before = mine.signed.targets.get(path)
            if before is not None:
                targets.refuse_generation(targets.of_custom(before.custom, model, variant), wanted)
            self._point(mine, role, file, wanted)
        return wanted

    def widen(self, model: str, variant: str, permille: int) -> SignedTarget:
        """Let more devices take what is published.

        Raises:
            DeliveryError: Nothing is published, or as many take it already.
        """
        role, path = targets.role_of(model), targets.path_of(model, variant)
        with self._alone():
            old = self.target(model, variant)
            if old is None or not old.permille < permille <= 1000:
                now = f"{old.permille / 10:g} % take it" if old else "nothing is published"
                raise DeliveryError(
                    f"{model}: {variant} cannot go to {permille / 10:g} % of devices: {now}",
                    hint="give more than now, at most 100; to take it back publish another engine",
                )
            mine = self.role(role)
            file: TargetFile = mine.signed.targets[path]
            said = replace(old, permille=permille)
            file.unrecognized_fields["custom"] = targets.to_custom(said)
            self._release({role: mine})
        return said

    def drop(self, model: str, variant: str) -> None:
        """Deliver nothing more for a variant. Devices keep what they run."""
        role = targets.role_of(model)
        with self._alone():
            mine = self.role(role)
            if mine.signed.targets.pop(targets.path_of(model, variant), None) is None:
                raise DeliveryError(
                    f"nothing is delivered of {model}: {variant}", hint="engineworks deliver status"
                )
            self._release({role: mine})

    def resign(self) -> list[str]:
        """Sign snapshot and timestamp anew, and whatever else nears its end and has its key here.

        What was signed elsewhere and written here meanwhile is published with it.

        Returns:
            Roles that were signed.

        Raises:
            DeliveryError: A key of snapshot or timestamp is missing.
        """
        with self._alone():
            root, due = self.root, {expiry.role for expiry in self.expiries() if expiry.soon}
            done = ["snapshot", "timestamp"]
            if "root" in due and self._can("root"):
                self._issue_root(self.root, root)
                done.append("root")
            if "targets" in due and self._can("targets"):
                self._issue("targets", self.top())
                done.append("targets")
            models = [role for role in self.models() if role in due and self._can(role)]
            done += self._release({role: self.role(role) for role in models})
        return done

    def rotate(
        self, role: str, add: Sequence[SSlibKey], remove: Sequence[str], least: int = 0
    ) -> bool:
        """Give a top role other keys. Needs keys of the old root and of the new one.

        Args:
            role: One of `TOP`.
            add: Public keys that come.
            remove: Key ids that go, or their beginnings.
            least: Signatures needed from now on; 0: as before.

        Returns:
            Whether everything is signed by the new keys: if not, `resign` where they are.
        """
        if role not in TOP:
            raise DeliveryError(
                f"{role!r} is no role of root", hint=f"roles: {', '.join(TOP)}; a model's key is "
                "changed with engineworks deliver delegate"
            )  # fmt: skip
        with self._alone():
            old, new, top = self.root, self.root, self.top()
            for key in add:
                new.signed.add_key(key, role)
            held = new.signed.roles[role]
            for start in remove:
                known = [key_id for key_id in held.keyids if key_id.startswith(start)]
                if len(known) != 1:
                    raise DeliveryError(
                        f"{start!r} names {len(known)} keys of {role}",
                        hint=f"its keys: {', '.join(held.keyids)}",
                    )
                new.signed.revoke_key(known[0], role)
            held.threshold = least or held.threshold
            if len(held.keyids) < held.threshold:
                raise DeliveryError(
                    f"{role} would have fewer keys than it needs signatures",
                    hint="add a key in the same command",
                )
            if role == "targets" and len(self._keyring.of(held.keyids)) < held.threshold:
                raise DeliveryError(
                    "targets has to be signed anew, and its new keys are not here",
                    hint="give --keys for the medium that holds them",
                )
            self._issue_root(new, old)
            if role == "targets":
                self._issue("targets", top)
            return self._publish_if_keys()

    # ---- how

    def _point(
        self, mine: Metadata[Any], role: str, file: TargetFile, wanted: SignedTarget
    ) -> None:
        """Let a variant's target be a file, and publish it."""
        file.unrecognized_fields["custom"] = targets.to_custom(wanted)
        mine.signed.targets[file.path] = file
        self._release({role: mine}, calls=int(wanted.now))

    def _alone(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        return store.alone(self.folder / ".lock")

    def _keys(self, role: str) -> tuple[list[str], int]:
        """(key ids, signatures needed) of a role."""
        root = self.root.signed
        if role in root.roles:
            held = root.roles[role]
        else:
            held = self.top().signed.get_delegated_role(role)
        return list(held.keyids), held.threshold

    def _can(self, role: str) -> bool:
        key_ids, least = self._keys(role)
        return len(self._keyring.of(key_ids)) >= least

    def _renew(self, role: str, signed: Any, version: int) -> None:
        signed.version = version
        life = timedelta(days=self.life_days[kind_of(role)])
        signed.expires = (utc_now() + life).replace(microsecond=0)

    def _issue_root(self, root: Metadata[Root], before: Metadata[Root] | None) -> None:
        """Sign root by as many of its new keys as it needs, and of those before."""
        self._renew("root", root.signed, max(self.files.versions("root"), default=0) + 1)
        wanted: list[str] = []
        for version in (before, root):
            if version is None:
                continue
            role = version.signed.roles["root"]
            here = len(self._keyring.of(role.keyids))
            if here < role.threshold:
                owners = "the keys of the root before" if version is before else "its keys"
                raise DeliveryError(
                    f"root needs {role.threshold} of {owners}, here are {here}",
                    hint="give --keys for the media that hold them",
                )
            wanted += [key_id for key_id in role.keyids if key_id not in wanted]
        keys.sign(root, self._keyring, "root", wanted, 1)
        self.files.write("root", root)

    def _issue(self, role: str, metadata: Metadata[Any]) -> bytes:
        """Number, sign and write a role of targets; devices do not see it yet."""
        self._renew(role, metadata.signed, max(self.files.versions(role), default=0) + 1)
        keys.sign(metadata, self._keyring, role, *self._keys(role))
        return self.files.write(role, metadata)

    def _publish_if_keys(self) -> bool:
        if not (self._can("snapshot") and self._can("timestamp")):
            return False
        self._release({})
        return not self.unsigned()

    def _release(self, changed: Mapping[str, Metadata[Any]], calls: int = 0) -> list[str]:
        """Write roles of models, then snapshot, then timestamp: from the last on devices see it.

        Args:
            changed: Roles of models; those that must be signed anew come by themselves.
            calls: How many of the targets in it devices take at once.

        Returns:
            Roles of models that were signed.
        """
        from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

        first = not (self.folder / "metadata" / "timestamp.json").exists()
        snapshot = Metadata(Snapshot()) if first else self.role("snapshot")
        timestamp = Metadata(Timestamp()) if first else self.role("timestamp")
        for role in ("snapshot", "timestamp"):  # before anything is written
            if not self._can(role):
                keys.sign(snapshot, self._keyring, role, *self._keys(role))
        roles = dict(changed)
        for role in self.unsigned() if not first else ():
            if role not in roles and self._can(role):
                known = f"{role}.json" in snapshot.signed.meta
                roles[role] = self.role(role) if known else Metadata(Targets())
        top = self.top()
        written = {"targets": (top.signed.version, self.files.raw("targets", top.signed.version))}
        for role, metadata in sorted(roles.items()):
            data = self._issue(role, metadata)
            written[role] = (metadata.signed.version, data)
        for role, (version, data) in written.items():
            meta = MetaFile.from_data(version, data, ["sha256"])
            snapshot.signed.meta[f"{role}.json"] = meta
        number = max(self.files.versions("snapshot"), default=0) + 1
        self._renew("snapshot", snapshot.signed, number)
        keys.sign(snapshot, self._keyring, "snapshot", *self._keys("snapshot"))
        data = self.files.write("snapshot", snapshot)
        timestamp.signed.snapshot_meta = MetaFile.from_data(number, data, ["sha256"])
        self._renew("timestamp", timestamp.signed, 1 if first else timestamp.signed.version + 1)
        said = timestamp.signed.unrecognized_fields
        said[SIGNED_AT] = utc_now().isoformat(timespec="seconds")
        said[CALLS] = targets.calls_of(said) + calls
        keys.sign(timestamp, self._keyring, "timestamp", *self._keys("timestamp"))
        self.files.write("timestamp", timestamp)
        return sorted(roles)


def _fields(value: SignedTarget) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}

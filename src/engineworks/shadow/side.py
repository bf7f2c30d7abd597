"""One engine of a shadow run: opened with the head of its task, answers as plain rows.

Knows no stream and no other engine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from engineworks import runtime, usercode
from engineworks.errors import ArtifactError
from engineworks.evaluate import frame_scores
from engineworks.evaluate.frame_scores import Rows
from engineworks.facts.shadow import ShadowEngine
from engineworks.manifest import Manifest, Requires
from engineworks.runtime import engines
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.session import Session
from engineworks.store import file_sha256


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Which engine, and how it is opened."""

    place: str
    """Folder, address, or an ONNX file that is read as the champion's manifest says."""
    sha256: str = ""
    """Identity that it must have; empty: any."""
    threads: int = 0
    """CPU threads; 0: all."""
    decoder_from: str = ""
    """Folder of the recipe whose own decoder it needs."""


class ShadowSide:
    """An open engine.

    Args:
        choice: Which.
        like: Manifest that a bare ONNX file is read by.

    Raises:
        ArtifactError: No engine, one without a score of single frames, or a bare ONNX file that
            does not take what `like` says.
        ModelError: The decoder is not there.
    """

    def __init__(self, choice: EngineChoice, like: Manifest | None = None) -> None:
        bare = Path(choice.place).suffix == ".onnx" and Path(choice.place).is_file()
        if bare and like is None:
            raise ArtifactError(
                f"{choice.place} is an ONNX file, which does not say how a picture becomes its "
                "input",
                hint="give the folder of an engine; only --reference takes an ONNX file",
            )
        self.session: Session = (
            _bare(Path(choice.place), like, choice.threads)
            if bare and like is not None
            else runtime.open(choice.place, threads=choice.threads, sha256=choice.sha256)
        )
        manifest = self.session.manifest
        try:
            task = manifest.task
            self.scores = frame_scores.of(task.kind if task else "none")
            decoder = None
            if task is not None and ":" in task.layout:
                if not choice.decoder_from:
                    raise ArtifactError(
                        f"{manifest.name} has a layout of its own, {task.layout}, and an engine "
                        "holds no code",
                        hint="give --decoder-from DIR, the folder of its recipe",
                    )
                decoder = usercode.load(task.layout, Path(choice.decoder_from), "task.layout")
            self.predictor: Predictor[Any] = Predictor(self.session, decoder=decoder)
        except BaseException:
            self.session.close()
            raise
        self.engine = ShadowEngine(
            name=manifest.name, target=manifest.target, precision=manifest.precision,
            sha256=file_sha256(Path(choice.place)) if bare else manifest.sha256,
        )  # fmt: skip

    def __call__(self, picture: Any) -> Rows:
        """The answer to one picture: uint8 (height, width, 3) BGR, or a video's planes."""
        return self.scores.rows(self.predictor(picture))

    def close(self) -> None:
        """Free the engine."""
        self.session.close()


def _bare(path: Path, like: Manifest, threads: int) -> Session:
    manifest = dataclasses.replace(
        like, name=path.name, entry=path.name, files=(), target="onnxruntime-cpu", precision="fp32",
        requires=Requires(runtime="onnxruntime"), details={},
    )  # fmt: skip
    try:
        session: Session = engines.load("onnxruntime").open_session(path.parent, manifest, threads)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be opened by ONNX Runtime ({type(error).__name__}: {error})",
            hint="give the ONNX file that the champion was built from, or an engine's folder",
        ) from error
    return session


def refuse_other_task(mine: Manifest, other: Manifest, whose: str) -> None:
    """Refuse two engines whose answers do not mean the same.

    Raises:
        ArtifactError: Another task, or other classes.
    """
    tasks = [manifest.task for manifest in (mine, other)]
    kinds = [task.kind if task else "none" for task in tasks]
    labels = [task.labels if task else () for task in tasks]
    if kinds[0] != kinds[1] or labels[0] != labels[1]:
        what = (
            f"its task is {kinds[1]}, the champion's {kinds[0]}"
            if kinds[0] != kinds[1]
            else f"it has {len(labels[1])} classes that are not the champion's {len(labels[0])}"
        )
        raise ArtifactError(
            f"the {whose} {other.name} answers another question: {what}",
            hint="compare engines of one task and the same classes in the same order",
        )

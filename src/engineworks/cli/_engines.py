"""How a command finds its engine: by folder, URI, or name of a variant of the latest run."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from engineworks.errors import ArtifactError

HELP = (
    "a folder with manifest.json, a file:// URI, or a variant of the latest run here, "
    "for example openvino/fp32"
)


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add the argument ENGINE and the option --threads."""
    command.add_argument("engine", metavar="ENGINE", help=HELP)
    command.add_argument(
        "--threads", type=_threads, default=0, help="CPU threads for inference (default: all)"
    )


def _threads(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; 0 means all")
    return int(text)


def locate(engine: str) -> str:
    """The folder or URI that ENGINE means.

    Raises:
        ArtifactError: It is neither a folder nor a variant that the latest run has built.
    """
    if "://" in engine or (Path(engine) / "manifest.json").is_file():
        return engine
    summary = (
        Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks") / "runs/latest/summary.json"
    )
    if Path(engine).exists() or engine.startswith(("/", ".", "~")):
        raise ArtifactError(
            f"{engine} holds no manifest.json, so it is no engine",
            hint="give the folder of an engine (engine.uri in summary.json)",
        )
    variants = _variants(engine, summary)
    variant = variants.get(engine)
    if variant is None:
        raise ArtifactError(
            f"{engine} is neither a folder nor a variant of the latest run",
            hint=f"that run ({summary}) has: {', '.join(variants)}",
        )
    built = variant.get("engine")
    if not built:
        raise ArtifactError(
            f"{engine} has no engine: {variant.get('verdict')} ({variant.get('reason')})",
            hint="choose another variant, or mend the cause and run the recipe again",
        )
    return str(built["uri"])


def _variants(engine: str, summary: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))["variants"]
        return {variant["name"]: variant for variant in found}
    except OSError:
        raise ArtifactError(
            f"{engine} is no folder, and there is no {summary} to look it up in",
            hint="give an engine's folder, run this where the recipe was run, or set "
            "ENGINEWORKS_HOME to that state folder",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{summary} is no summary of a run ({type(error).__name__}: {error})",
            hint="run the recipe again, or give an engine's folder",
        ) from error

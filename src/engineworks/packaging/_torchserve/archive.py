"""A `.mar` file: TorchServe's archive, the same bytes each time. Knows no engine.

TorchServe's own archiver writes the hour into it. Source:
https://github.com/pytorch/serve/blob/master/model-archiver/README.md
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The earliest hour that a zip file can say.
_EPOCH = (1980, 1, 1, 0, 0, 0)

HANDLER = "engineworks_handler.py"
SETTINGS = "model-config.yaml"


def write(path: Path, name: str, version: str, files: Mapping[str, Path], settings: Any) -> None:
    """Write an archive.

    Args:
        path: Of the `.mar`.
        name: Of the model.
        version: Of the model, as TorchServe orders them: `1.0`.
        files: Path inside -> file.
        settings: The model's own settings; JSON, which YAML includes.
    """
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": name,
            "modelVersion": version,
            "handler": HANDLER,
            "configFile": SETTINGS,
        },
        "archiverVersion": "0.12.0",
    }
    texts = {"MAR-INF/MANIFEST.json": manifest, SETTINGS: settings}
    # Stored: how well something is compressed differs between versions of zlib.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for inside in sorted([*texts, *files]):
            entry = zipfile.ZipInfo(inside, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED
            if inside in texts:
                content = (json.dumps(texts[inside], indent=1, sort_keys=True) + "\n").encode()
            else:
                content = files[inside].read_bytes()
            archive.writestr(entry, content)

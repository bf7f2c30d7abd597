"""One file per runtime; the listing is the registry, a file is imported at first use.

Each file has `open_session(folder, manifest, threads) -> Session`; one that says `ON_GPU = True`
takes `device`, the number of the GPU, too; `EXTRA` names the extra of this project that installs
what it imports; `SIMULATED` says why its engines are none. Packages elsewhere add runtimes through
the entry-point group `engineworks.engines` (name -> module); a file of this folder wins over one of
the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib import metadata
from types import ModuleType

from engineworks.errors import ArtifactError

GROUP = "engineworks.engines"


def load(runtime: str) -> ModuleType:
    """Import the file that opens the engines of a runtime.

    Raises:
        ArtifactError: There is no such runtime, or it comes from a package that does not import.
    """
    if runtime in {module.name for module in pkgutil.iter_modules(__path__)}:
        return importlib.import_module(f"{__name__}.{runtime}")
    for entry in metadata.entry_points(group=GROUP, name=runtime):
        try:
            return importlib.import_module(entry.value)
        except Exception as error:
            raise ArtifactError(
                f"the runtime {runtime!r} comes from {entry.value}, which cannot be imported "
                f"({type(error).__name__}: {error})",
                hint="repair or uninstall the package that provides this runtime",
            ) from error
    raise ArtifactError(
        f"there is no runtime {runtime!r}",
        hint="use the version of engineworks that built the engine, or install the package that "
        "provides this runtime",
    )


def simulated(runtime: str) -> str:
    """Why engines of a runtime, or of the target of its name, are no real ones; "" where they are.

    Args:
        runtime: Its name; one that is not installed here is taken for a real one.
    """
    try:
        return str(getattr(load(runtime), "SIMULATED", ""))
    except (ArtifactError, ImportError):
        return ""

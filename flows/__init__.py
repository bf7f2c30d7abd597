"""The flows: sentences made of tasks. Run them as `python -m flows.ship RECIPE`.

They use the library of their own checkout. A worker that clones the repository for a run has
perhaps another version installed; mixed, the two would be neither. Nothing is imported before a
command is ready for signals, not even `__future__`.
"""

import sys

if sys.argv[:1] == ["-m"]:  # Python looks for the module of `python -m flows.ship`, a command
    try:
        from flows.commands import signals as signals
    except KeyboardInterrupt:  # between Python's own start and the line above
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None

import importlib.util
import os
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "src"
_found = importlib.util.find_spec("engineworks")
if (_SOURCE / "engineworks").is_dir() and (
    _found is None or not Path(str(_found.origin)).resolve().is_relative_to(_SOURCE)
):
    sys.path.insert(0, str(_SOURCE))
    # Stages run in processes of their own, which must find the same.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    importlib.invalidate_caches()

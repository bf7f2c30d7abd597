"""Libraries that open files without Python: their functions, wrapped so that a path is told first.

Each is wrapped when it has been imported; nothing is imported for it but OpenCV, which every stage
has. Knows names of functions, no file.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

#: Module -> its functions or classes whose first argument, or argument of that name, is a path.
_READERS = {
    "cv2": ("imread", "imreadmulti", "FileStorage", "VideoCapture"),
    "cv2.dnn": ("readNet", "readNetFromONNX"),
    "torch.jit": ("load",),
    "onnxruntime": ("InferenceSession",),
    "safetensors": ("safe_open",),
    "av": ("open",),
}
_NAMES = ("filename", "f", "name", "file", "model", "source", "path_or_bytes")

_left = dict(_READERS)


def load_opencv() -> None:
    """Import it where it is installed, so that user code finds it wrapped."""
    if importlib.util.find_spec("cv2") is not None:
        importlib.import_module("cv2")


def watch(tell: Callable[[object], None]) -> None:
    """Wrap what has been imported by now.

    Args:
        tell: Called with what is about to be read.
    """
    for name in [name for name in _left if name in sys.modules]:
        module, functions = sys.modules[name], _left.pop(name, ())  # this may be called within it
        if not all(hasattr(module, function) for function in functions):
            _left[name] = functions  # it is half imported
            continue
        for function in functions:
            setattr(module, function, _telling(getattr(module, function), tell))


def _telling(read: Any, tell: Callable[[object], None]) -> Any:
    def told(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        tell(arguments[0] if arguments else next((named[n] for n in _NAMES if n in named), None))
        return read(*arguments, **named)

    if isinstance(read, type):
        return _watched(read, tell) or _stand_in(read, told)

    @functools.wraps(read)
    def telling(*arguments: Any, **named: Any) -> Any:
        return told(arguments, named)

    return telling


def _watched(kind: type, tell: Callable[[object], None]) -> type | None:
    """The class itself, which tells now when an object is made; None where it cannot be changed."""
    plain = kind.__init__  # type: ignore[misc] # replaced as a whole

    @functools.wraps(plain)
    def telling(self: Any, *arguments: Any, **named: Any) -> None:
        tell(arguments[0] if arguments else next((named[n] for n in _NAMES if n in named), None))
        plain(self, *arguments, **named)

    try:
        kind.__init__ = telling  # type: ignore[misc]
    except TypeError:
        return None
    return kind


def _stand_in(kind: type, told: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> type:
    """A class for a class: it makes objects of that one, and says that they are its own.

    Deriving from a class that is written in C++ can crash the process.
    """

    class StandIn(type):
        def __call__(cls, *arguments: Any, **named: Any) -> Any:
            return told(arguments, named)

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, kind)

        def __getattr__(cls, name: str) -> Any:
            return getattr(kind, name)

    return StandIn(kind.__name__, (), {"__doc__": kind.__doc__, "__module__": kind.__module__})

"""The on-device runtime: opens an engine by its manifest and runs it. Needs numpy alone.

Image decoding and resizing use OpenCV, each engine its own vendor package, both imported when
first used.
"""

from engineworks.runtime.detections import Detections
from engineworks.runtime.session import Session
from engineworks.runtime.session import open_engine as open

__all__ = ["Detections", "Session", "open"]

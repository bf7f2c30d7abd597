"""The on-device runtime: opens an engine by its manifest and runs it. Needs numpy alone.

Image decoding and resizing use OpenCV, each engine its own vendor package, both imported when
first used.
"""

from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification, Classifier
from engineworks.runtime.heads.detection import Detector
from engineworks.runtime.pictures import read_image
from engineworks.runtime.predictor import Predictor, StageTimes
from engineworks.runtime.remote import RemoteSession, remote
from engineworks.runtime.session import Session
from engineworks.runtime.session import open_engine as open
from engineworks.runtime.session_pool import SessionPool

__all__ = [
    "Classification",
    "Classifier",
    "Detections",
    "Detector",
    "Predictor",
    "RemoteSession",
    "Session",
    "SessionPool",
    "StageTimes",
    "open",
    "read_image",
    "remote",
]

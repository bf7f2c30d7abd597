"""The service that BentoML's guide writes: a file as the whole body, no access log.

`BENCH_ENGINE=ENGINE BENCH_WORKERS=N bentoml serve benchmarks._serving_bento:Photos`, in an
environment that holds BentoML.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from benchmarks._serving_answer import answer, detector


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    threads=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Photos:
    """Boxes of a photo."""

    def __init__(self) -> None:
        self.model = detector(os.environ["BENCH_ENGINE"])

    @bentoml.api(route="/detect")  # type: ignore[untyped-decorator] # BentoML is not here
    def detect(self, photo: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, Any]:
        """See `answer`."""
        return answer(self.model, photo.read_bytes())

"""What a sealed test is made of. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.codec import place
from engineworks.specs.ground import STRICT, must


@dataclass(frozen=True, kw_only=True)
class SealedSpec:
    """The test that goes with every shipped engine, to see whether it still answers so."""

    __pydantic_config__ = STRICT

    photos: str | tuple[str, ...] | None = place(default=None)
    """Photos that may leave the house: they go with the engine to whoever proves it. A folder, a
    `.txt` file that lists them, or a list of files. Left out: pictures are made, and the test says
    that it is weaker."""
    pictures: int = 16
    """How many, spread evenly over the names; every second one is kept in the model's input
    size."""

    def __post_init__(self) -> None:
        must(
            1 <= self.pictures <= 256,
            f"sealed.pictures: {self.pictures} is outside 1..256",
            "use for example 16; without the section no test is made",
        )
        must(
            self.photos is None or len(self.photos) > 0,
            "sealed.photos: the list is empty",
            "name photos that may leave the house, or leave it out",
        )

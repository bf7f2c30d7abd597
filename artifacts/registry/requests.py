"""What people ask for in MLflow: the tag `engineworks.request` of a version, and its answer.

    engineworks.request = promote            let this version through the gates
    engineworks.request = ship RECIPE        ship the network of this version by a recipe
    engineworks.answer  = ...                what came of it; the request is gone then

A tag is a wish; the aliases `champion-...` and `previous-...` are what is so, and are made so again
where somebody moves them. Knows MLflow's registry, no gates and no flows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from artifacts.registry.logged_files import missing
from artifacts.registry.mlflow_log import client, speaking
from engineworks.codec import digest

REQUEST, ANSWER = "engineworks.request", "engineworks.answer"

#: An answer has so many letters at most; the run's page has the rest.
_MOST_LETTERS = 1000

#: Versions in one page of a search.
_PAGE = 200

Kind = Literal["promote", "ship", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for on one version."""

    model: str
    version: str
    text: str
    """As it was written."""
    answered: str = ""
    """The answer to an earlier request."""

    @property
    def kind(self) -> Kind:
        """What is to be done."""
        verb, rest = self._words()
        if verb == "promote" and not rest:
            return "promote"
        return "ship" if verb == "ship" and rest else "unknown"

    @property
    def recipe(self) -> str:
        """Of `ship RECIPE`."""
        return self._words()[1] if self.kind == "ship" else ""

    @property
    def key(self) -> str:
        """The same for as long as this request waits, and another one for the next."""
        return digest([self.model, self.version, self.text, self.answered])

    def _words(self) -> tuple[str, str]:
        verb, _, rest = self.text.strip().partition(" ")
        return verb.lower(), rest.strip()


def waiting(home: Path) -> list[Request]:
    """Every request that has no answer, of all models.

    Raises:
        StoreError: MLflow does not answer.
    """
    with speaking(home):
        mlflow, requests, token = client(home), [], None
        while True:
            page = mlflow.search_model_versions(
                f"tags.`{REQUEST}` LIKE '%'", max_results=_PAGE, page_token=token
            )
            requests += [_request(version) for version in page]
            token = page.token
            if not token:
                break
    return sorted(requests, key=lambda one: (one.model, int(one.version)))


def of(home: Path, model: str, version: str) -> Request | None:
    """What is asked for on one version; None: nothing, or there is no such version.

    Raises:
        StoreError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    with speaking(home):
        try:
            request = _request(client(home).get_model_version(model, version))
        except MlflowException as error:
            if not missing(error):
                raise
            return None
    return request if request.text else None


def answer(home: Path, request: Request, words: str) -> None:
    """Put an answer in the place of a request; of another request meanwhile only the answer stays.

    Raises:
        StoreError: MLflow does not answer.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    shown = words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS]}..."
    with speaking(home):
        mlflow = client(home)
        mlflow.set_model_version_tag(
            request.model, request.version, ANSWER, f"{request.text}: {shown} ({now})"
        )
        there = mlflow.get_model_version(request.model, request.version).tags.get(REQUEST)
        if there == request.text:
            mlflow.delete_model_version_tag(request.model, request.version, REQUEST)


def _request(version: Any) -> Request:
    tags = version.tags or {}
    return Request(
        model=version.name, version=str(version.version), text=tags.get(REQUEST, "").strip(),
        answered=tags.get(ANSWER, ""),
    )  # fmt: skip

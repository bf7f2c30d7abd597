"""`make schemas`: writes the committed JSON Schemas from the code that they describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from artifacts.summary import Summary
from engineworks.recipe import json_schema

FOLDER = Path(__file__).parent


def summary_schema() -> dict[str, Any]:
    """JSON Schema of summary.json."""
    schema = TypeAdapter(Summary).json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "engineworks summary.json, schema 1"
    return dict(schema)


SCHEMAS = {"recipe.schema.json": json_schema, "summary.schema.json": summary_schema}


def main() -> None:
    """Write them all."""
    for name, schema in SCHEMAS.items():
        (FOLDER / name).write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

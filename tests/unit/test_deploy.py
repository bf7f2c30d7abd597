"""The forms that people fill in, as `make deploy` registers them."""

from __future__ import annotations

import yaml

from infra import listed
from infra.deploy import TOP


def test_every_parameter_is_described_and_none_else_is_taken():
    document = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))
    found = listed.read(document)
    assert len(found) == len(document["deployments"])
    for one in found:
        assert one.schema["additionalProperties"] is False
        assert all(field.get("description") for field in one.schema["properties"].values())
        unknown = {*one.entry.get("parameters", {})} - {*one.schema["properties"]}
        assert not unknown, one.name


def test_no_limit_hangs_on_a_lease():
    """Prefect's server forgets the leases of deployments' limits when it restarts."""
    document = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))
    assert not [d["name"] for d in document["deployments"] if "concurrency_limit" in d]

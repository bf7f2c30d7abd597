"""Names of `plan.py` for callers that have not moved yet."""

from engineworks.plan import SILENT_S, absence, ago, place

__all__ = ["SILENT_S", "absence", "ago", "place"]

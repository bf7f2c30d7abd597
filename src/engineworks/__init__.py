"""engineworks takes one trained vision model and ships it, proven, to every device.

This package is the library: it knows models, targets, engines and facts about them, and knows
nothing of Prefect or MLflow (`flows/`, `tasks/` and `artifacts/` in the repository do).
"""

__version__ = "0.1.0"

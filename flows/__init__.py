"""The flows: sentences made of tasks. Run them as `python -m flows.ship RECIPE`."""

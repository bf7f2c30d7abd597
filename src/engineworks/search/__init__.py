"""The search for an INT8 graph worth shipping: built, scored and timed for real.

Stands above the targets, whose builders it calls; knows none of them by name.
"""

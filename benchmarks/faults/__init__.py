"""Faults that must never ship anything wrong: a module for each kind, with its bars.

`python -m benchmarks.faults` runs them all (`make bench-faults`); each runs alone, too:
`python -m benchmarks.faults.NAME`.
"""

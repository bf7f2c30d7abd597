"""Calibration: the statistics of every activation in one pass, and ranges made of them.

Knows no target, and no search.
"""

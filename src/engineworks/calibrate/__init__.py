"""Calibration and INT8: statistics in one pass, ranges, Q/DQ graphs, sensitivity, recovery."""

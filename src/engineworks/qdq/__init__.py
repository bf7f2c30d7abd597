"""Graphs with Q/DQ pairs: what a graph is, how integers are written into it, what a runtime reads.

Knows neither how ranges are found (`calibrate`) nor who asks for integers where (`search`).
"""

"""Measurements of this project itself; each prints a table and its bars."""

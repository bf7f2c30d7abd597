"""A candidate beside the champion on the same frames, until one can say which is better.

The champion answers every frame; the candidate, and a reference, answer sampled ones in a process
of their own that yields to everything else. Knows no registry, no recipe and no terminal.
"""

"""Load on a server, as strangers make it: requests come when they come, answered or not.

`wire.py` sends them, `poisson.py` times them from the moment they were meant to be sent, `knee.py`
finds the rate up to which all is well. Standard library only; knows HTTP, and no server of ours.
"""

"""`python -m engineworks.cli`: the command without its script on PATH, as `start` runs it."""

from engineworks import interrupts
from engineworks.cli import main

interrupts.run(main)

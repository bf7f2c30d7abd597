"""`python -m engineworks.cli`: the command without its script on PATH."""

from engineworks.start import command

command()

"""Whether a registered version may take a champion's place: facts of both in, gates out. Pure."""

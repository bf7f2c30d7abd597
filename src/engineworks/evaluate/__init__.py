"""Is the engine still right? Data with known answers, numeric parity, task metrics."""

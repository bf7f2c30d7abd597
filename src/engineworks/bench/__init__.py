"""How fast is the engine here? Timing that says how far it can be trusted."""

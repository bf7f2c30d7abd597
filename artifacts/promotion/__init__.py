"""Which version is live for a variant, who moved it, when and why: kept exactly once."""

"""Parts that flows are made of."""

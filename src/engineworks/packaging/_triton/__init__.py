"""What belongs to Triton alone: its configuration, and the code that runs inside it."""

"""What belongs to TorchServe alone: its archive, and the code that runs inside it."""

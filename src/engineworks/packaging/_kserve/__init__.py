"""What belongs to KServe alone: its manifests, and the code that runs inside its Python server."""

"""The store's other side: S3 behind the local folder, and what may be removed."""

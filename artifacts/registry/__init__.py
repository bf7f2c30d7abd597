"""MLflow: what is logged, registered, promoted, and whose it is."""

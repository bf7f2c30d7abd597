"""Engines on their way to devices: who may say what runs, and an agent that makes it so.

Trust is The Update Framework's (the package `tuf`). `keyring`, `metadata` and `repository` are the
side that signs; everything else is the device's and needs neither torch nor Prefect. Nothing here
knows MLflow, recipes or how an engine was made.
"""

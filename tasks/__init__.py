"""The stages as Prefect tasks: one thin file each, one library call inside."""

"""What stages find: one frozen value per arrow of the pipeline, a file per subject.

Know no stage, no file and no vendor. Times are milliseconds or seconds as the names say; accuracy
metrics lie in 0..1.
"""

"""What a run leaves behind outside its work folder: summary, report, MLflow run, registry.

Code only; the bytes lie under ENGINEWORKS_HOME.
"""

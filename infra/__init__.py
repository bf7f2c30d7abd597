"""The servers, for people who want to look: Prefect's and MLflow's pages on local state."""

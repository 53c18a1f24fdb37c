"""Saved configuration as forms in Prefect's UI; they do no work."""

"""The life of a job below Prefect: accept, resolve, generate, monitor, store."""

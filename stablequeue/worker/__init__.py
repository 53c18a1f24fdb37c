"""The worker type `gpu-server`: takes a server's waiting runs and runs each in its own process.

Nothing here imports Prefect before its environment is set: `python -m stablequeue.worker POOL...`
sets it, and Prefect's own CLI finds the type through the entry point group `prefect.collections`,
which names `stablequeue.worker.gpu_server`.
"""

WORKER_TYPE = "gpu-server"
"""The type of our work pools."""

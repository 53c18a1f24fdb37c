"""Turns saved servers into work pools, queues and deployments: `python -m deployments`.

Nobody imports it. `stablequeue up` runs it whenever the saved servers change; running it again
changes nothing. What is static stands in `prefect.yaml`, which it applies too.
"""

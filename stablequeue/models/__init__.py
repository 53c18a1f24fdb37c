"""The model library: what files are there, what a person means, and what fits together.

Nothing is imported here; take what is needed from its module. Everything works without a network
and without Prefect.
"""

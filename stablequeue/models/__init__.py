"""Model files: what this host has, what is meant by a name or a hash, and fetching what is missing.

The library of files (`library`), references (`references`, `resolving`), where files come from
(`sources`) and how they are fetched (`downloads`). Nothing here imports Prefect.
"""

"""Forge's half of the sandbox: `/sdapi/v1`, `/internal`, `/file=` and Gradio's queue.

It behaves as the recorded server (Forge `f2.0.1v1.10.1`, June 2025): it replaces unknown names
without a word, answers interrupted jobs with 200, leaks overrides, forgets results.
"""

"""The model library: what files there are, which one is meant, and fetching what is missing.

`sources` knows where files come from (Civitai, Hugging Face, plain URLs, the links of ComfyUI's
workflow templates) and makes offers; `downloads` carries one offer into a folder. None of it
imports Prefect.
"""

"""Pure functions over prompts and the texts that carry them."""

"""A durable queue for generative image work."""

"""ComfyUI's HTTP and WebSocket protocol, as a running 0.3.64 spoke it."""

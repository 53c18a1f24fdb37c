"""Prefect's pages kept to this machine: they ask nobody but the server they came from.

With analytics off, the pages of Prefect 3.8 still call a tracking service when they open; a policy
sent with every page forbids it, and forbids other sites to frame them.
"""

from stablequeue.server_login import App, Message, Receive, Scope, Send

POLICY = b"connect-src 'self' ws: wss:; frame-ancestors 'self'"


class LocalPages:
    """ASGI: adds the policy to pages that bring none of their own.

    Args:
        app: Prefect's application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(message):
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY),
                    (b"referrer-policy", b"same-origin"),
                ]
            await send(message)

        await self._app(scope, receive, guarded)


def _is_page(message: Message) -> bool:
    headers = {name.lower(): value for name, value in message.get("headers", ())}
    page = headers.get(b"content-type", b"").startswith(b"text/html")
    return page and b"content-security-policy" not in headers

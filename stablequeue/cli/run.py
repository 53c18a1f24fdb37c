"""`up`, `ui`: running StableQueue, opening its pages."""

from typing import Annotated

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.errors import PrefectUnreachable


def up(
    *,
    paused: Annotated[
        bool, Parameter(help="Start no job until: stablequeue resume --all.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Run everything on this machine until Ctrl-C.

    Prefect's server, a worker for every saved server, thumbnails over http, and the built-in
    sandbox server while no other is saved.
    """
    settings = common.settings()
    from stablequeue.up import run  # noqa: PLC0415  # brings SQLModel in

    return run(settings, say=common.say, paused=paused)


def ui(
    *,
    print_: Annotated[
        bool,
        Parameter(
            name="--print", help="Print the address (good once, for a minute), open nothing."
        ),
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Open Prefect's pages in the browser, logged in."""
    with common.client() as queue:
        settings = queue.settings
        queue.session.api.healthy()
        if settings.prefect_api_url:
            address = queue.session.api.url.removesuffix("/api")
        else:
            from stablequeue.server_login import issue_ticket, login_url  # noqa: PLC0415

            address = login_url(queue.session.api.url, issue_ticket(settings))
    if print_ or common.json:
        common.emit({"url": address}, address)
        return 0
    import webbrowser  # noqa: PLC0415

    if not webbrowser.open(address):
        message = "no browser can be opened here; stablequeue ui --print gives the address"
        raise PrefectUnreachable(message)
    common.say("Opened Prefect's pages in the browser.")
    return 0

"""The tree of commands. Each is imported when it is used; a test compares the help texts."""

from collections.abc import Sequence
from typing import NamedTuple

from cyclopts import App, Group, Parameter

_JOBS = Group("Jobs", sort_key=1)
_QUEUE = Group("The queue", sort_key=2)
_THINGS = Group("Servers, models and pictures", sort_key=3)
_HERE = Group("This installation", sort_key=4)

_PLAIN = Parameter(negative=(), show_default=False)


class Command(NamedTuple):
    """A command: its name, where its function is, the first line of that function's docstring."""

    name: str
    function: str
    help: str


COMMANDS: dict[Group, tuple[Command, ...]] = {
    _JOBS: (
        Command("submit", "submit:submit", "Queue a job and print its id."),
        Command("ls", "look:ls", "List the queue: running, waiting in their order, ended."),
        Command("watch", "look:watch", "Follow one job, or the whole queue, until Ctrl-C."),
        Command("show", "look:show", "Show everything about a job."),
        Command(
            "cancel", "act:cancel", "Cancel jobs; only our own work on the servers is touched."
        ),
        Command("retry", "act:retry", "Let jobs that failed, crashed or were cancelled go on."),
        Command("again", "act:again", "Queue a new job like an old one."),
        Command(
            "move",
            "act:move",
            "Move waiting jobs: to the front, behind another, to another tier or server.",
        ),
        Command(
            "edit",
            "act:edit",
            "Change what waiting jobs ask for: stablequeue edit ID steps=30 hires.scale=2.",
        ),
    ),
    _QUEUE: (
        Command(
            "pause",
            "queue:pause",
            "Start no more jobs on a server, of a tier, or at all; running ones go on.",
        ),
        Command("resume", "queue:resume", "Start jobs again, also those parked for a full disk."),
        Command("drain", "queue:drain", "Pause a server and wait until nothing runs on it."),
        Command("clear", "queue:clear", "Cancel what waits, or take ended jobs off the list."),
    ),
    _HERE: (
        Command("up", "run:up", "Run everything on this machine until Ctrl-C."),
        Command("ui", "run:ui", "Open Prefect's pages in the browser, logged in."),
        Command("doctor", "doctor:doctor", "Check this installation and say what to mend."),
    ),
}

GROUPS: dict[str, tuple[str, Group, tuple[Command, ...]]] = {
    "servers": (
        "Save and test generation servers.",
        _THINGS,
        (
            Command("add", "servers:add", "Save a server, or change a saved one."),
            Command("ls", "servers:ls", "List the saved servers."),
            Command("test", "servers:ask", "Ask servers what they are and what they have."),
            Command("rm", "servers:rm", "Forget a server; its jobs and pictures stay."),
            Command("import", "servers:import_", "Save the servers of a servers.json."),
        ),
    ),
    "models": (
        "Know, find, fetch and keep models.",
        _THINGS,
        (
            Command("scan", "models:scan", "Bring the record of models up to date with the disk."),
            Command("ls", "models:ls", "List the models of this host."),
            Command(
                "show",
                "models:show",
                "Show everything about a model of this host, and its versions on Civitai.",
            ),
            Command("resolve", "models:resolve", "Say which file of this host a reference means."),
            Command(
                "identify",
                "models:identify",
                "Tell a file's hashes, architecture and embedded metadata.",
            ),
            Command(
                "duplicates",
                "models:duplicates",
                "List files with the same bytes, the largest waste first.",
            ),
            Command(
                "search", "models_online:search", "Search Civitai for models, a page at a time."
            ),
            Command(
                "fetch",
                "models_fetch:fetch",
                "Fetch models into the library of this host; what is there already stays.",
            ),
            Command(
                "downloads",
                "models_fetch:downloads",
                "List the downloads of models, with how far they are; cancel some.",
            ),
            Command(
                "check-updates",
                "models_online:check_updates",
                "Say which models have newer versions on Civitai.",
            ),
            Command(
                "update",
                "models_online:update",
                "Fetch the newest version of models from Civitai; the old file stays.",
            ),
            Command(
                "tag",
                "models_care:tag",
                "Put a model into collections: tags follow its bytes wherever it is moved.",
            ),
            Command("pin", "models_care:pin", "Keep a model whatever eviction wants."),
            Command("unpin", "models_care:unpin", "Let eviction have a model again."),
            Command(
                "rename", "models_care:rename", "Rename a model, with all that lies beside it."
            ),
            Command("rm", "models_care:rm", "Delete models, with all that lies beside them."),
            Command(
                "evict",
                "models_care:evict",
                "Delete the least used models until the rest is small enough.",
            ),
            Command("cache", "models_online:cache", "Forget what Civitai answered: cache clear."),
        ),
    ),
    "images": (
        "Find stored pictures.",
        _THINGS,
        (
            Command("search", "images:search", "Search the stored pictures, newest first."),
            Command("show", "images:show", "Show everything about a picture."),
            Command("verify", "images:verify", "Check that stored files are there and unchanged."),
        ),
    ),
    "config": (
        "Look at the settings.",
        _HERE,
        (
            Command("show", "config:show", "Show the settings in force."),
            Command("example", "config:example", "Print a commented settings file."),
        ),
    ),
}

HELP = """A durable queue for generative image work: ComfyUI, Forge and AUTOMATIC1111.

Every command also has: --json, --verbose (-v), --quiet (-q), --home FOLDER, --setting NAME=VALUE.
"""


def build(words: Sequence[str] = (), *, imported: bool = False) -> App:
    """Return the tree of commands, none of them imported.

    Args:
        words: What was typed first: a command named there explains itself at length, which takes
            importing it.
        imported: Every command explains itself at length.
    """
    app = App(
        name="stablequeue",
        help=HELP,
        help_format="plaintext",
        version=_version,
        default_parameter=_PLAIN,
        suppress_keyboard_interrupt=False,
    )
    for group, commands in COMMANDS.items():
        _register(app, commands, group, words, imported=imported)
    for name, (text, group, commands) in GROUPS.items():
        sub = App(name=name, help=text, group=group, default_parameter=_PLAIN)
        _register(sub, commands, None, words, imported=imported)
        app.command(sub)
    app.command(
        "stablequeue.cli.completion:install",
        name="--install-completion",
        help="Teach this shell to complete our commands.",
    )
    return app


def names(group: str = "") -> list[str]:
    """Return the commands of a group, or those at the top."""
    if group:
        return [command.name for command in GROUPS[group][2]]
    return [*GROUPS, *(command.name for commands in COMMANDS.values() for command in commands)]


def _register(
    app: App,
    commands: tuple[Command, ...],
    group: Group | None,
    words: Sequence[str],
    *,
    imported: bool,
) -> None:
    for command in commands:
        path = f"stablequeue.cli.{command.function}"
        # Without a text given here, the function's docstring is taken, and the function imported.
        text = None if imported or command.name in words else command.help
        app.command(path, name=command.name, help=text, group=group)


def _version() -> str:
    import stablequeue  # noqa: PLC0415

    return f"stablequeue {stablequeue.__version__}"

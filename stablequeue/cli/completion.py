"""`--install-completion`: teach the user's shell to complete our commands."""

from typing import Annotated, Literal

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common


def install(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="Empty: the one in use.")
    ] = None,
    print_: Annotated[
        bool, Parameter(name="--print", help="Print the script, install nothing.")
    ] = False,
    common: Common = DEFAULTS,
) -> int:
    """Teach this shell to complete our commands."""
    from stablequeue.cli.app import build  # noqa: PLC0415  # it names this module
    from stablequeue.errors import Refused  # noqa: PLC0415

    app = build()
    try:
        if print_:
            script = app.generate_completion(shell=shell)
            common.emit({"script": script}, script)
            return 0
        path = app.install_completion(shell=shell)
    except (RuntimeError, ValueError) as error:  # which shell it is cannot be told
        message = f"{error}; say which with --shell"
        raise Refused(message) from error
    common.emit({"installed": str(path)}, f"Installed {path}; a new shell uses it.")
    return 0

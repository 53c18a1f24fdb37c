"""`python -m stablequeue.sandbox`: a sandbox server in the foreground."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stablequeue.errors import QueueError, SettingsError
from stablequeue.sandbox.card import GraphicsCard
from stablequeue.sandbox.faults import Fault
from stablequeue.sandbox.models import default_models
from stablequeue.sandbox.serving import PROTOCOLS, serve_forever
from stablequeue.sandbox.state import SandboxConfig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stablequeue.sandbox", description=__doc__)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="both")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--home", type=Path, required=True, help="folder for its files")
    parser.add_argument("--name", default="sandbox")
    parser.add_argument("--step-seconds", type=float, default=0.05)
    parser.add_argument("--load-seconds", type=float, default=0.0, help="per model swap")
    parser.add_argument("--memory-mb", type=int, default=24_576, help="of the simulated card")
    parser.add_argument("--newer-comfyui", action="store_true", help="/api/jobs, strict ids")
    parser.add_argument(
        "--previews", choices=("none", "auto", "latent2rgb", "taesd"), default="auto"
    )
    parser.add_argument("--control", action="store_true", help="allow /stablequeue/*")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="JSON",
        help='e.g. {"kind": "stall", "where": "step 3"}; may be repeated',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, serve until interrupted; return 0, or 1 when it cannot serve."""
    options = _parser().parse_args(argv)
    try:
        options.home.mkdir(parents=True, exist_ok=True)
        config = SandboxConfig(
            protocol=options.protocol,
            home=options.home.resolve(),
            name=options.name,
            step_seconds=options.step_seconds,
            models=default_models(load_seconds=options.load_seconds),
            card=GraphicsCard(memory_mb=options.memory_mb),
            control=options.control,
            newer_comfyui=options.newer_comfyui,
            previews=options.previews,
        )
        for told in options.fault:
            try:
                config.faults.arm(Fault.from_json(json.loads(told)))
            except (ValueError, AttributeError) as error:
                message = f"--fault {told}: {error}"
                raise SettingsError(message) from error
        serve_forever(config, host=options.host, port=options.port, announce=_announce)
    except QueueError as error:
        print(f"stablequeue sandbox: {error}", file=sys.stderr)  # noqa: T201 - its output
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _announce(url: str) -> None:
    print(f"StableQueue sandbox at {url}", flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    sys.exit(main())

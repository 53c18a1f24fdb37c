"""The whole product once, on free ports, with the built-in sandbox: `python -m stablequeue.demo`.

Starts everything, makes one picture through ComfyUI's protocol, one through Forge's and one from
the first picture, and checks what a person would check: each job is Completed in Prefect, each
stored file decodes, and its own metadata names the seed, the prompt and the model asked for.
`STABLEQUEUE_DEMO_KEEP=1` leaves it running afterwards.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from stablequeue.client import Client
from stablequeue.errors import JobFailed, QueueError, Refused
from stablequeue.settings import load
from stablequeue.storage import read_metadata

if TYPE_CHECKING:
    from stablequeue.views import JobView

READY_WITHIN_S = 150.0
DONE_WITHIN_S = 90.0
_POLL_S = 0.2
PROMPT = "a lighthouse on a cliff at night, stars"
SIZE = 256


def main() -> int:
    """Run the demonstration; 0 when everything was as it must be, else 1 and the reason."""
    keep = os.environ.get("STABLEQUEUE_DEMO_KEEP", "") not in {"", "0"}
    home = Path(os.environ.get("STABLEQUEUE_HOME") or tempfile.mkdtemp(prefix="stablequeue-demo-"))
    os.environ.update(
        STABLEQUEUE_HOME=str(home),
        STABLEQUEUE_PREFECT_PORT=str(_free_port()),
        STABLEQUEUE_FILES_PORT=str(_free_port()),
        STABLEQUEUE_SANDBOX_PORT=str(_free_port()),
    )
    try:
        with _running(home) as up:
            _wait_until_ready(up, home)
            _make_and_check()
            _say(f"All well. Pictures: {load().pictures_folder}")
            if keep:
                _say("Still running, as asked; Ctrl-C ends it. Look at it with:")
                _say(f"  STABLEQUEUE_HOME={home} stablequeue ui")
                with contextlib.suppress(KeyboardInterrupt):
                    up.wait()
    except QueueError as error:
        _say(f"The demonstration failed: {error}")
        _say(f"Logs: {home / 'logs'}")
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(home: Path) -> Generator["subprocess.Popen[bytes]"]:
    home.mkdir(parents=True, exist_ok=True)
    up = subprocess.Popen([sys.executable, "-m", "stablequeue.up"])
    try:
        yield up
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGTERM)
        try:
            up.wait(timeout=60)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _wait_until_ready(up: "subprocess.Popen[bytes]", home: Path) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < READY_WITHIN_S:
        if up.poll() is not None:
            message = f"`stablequeue up` ended with exit code {up.returncode}"
            raise Refused(message)
        with contextlib.suppress(OSError, ValueError):
            facts: dict[str, Any] = json.loads((home / "run" / "up.json").read_text("utf-8"))
            if facts.get("ready"):
                _say(f"Ready after {time.monotonic() - begun:.0f} s.")
                return
        time.sleep(_POLL_S)
    message = f"`stablequeue up` was not ready within {READY_WITHIN_S:.0f} s"
    raise Refused(message)


def _make_and_check() -> None:
    client = Client()
    comfy = _make(client, server="sandbox", seed=7)
    _make(client, server="sandbox-forge", seed=11)
    first = client.pictures(comfy.job_id)[0]
    _make(
        client,
        server="sandbox",
        seed=13,
        mode="img2img",
        init_image=str(first.path),
        denoising_strength=0.5,
    )


def _make(client: Client, *, server: str, seed: int, **more: Any) -> "JobView":
    begun = time.monotonic()
    model = _a_checkpoint(server)
    submitted = client.submit(
        prompt=PROMPT,
        server=server,
        seed=seed,
        steps=8,
        width=SIZE,
        height=SIZE,
        checkpoint=model,
        source="demo",
        **more,
    )
    view = client.wait(submitted.job_id, timeout=DONE_WITHIN_S)
    if view.state.value != "completed" or view.phase != "Completed":
        raise JobFailed(server, f"job {view.job_id} ended as {view.state}: {view.message}")
    pictures = client.pictures(view.job_id)
    if len(pictures) != 1:
        raise JobFailed(server, f"{len(pictures)} files instead of one")
    path = Path(str(pictures[0].path))
    with Image.open(path) as picture:
        picture.load()
        size = picture.size
    if size != (SIZE, SIZE):
        raise JobFailed(server, f"{path.name} is {size[0]} x {size[1]}")
    _check_metadata(server, path, seed, model)
    _say(
        f"{more.get('mode', 'txt2img'):8} on {server:14} Completed in"
        f" {time.monotonic() - begun:4.1f} s: {path.name}"
    )
    return view


def _check_metadata(server: str, path: Path, seed: int, model: str) -> None:
    embedded = read_metadata(path)
    text = f"{embedded.infotext}\n{json.dumps(embedded.comfy_prompt, ensure_ascii=False)}"
    for what, wanted in (("prompt", PROMPT), ("seed", str(seed)), ("model", Path(model).stem)):
        if wanted not in text:
            raise JobFailed(server, f"{path.name}: its metadata does not name the {what}")


def _a_checkpoint(server: str) -> str:
    from stablequeue.sandbox.models import default_models  # noqa: PLC0415 - only known here

    del server  # both protocols offer the same files
    return default_models().names("checkpoints")[0]


if __name__ == "__main__":
    sys.exit(main())

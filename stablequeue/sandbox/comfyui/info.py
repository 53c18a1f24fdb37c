"""Routes that tell what the server is and has. Source: recording [00]."""

import os
import platform
import sys
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from stablequeue.sandbox.comfyui.http import as_json, empty, guarded, route
from stablequeue.sandbox.comfyui.nodes import NODES
from stablequeue.sandbox.comfyui.server import Server
from stablequeue.sandbox.models import EMBEDDINGS

JSON = dict[str, Any]
MODEL_FOLDERS = [
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision",
    "style_models", "embeddings", "diffusers", "vae_approx", "controlnet", "gligen",
    "upscale_models", "custom_nodes", "hypernetworks", "photomaker", "classifiers",
    "model_patches", "audio_encoders",
]  # fmt: skip
_OTHER_FOLDERS = {
    "text_encoders": ["text_encoders", "clip"],
    "diffusion_models": ["unet", "diffusion_models"],
    "controlnet": ["controlnet", "t2i_adapter"],
}
_SAVED_ONES = {
    "checkpoints": "checkpoints",
    "loras": "loras",
    "vae": "vae",
    "text_encoders": "clip",
    "diffusion_models": "diffusion_models",
}
_NOT_LISTED = {"configs", "custom_nodes"}
_MIB = 1024 * 1024
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ComfyUI</title></head>
<body><h1>StableQueue sandbox</h1><p>This server speaks ComfyUI's protocol and paints test cards.
It has no editor.</p></body></html>"""


def build(server: Server) -> list[BaseRoute]:
    """Return the routes."""
    info = _Info(server)

    async def constant(_request: Request, value: Any) -> Response:
        return as_json(value)

    def fixed(path: str, value: Any) -> list[BaseRoute]:
        return route(path, get=lambda request: constant(request, value))

    return [
        *route("/system_stats", get=info.system_stats),
        *route("/features", get=info.features),
        *route("/object_info", get=info.object_info),
        *route("/object_info/{name}", get=info.object_info_of),
        *fixed("/models", MODEL_FOLDERS),
        *route("/models/{folder}", get=info.models),
        *route("/embeddings", get=info.embeddings),
        *route("/view_metadata/{folder}", get=info.metadata),
        *route("/experiment/models", get=info.model_folders),
        *route("/experiment/models/{folder}", get=info.models_with_sizes),
        *fixed("/users", {"storage": "server", "migrated": False}),
        *fixed("/settings", {}),
        *fixed("/extensions", []),
        *fixed("/workflow_templates", {}),
        *fixed("/v2/userdata", []),
        Route("/internal/logs/raw", guarded(info.logs)),
        Route("/internal/folder_paths", guarded(info.folder_paths)),
        Route("/internal/files/{kind}", guarded(info.files)),
        Route("/", guarded(info.page)),
    ]


class _Info:
    def __init__(self, server: Server) -> None:
        self.server, self.models_shelf = server, server.models
        self.started = time.time()

    async def page(self, _request: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Cache-Control": "no-cache"})

    async def system_stats(self, _request: Request) -> Response:
        """Tell system and card; `stablequeue_sandbox` says that nothing here generates."""
        state, card = self.server.state, self.server.state.card
        total, free = card.memory_mb * _MIB, card.free_mb * _MIB
        system: JSON = {
            "os": sys.platform if state.config.newer_comfyui else os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": state.config.comfyui_version,
            "required_frontend_version": "1.27.10",
            "installed_templates_version": None,
            "required_templates_version": "0.1.95",
            "python_version": sys.version,
            "pytorch_version": "0.0.0+sandbox",
            "embedded_python": False,
            "argv": ["main.py", "--preview-method", state.config.previews],
            "stablequeue_sandbox": True,
        }
        device: JSON = {
            "name": card.name,
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
        return as_json({"system": system, "devices": [device]})

    async def features(self, _request: Request) -> Response:
        return as_json(self.server.features)

    async def object_info(self, _request: Request) -> Response:
        return as_json({name: known.describe(self.server) for name, known in NODES.items()})

    async def object_info_of(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        known = NODES.get(name)
        return as_json({name: known.describe(self.server)} if known else {})

    async def models(self, request: Request) -> Response:
        folder: str = request.path_params["folder"]
        if folder not in MODEL_FOLDERS:
            return empty(404)
        return as_json(self.models_shelf.names(folder))

    async def embeddings(self, _request: Request) -> Response:
        names = self.models_shelf.names(EMBEDDINGS)
        return as_json([os.path.splitext(name)[0] for name in names])  # noqa: PTH122 - as told

    async def metadata(self, request: Request) -> Response:
        name = request.query_params.get("filename", "")
        file = self.models_shelf.find(request.path_params["folder"], name)
        if file is None or not file.metadata or not name.endswith(".safetensors"):
            return empty(404)
        return as_json(file.metadata)

    def _folders(self, folder: str) -> list[str]:
        base = self.server.folders.base
        if folder == "custom_nodes":
            return [str(base / folder)]
        paths = [base / "models" / name for name in _OTHER_FOLDERS.get(folder, [folder])]
        if folder in _SAVED_ONES:
            paths.append(base / "output" / _SAVED_ONES[folder])
        return [str(path) for path in paths]

    async def model_folders(self, _request: Request) -> Response:
        listed = [name for name in MODEL_FOLDERS if name not in _NOT_LISTED]
        return as_json([{"name": name, "folders": self._folders(name)} for name in listed])

    async def models_with_sizes(self, request: Request) -> Response:
        folder: str = request.path_params["folder"]
        if folder not in MODEL_FOLDERS:
            return empty(404)
        return as_json(
            [
                {
                    "name": self.models_shelf.told(file),
                    "pathIndex": 0,
                    "modified": self.started,
                    "created": self.started,
                    "size": file.size_mb * _MIB,
                }
                for file in self.models_shelf.of(folder)
            ]
        )

    async def folder_paths(self, _request: Request) -> Response:
        return as_json({name: self._folders(name) for name in MODEL_FOLDERS})

    async def files(self, request: Request) -> Response:
        folder = self.server.folders.of(request.path_params["kind"])
        if folder is None:
            return as_json({"error": "Invalid directory type"}, 400)
        newest = sorted(
            (file for file in folder.iterdir() if file.is_file()),
            key=lambda file: -file.stat().st_mtime,
        )
        return as_json([file.name for file in newest])

    async def logs(self, _request: Request) -> Response:
        told = f"StableQueue sandbox on {platform.system()}\n"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.started))
        return as_json(
            {"entries": [{"t": f"{stamp}.000000", "m": told}], "size": {"cols": 80, "rows": 24}}
        )

"""Civitai's API and its storage, each on a socket of its own.

Shapes and traps are those of the reference fixtures (`civitai_data`); what a real server does that
hurts clients is done here too: see each handler. `FakeCivitai` holds the data and the faults,
`serve_civitai` serves both hosts.
"""

import hashlib
import json
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.fakes.model_files import hashes
from tests.fakes.serving import serve
from tests.fakes.storage import BLOCKED_AGENTS, FakeStorage, Seen

JSON = dict[str, Any]

DATA = Path(__file__).with_name("civitai_data")
TOKEN = "civitai-test-key-0123456789"  # noqa: S105 - opens nothing
_BROWSERS = ("mozilla", "chrome", "safari", "firefox", "opera", "edge")
_HASH_NAMES = ("AutoV1", "AutoV2", "AutoV3", "SHA256", "BLAKE3", "CRC32")


def fixture(name: str) -> Any:
    """Return one of the reference's examples."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def error_case(words: str) -> Response:
    """Return the answer of the case in `errors.json` whose name begins so."""
    case = next(case for case in fixture("errors") if case["case"].startswith(words))
    body = case["body"]
    content = body if isinstance(body, str) else json.dumps(body)
    return Response(content, case["status"], headers=case["headers"])


@dataclass
class FakeCivitai:
    """Models by id, versions within them, and what goes wrong.

    Attributes:
        faults: Names of cases in `errors.json`; taken from the left, one a request to the API.
        login_needed: Version ids only a valid key may download.
        disabled: Version ids nobody may download.
        early_until: Version ids for sale, with the ISO date they become free.
        key: The only valid one.
    """

    storage: FakeStorage = field(default_factory=FakeStorage)
    storage_url: str = ""
    models: dict[int, JSON] = field(default_factory=dict[int, JSON])
    images: list[JSON] = field(default_factory=list[JSON])
    faults: deque[str] = field(default_factory=deque[str])
    login_needed: set[int] = field(default_factory=set[int])
    disabled: set[int] = field(default_factory=set[int])
    early_until: dict[int, str] = field(default_factory=dict[int, str])
    seen: list[Seen] = field(default_factory=list[Seen])
    key: str = TOKEN

    def __post_init__(self) -> None:
        self.models[9900101] = fixture("model")
        self.images = fixture("images_page")["items"]
        for item in fixture("models_page")["items"]:
            self.models[item["id"]] = item

    def add_file(
        self,
        data: bytes,
        *,
        model_id: int = 500,
        version_id: int = 600,
        file_id: int = 700,
        name: str = "model.safetensors",
        model_type: str = "LORA",
        **changes: Any,
    ) -> JSON:
        """Put a file with these bytes on a version's page, making model and version if need be."""
        key = f"model/{file_id}/{name}"
        self.storage.put(key, data, name)
        model = self.models.setdefault(
            model_id,
            {
                "id": model_id,
                "name": f"Model {model_id}",
                "type": model_type,
                "nsfw": False,
                "tags": ["test"],
                "creator": {"username": "testmaker"},
                "modelVersions": [],
            },
        )
        versions: list[JSON] = model["modelVersions"]
        version = next((one for one in versions if one["id"] == version_id), None)
        if version is None:
            version = {
                "id": version_id,
                "name": "v1",
                "baseModel": "SDXL 1.0",
                "status": "Published",
                "publishedAt": "2026-02-02T00:00:00.000Z",
                "usageControl": "Download",
                "trainedWords": ["tok"],
                "files": [],
                "images": [],
            }
            versions.insert(0, version)
        files = cast("list[JSON]", version["files"])
        file: JSON = {
            "id": file_id,
            "name": name,
            "type": "Model",
            "sizeKB": len(data) / 1024,
            "metadata": {"format": "SafeTensor"},
            "pickleScanResult": "Success",
            "virusScanResult": "Success",
            "hashes": hashes(data),
            "key": key,
            **({"primary": True} if not files else {}),
            **changes,
        }
        files.append(file)
        return file

    def reset(self) -> None:
        """Forget what was asked and what was to go wrong."""
        self.faults.clear()
        self.seen.clear()
        self.storage.reset()

    def versions(self) -> list[tuple[JSON, JSON]]:
        """Return every version with its model."""
        return [(m, v) for m in self.models.values() for v in m["modelVersions"]]

    def app(self) -> Starlette:
        """Return the API."""
        api = "/api/v1"
        return Starlette(
            routes=[
                Route(f"{api}/models", self._models),
                Route(f"{api}/models/{{id}}", self._model),
                Route(f"{api}/model-versions/by-hash/ids", self._ids_by_hash, methods=["POST"]),
                Route(f"{api}/model-versions/by-hash", self._by_hashes, methods=["POST"]),
                Route(f"{api}/model-versions/by-hash/{{hash}}", self._by_hash),
                Route(f"{api}/model-versions/mini/{{id}}", self._mini),
                Route(f"{api}/model-versions/{{id}}", self._version),
                Route(f"{api}/images", self._images),
                Route(f"{api}/me", self._me),
                Route("/api/download/models/{id}", self._download),
                Route("/login", self._login),
            ],
        )

    # Who asks, and what goes wrong on purpose.

    def _stopped(self, request: Request) -> Response | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.url.path, headers))
        agent = headers.get("user-agent", "").lower()
        if not agent or agent.startswith(BLOCKED_AGENTS):
            return error_case("cloudflare")
        if self.faults:
            name = self.faults.popleft()
            if name == "busy":
                return Response("busy", 429, headers={"retry-after": "0"})
            if name == "broken":
                return Response("<html>oops</html>", 502, media_type="text/html")
            return error_case(name)
        return None

    def _keyed(self, request: Request) -> bool:
        # With an Authorization header `?token=` is not read; a bad key is as good as none.
        header = request.headers.get("authorization")
        given = header.removeprefix("Bearer ") if header else request.query_params.get("token")
        return given == self.key

    def _json(self, request: Request, data: Any) -> Response:
        body = json.dumps(data).encode()
        etag = f'W/"{hashlib.sha1(body, usedforsecurity=False).hexdigest()[:16]}"'
        headers = {"etag": etag, "cache-control": "public, s-maxage=300"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    # Looking things up.

    async def _models(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        asked = request.query_params
        types = asked.getlist("types")
        if any("," in one for one in types):  # documented, but not split
            return JSONResponse({"error": "Invalid option"}, 400)
        if int(asked.get("page", "1")) * int(asked.get("limit", "100")) > 1000:
            return error_case("paging too deep")
        found = [m for m in self.models.values() if not types or m["type"] in types]
        if ids := asked.get("ids"):
            found = [m for m in found if str(m["id"]) in ids.split(",")]
        if asked.get("nsfw") != "true":
            found = [m for m in found if not m.get("nsfw")]
        start = int(asked.get("cursor", "0"))
        limit = int(asked.get("limit", "100"))
        page, rest = found[start : start + limit], found[start + limit :]
        if query := asked.get("query"):  # filtered after paging: pages may be short or empty
            page = [m for m in page if query.casefold() in m["name"].casefold()]
        metadata = {"nextCursor": str(start + limit)} if rest else {}
        if rest:
            metadata["nextPage"] = f"http://evil.example/api/v1/models?cursor={start + limit}"
        return self._json(request, {"items": [_public(m) for m in page], "metadata": metadata})

    async def _model(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        ident = request.path_params["id"]
        if not ident.isdecimal():
            return JSONResponse({"error": "Invalid id"}, 400)
        model = self.models.get(int(ident))
        if model is None:
            return JSONResponse({"error": f"No model with id {ident}"}, 404)
        return self._json(request, _public(model))

    async def _version(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        for model, version in self.versions():
            if str(version["id"]) == request.path_params["id"]:
                return self._json(request, self._as_version(model, version))
        return JSONResponse({"error": f"No version with id {request.path_params['id']}"}, 404)

    async def _mini(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        for model, version in self.versions():
            if str(version["id"]) == request.path_params["id"]:
                if not version["files"]:
                    return error_case("version without visible files")
                wanted = request.query_params.get("modelFileId")
                files: list[JSON] = version["files"]
                file = next((f for f in files if str(f["id"]) == wanted), files[0])
                air = f"urn:air:sdxl:{model['type'].lower()}:civitai:{model['id']}@{version['id']}"
                answer = {"air": air, "fileName": file["name"], "hashes": file["hashes"]}
                return self._json(request, answer)
        return JSONResponse({"error": "Model not found"}, 404)

    async def _by_hash(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        wanted = request.path_params["hash"].upper()  # exact, never a prefix
        fitting = [
            (model, version)
            for model, version in self.versions()
            for file in version["files"]
            if wanted in [file.get("hashes", {}).get(name) for name in _HASH_NAMES]
        ]
        if not fitting:
            return error_case("by-hash")
        oldest = min(fitting, key=lambda one: (one[1].get("publishedAt") or "", one[1]["id"]))
        return self._json(request, self._as_version(*oldest))

    async def _by_hashes(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        asked = await request.json()
        if len(asked) > 100 or any(len(one) != 64 for one in asked):
            return JSONResponse({"error": "Invalid hashes"}, 400)
        answer: list[Any] = []
        for wanted in reversed(asked):  # another order; unknown ones are missing
            for model, version in self.versions():
                for file in version["files"]:
                    if file.get("hashes", {}).get("SHA256") == wanted.upper():
                        found = self._as_version(model, version)
                        broken = f"https://undefined/api/download/models/{version['id']}"
                        answer.append({**found, "downloadUrl": broken})
        return JSONResponse([*answer, None] if answer else [])

    async def _ids_by_hash(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        asked = {one.upper() for one in await request.json()}
        if len(asked) > 10_000:
            return JSONResponse({"error": "Too many"}, 400)
        found = [
            {"modelVersionId": version["id"], "modelId": model["id"], "hash": sha256}
            for model, version in self.versions()
            for file in version["files"]
            if (sha256 := file.get("hashes", {}).get("SHA256")) in asked
        ]
        return JSONResponse(found)

    async def _images(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        asked = request.query_params
        found = self.images
        if ident := asked.get("imageId"):
            found = [one for one in found if str(one["id"]) == ident]
        if asked.get("withMeta") != "true":
            found = [{**one, "meta": None} for one in found]
        return self._json(request, {"items": found, "metadata": {}})

    async def _me(self, request: Request) -> Response:
        if stopped := self._stopped(request):
            return stopped
        if not self._keyed(request):
            return JSONResponse({"error": "Unauthorized"}, 401)
        return JSONResponse(fixture("me"))

    def _as_version(self, model: JSON, version: JSON) -> JSON:
        """Return a version as its own endpoints show it: with little of its model."""
        few = {key: model.get(key) for key in ("name", "type", "nsfw", "poi", "mode")}
        return _public({**version, "modelId": model["id"], "model": few})

    # Downloading.

    async def _download(self, request: Request) -> Response:  # noqa: PLR0911
        if stopped := self._stopped(request):
            return stopped
        agent = request.headers["user-agent"].lower()
        browser = any(word in agent for word in _BROWSERS)
        ident = int(request.path_params["id"])
        found = [version for _, version in self.versions() if version["id"] == ident]
        if not found:
            return error_case("download: not found")
        version = found[0]
        if version.get("archived"):
            return error_case("download: archived")
        if ident in self.disabled:
            return error_case("download: disabled")
        if ident in self.login_needed and not self._keyed(request):
            if browser:
                return RedirectResponse("/login?reason=download-auth", 307)
            return error_case("download: login")
        if ident in self.early_until:
            body = {"error": "Early Access", "deadline": self.early_until[ident], "message": "..."}
            return JSONResponse(body, 403)
        file = self._chosen(version, request)
        if file is None:
            return error_case("download: not found")
        location = self.storage_url + self.storage.sign(file["key"])
        return RedirectResponse(location, 307, headers={"cache-control": "no-store"})

    async def _login(self, request: Request) -> Response:
        self._stopped(request)
        return error_case("sign-in page")

    def _chosen(self, version: JSON, request: Request) -> JSON | None:
        asked = request.query_params
        files: list[JSON] = version["files"]
        if ident := asked.get("fileId"):
            return next((file for file in files if str(file["id"]) == ident), None)
        primary = next((file for file in files if file.get("primary")), None)
        for name in ("format", "size", "fp"):  # scored, then refused if it does not fit
            if name in asked and primary and primary["metadata"].get(name) != asked[name]:
                return None
        return primary


def _public(data: Any) -> Any:
    """Return a copy without the fake's own keys."""
    if isinstance(data, dict):
        items = cast("JSON", data).items()
        return {key: _public(value) for key, value in items if key not in {"key", "archived"}}
    if isinstance(data, list):
        return [_public(one) for one in cast("list[Any]", data)]
    return data


@contextmanager
def serve_civitai(fake: FakeCivitai) -> Generator[str]:
    """Serve the API and, on another host, the storage; the value is the API's base URL."""
    with serve(fake.storage, name="localhost") as storage, serve(fake.app()) as url:
        fake.storage_url = storage
        yield url

"""Hugging Face's hub and its CDN, each on a socket of its own.

As the hub does: files in LFS answer with a redirect to another host and name commit, size and
SHA-256 in headers; what does not exist is 401 to the anonymous, 404 with a reason to the known; a
renamed repository redirects, relatively, on the same host.
"""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.serving import serve
from tests.fakes.storage import FakeStorage, Seen

HF_TOKEN = "hf_test_token_0123456789"  # noqa: S105 - opens nothing
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHuggingFace:
    """Repositories of files.

    Attributes:
        files: Bytes by (repository, path).
        gated: Repositories whose terms must be accepted.
        renamed: New names by old.
        small: Paths that are not in LFS: answered at once, without a SHA-256.
    """

    storage: FakeStorage = field(default_factory=FakeStorage)
    storage_url: str = ""
    files: dict[tuple[str, str], bytes] = field(default_factory=dict[tuple[str, str], bytes])
    gated: set[str] = field(default_factory=set[str])
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    small: set[str] = field(default_factory=set[str])
    seen: list[Seen] = field(default_factory=list[Seen])

    def add(self, repo: str, path: str, data: bytes) -> None:
        """Put a file into a repository."""
        self.files[repo, path] = data
        self.storage.put(f"cdn/{repo}/{path}", data)

    def app(self) -> Starlette:
        """Return the hub."""
        return Starlette(
            routes=[
                Route(
                    "/{owner}/{repo}/resolve/{revision}/{path:path}",
                    self._resolve,
                    methods=["GET", "HEAD"],
                ),
                Route("/api/models/{owner}/{repo}/tree/{revision}", self._tree),
            ]
        )

    async def _resolve(self, request: Request) -> Response:  # noqa: PLR0911 - one a case
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.url.path, headers))
        parts = request.path_params
        repo, path = f"{parts['owner']}/{parts['repo']}", parts["path"]
        known = headers.get("authorization") == f"Bearer {HF_TOKEN}"
        if repo in self.renamed:
            target = f"/{self.renamed[repo]}/resolve/{parts['revision']}/{path}"
            return Response(status_code=307, headers={"location": target})
        if repo not in {name for name, _ in self.files}:
            if known:
                return Response("Repository not found", 404, {"x-error-code": "RepoNotFound"})
            return Response("Invalid username or password.", 401)
        if repo in self.gated and not known:
            return Response("Access is restricted", 401, {"x-error-code": "GatedRepo"})
        if parts["revision"] not in {"main", COMMIT}:
            return Response("Invalid rev id", 404, {"x-error-code": "RevisionNotFound"})
        data = self.files.get((repo, path))
        if data is None:
            return Response("Entry not found", 404, {"x-error-code": "EntryNotFound"})
        answer = {"x-repo-commit": COMMIT, "accept-ranges": "bytes"}
        if path in self.small:
            etag = f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'
            return Response(data, headers={**answer, "etag": etag})
        answer |= {
            "x-linked-size": str(len(data)),
            "x-linked-etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "location": self.storage_url + self.storage.sign(f"cdn/{repo}/{path}"),
        }
        return Response("Found. Redirecting", 302, answer)

    async def _tree(self, request: Request) -> Response:
        repo = f"{request.path_params['owner']}/{request.path_params['repo']}"
        return JSONResponse(
            [
                {
                    "type": "file",
                    "path": path,
                    "size": len(data),
                    "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)},
                }
                for (name, path), data in self.files.items()
                if name == repo
            ]
        )


@contextmanager
def serve_huggingface(fake: FakeHuggingFace) -> Generator[str]:
    """Serve the hub and, on another host, its CDN; the value is the hub's base URL."""
    with serve(fake.storage, name="localhost") as storage, serve(fake.app()) as url:
        fake.storage_url = storage
        yield url

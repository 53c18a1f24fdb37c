"""Block documents and variables. Block types and schemas are registered by `deployments/`."""

from typing import Any

from stablequeue.errors import NotFound, PrefectRefused
from stablequeue.prefect_api.model import JSON, BlockDocument
from stablequeue.prefect_api.transport import Transport


class BlockCalls(Transport):
    """Calls about blocks and variables. Each raises what `Transport.request` raises."""

    def block_documents(self, type_slug: str, *, secrets: bool = False) -> list[BlockDocument]:
        """Return the saved blocks of a type, by name; none if the type is not registered.

        Args:
            type_slug: Slug of the block type, e.g. generation-server.
            secrets: With secret values instead of stars. Keep them out of logs.
        """
        body = {"block_types": {"slug": {"any_": [type_slug]}}, "include_secrets": secrets}
        rows = self.pages("block_documents/filter", body)
        return sorted((BlockDocument.from_json(row) for row in rows), key=lambda found: found.name)

    def block_document(self, type_slug: str, name: str, *, secrets: bool = False) -> BlockDocument:
        """Return one saved block.

        Raises:
            NotFound: There is none.
        """
        path = (
            f"block_types/slug/{type_slug}/block_documents/name/{name}"
            f"?include_secrets={str(secrets).lower()}"
        )
        missing = f"Prefect has no {type_slug} block named {name}"
        return BlockDocument.from_json(self.call("GET", path, missing=missing))

    def save_block_document(self, type_slug: str, name: str, data: JSON) -> BlockDocument:
        """Create the block `name`, or give it exactly this data.

        Secret values go in as plain text and are stored encrypted.

        Raises:
            NotFound: The block type is not registered with this server.
            PrefectRefused: The name is not allowed.
        """
        type_id, schema_id = self._registered(type_slug)
        body = {
            "name": name,
            "data": data,
            "block_schema_id": schema_id,
            "block_type_id": type_id,
        }
        try:
            return BlockDocument.from_json(self.call("POST", "block_documents/", body))
        except PrefectRefused:
            existing = self._existing(type_slug, name)
            if existing is None:
                raise
        update = {"data": data, "block_schema_id": schema_id, "merge_existing_data": False}
        self.call("PATCH", f"block_documents/{existing.id}", update)
        return self.block_document(type_slug, name)

    def delete_block_document(self, type_slug: str, name: str) -> None:
        """Delete a saved block.

        Raises:
            NotFound: There is none.
        """
        self.call("DELETE", f"block_documents/{self.block_document(type_slug, name).id}")

    def variable(self, name: str) -> Any:
        """Return a variable's value, which everyone with access to the API can read.

        Raises:
            NotFound: There is none.
        """
        missing = f"Prefect has no variable {name}"
        return self.call("GET", f"variables/name/{name}", missing=missing)["value"]

    def set_variable(self, name: str, value: Any) -> None:
        """Create a variable or give it this value (JSON, nothing secret)."""
        try:
            self.call("PATCH", f"variables/name/{name}", {"value": value})
        except NotFound:
            self.call("POST", "variables/", {"name": name, "value": value})

    def _existing(self, type_slug: str, name: str) -> BlockDocument | None:
        try:
            return self.block_document(type_slug, name)
        except NotFound:
            return None

    def _registered(self, type_slug: str) -> tuple[str, str]:
        missing = (
            f"Prefect does not know the block type {type_slug} yet; start StableQueue once with:"
            " stablequeue up"
        )
        kind = self.call("GET", f"block_types/slug/{type_slug}", missing=missing)
        body = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
        schemas = sorted(self.pages("block_schemas/filter", body), key=lambda row: row["created"])
        if not schemas:
            raise NotFound(missing)
        return kind["id"], schemas[-1]["id"]

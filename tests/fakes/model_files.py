"""Small model files with the beginnings real ones have, and what they hash to."""

import hashlib
import json
import random
import zlib


def safetensors(size: int, seed: int = 0) -> bytes:
    """Return a valid safetensors file of exactly `size` bytes (at least 200)."""
    draft = b""
    for padding in range(2):
        length = max(size - 8 - len(draft) - padding, 0)
        table = {"t": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
        draft = json.dumps(table).encode()
    draft = draft.ljust(len(draft) + 16)
    length = size - 8 - len(draft)
    table = {"t": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}
    header = json.dumps(table).encode().ljust(len(draft))
    body = random.Random(seed).randbytes(size - 8 - len(header))
    return len(header).to_bytes(8, "little") + header + body


def hashes(data: bytes) -> dict[str, str]:
    """Return a file's hashes as Civitai lists them (without BLAKE3, which needs a library)."""
    sha256 = hashlib.sha256(data).hexdigest().upper()
    rest = data[8 + int.from_bytes(data[:8], "little") :]
    return {
        "SHA256": sha256,
        "AutoV2": sha256[:10],
        "AutoV3": hashlib.sha256(rest).hexdigest().upper()[:12],
        "CRC32": zlib.crc32(data).to_bytes(4, "little").hex().upper(),
    }

"""Which pools a worker serves, told in a file by whoever started it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast


@dataclass
class PoolList:
    """Names of work pools in a JSON file: `stablequeue up` writes it, the worker follows it.

    Attributes:
        file: The whole list, replaced at once.
    """

    file: Path
    _last: list[str] = field(default_factory=list[str], init=False)

    def __call__(self) -> list[str]:
        """Return the names; none while there is no file yet, the last ones if it is damaged."""
        try:
            data: object = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError):
            return self._last
        if isinstance(data, list):
            self._last = [str(name) for name in cast("list[object]", data)]
        return self._last

    def write(self, pools: Sequence[str]) -> None:
        """Have these pools served from now on."""
        draft = self.file.with_suffix(".part")
        draft.write_text(json.dumps(list(pools)), encoding="utf-8")
        draft.replace(self.file)

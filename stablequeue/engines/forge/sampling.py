"""Sampler and scheduler as the server itself names them.

It takes a sampler it does not know for the first of its list, even one in another case or one of
the aliases it lists itself (recordings `txt2img_sampler_*`), and an unknown scheduler for
"Automatic". So only exact names of its own lists are sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stablequeue.engines.forge.answers import Sampler, Scheduler
from stablequeue.engines.forge.names import NoMatch, find_title
from stablequeue.engines.samplers import AUTOMATIC, NoCounterpart, to_forge
from stablequeue.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Lists:
    """What one server has. `schedulers` is None before AUTOMATIC1111 1.9."""

    server: str
    samplers: Sequence[Sampler]
    schedulers: Sequence[Scheduler] | None

    def resolve(self, sampler: str, scheduler: str) -> tuple[str, str]:
        """Return the server's names of a sampler and a scheduler of either family.

        The scheduler is its label, "Automatic" for the sampler's usual one, and empty on servers
        where the sampler's name says it ("DPM++ 2M Karras").

        Raises:
            Unsupported: It has no such thing; what it has is listed.
        """
        try:
            name, label = to_forge(sampler, scheduler)
        except NoCounterpart as error:
            own = self._own(sampler, scheduler)
            if own is None:
                raise self._refusal(error) from None
            name, label = own
        if self.schedulers is None:
            return self._combined(name, label), ""
        return self.sampler(name), self.scheduler(label)

    def sampler(self, name: str) -> str:
        """Return the exact name of a sampler of this server."""
        try:
            return find_title(name, self.sampler_names)
        except NoMatch:
            raise Unsupported(
                self.server, "sampler", f"it has no {name!r}", self.sampler_names
            ) from None

    def scheduler(self, label: str) -> str:
        """Return the exact label of a scheduler of this server."""
        if label.casefold() == AUTOMATIC.casefold():
            return AUTOMATIC
        for entry in self.schedulers or ():
            known = {entry.name, entry.label, *(entry.aliases or ())} - {""}
            if label.casefold() in {name.casefold() for name in known}:
                return entry.label or entry.name
        raise Unsupported(self.server, "scheduler", f"it has no {label!r}", self.scheduler_labels)

    @property
    def sampler_names(self) -> list[str]:
        """Every sampler's name, in the server's order."""
        return [entry.name for entry in self.samplers]

    @property
    def scheduler_labels(self) -> list[str]:
        """Every scheduler's label, in the server's order."""
        return [entry.label or entry.name for entry in self.schedulers or ()]

    def _own(self, sampler: str, scheduler: str) -> tuple[str, str] | None:
        """Return names of a living fork that our table lacks; None if its refusal stands."""
        if _is_known(sampler, "") and _is_known("Euler", scheduler):
            return None  # it knows both, and why they do not go together
        try:
            if _is_known(sampler, ""):
                name, label = to_forge(sampler)
            else:
                name, label = self._split(sampler)
            return name, self.scheduler(scheduler) if scheduler else label
        except Unsupported:
            return None

    def _split(self, sampler: str) -> tuple[str, str]:
        """Split "NAME LABEL" by the server's own lists."""
        for label in sorted(self.scheduler_labels, key=len, reverse=True):
            start = sampler.strip()[: -len(label) - 1]
            if sampler.strip().casefold() == f"{start} {label}".casefold() and start:
                try:
                    return self.sampler(start), label
                except Unsupported:
                    continue
        return self.sampler(sampler), AUTOMATIC

    def _combined(self, name: str, label: str) -> str:
        if label == AUTOMATIC:
            return self.sampler(name)
        try:
            return find_title(f"{name} {label}", self.sampler_names)
        except NoMatch:
            raise Unsupported(
                self.server,
                "scheduler",
                f"this server names sampler and scheduler in one, and has no '{name} {label}'",
                self.sampler_names,
            ) from None

    def _refusal(self, error: NoCounterpart) -> Unsupported:
        offered = self.sampler_names if error.field == "sampler" else self.scheduler_labels
        return Unsupported(
            self.server, error.field, f"{error.name!r} {error.problem}", error.close or offered
        )


def _is_known(sampler: str, scheduler: str) -> bool:
    try:
        to_forge(sampler, scheduler)
    except NoCounterpart:
        return False
    return True

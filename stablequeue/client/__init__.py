"""The Python client: queue jobs, follow them, change them, find their pictures.

    from stablequeue import Client

    with Client() as queue:
        job = queue.submit(prompt="a lighthouse at night", server="gpu-a", steps=20)
        ended = queue.wait(job.job_id, on_progress=lambda view: print(view.phase))
        for picture in queue.pictures(job.job_id):
            print(picture.path)

Needs neither Prefect nor a running server to be imported. Every method raises errors of
`stablequeue.errors` only.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stablequeue.client.acting import Acting, Change
from stablequeue.client.choosing import Choosing, Chosen, Which
from stablequeue.client.pausing import Pausing
from stablequeue.client.placing import Placing
from stablequeue.client.reading import Reading
from stablequeue.client.session import Session
from stablequeue.client.waiting import OnProgress, wait
from stablequeue.errors import BadRequest, Refused
from stablequeue.settings import Settings
from stablequeue.views import TIERS, JobView, Picture, ViewState

if TYPE_CHECKING:
    from stablequeue.client.models import Models
    from stablequeue.client.ordering import Ordering
    from stablequeue.client.pasting import Pasted
    from stablequeue.client.pictures import Pictures
    from stablequeue.client.submitting import OnBad, Submitted
    from stablequeue.client.submitting import OnProgress as OnManyProgress
    from stablequeue.request import GenerationRequest

__all__ = ["Change", "Client", "JobView", "Picture", "Session", "ViewState", "Which"]


class Client:
    """A client of one StableQueue installation on this machine.

    Job ids may be given short (the last or first digits). May be used by several threads.

    Args:
        settings: Of the installation; None: those in force (file, environment).
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.session = Session(settings)
        self._reading = Reading(self.session)
        self._acting = Acting(self.session, self._reading)
        self._choosing = Choosing(self.session, self._reading)
        self._pausing = Pausing(self.session)
        self._placing = Placing(self.session, self._choosing)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        if (models := self.__dict__.pop("models", None)) is not None:
            models.close()
        self.session.close()

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        return self.session.settings

    @property
    def prefect_answered(self) -> bool:
        """Whether Prefect answered when jobs were last looked at."""
        return self._reading.prefect_answered

    def submit(
        self,
        request: "GenerationRequest | Mapping[str, Any] | None" = None,
        /,
        *,
        job_id: str = "",
        **fields: Any,
    ) -> "Submitted":
        """Queue a job. When this returns it is on disk and will not be lost.

        Args:
            request: What to make; None: made of `fields`.
            job_id: To be safe against losing the answer: submitting again with the same id (a
                UUID) is the same job. Empty: a new one.
            fields: Fields of `GenerationRequest`, over those of `request`.

        Returns:
            Its id, warnings, and a note when it could not be handed to Prefect yet: then
            `stablequeue up` does that as soon as it can.

        Raises:
            BadRequest: The first problem, naming the field and what is allowed. Nothing is kept.
            CatalogueBusy: Retryable.
        """
        from stablequeue.client.submitting import submit  # noqa: PLC0415  # needs SQLModel

        return submit(self.session, request, fields, job_id=job_id)

    def pasted(self, source: str) -> "Pasted":
        """Return what a picture asks for, to be submitted: `submit(pasted(source).request)`.

        Its models are looked for by hash and id, in the library and on Civitai; what is found is
        asked for by what identifies it, so that the same picture is made, and missing files can
        be fetched.

        Args:
            source: Path of a picture or text, an infotext or JSON, or a picture's address on
                Civitai.

        Raises:
            NotFound: There is no such file or picture.
            UnreadableFile: It tells nothing about how it was made.
            BadRequest: What it tells is no valid request.
            DownloadError: Civitai cannot be asked for the picture.
        """
        from stablequeue.client.pasting import read_pasted  # noqa: PLC0415  # needs SQLModel

        return read_pasted(self.settings, source)

    def submit_many(
        self,
        requests: "Iterable[GenerationRequest | Mapping[str, Any]]",
        *,
        key: str = "",
        on_bad: "OnBad | None" = None,
        on_progress: "OnManyProgress | None" = None,
        **fields: Any,
    ) -> "list[Submitted]":
        """Queue many jobs in their order. Those accepted are on disk and will not be lost.

        All requests are checked before the first is accepted. Accepting takes a second for a
        thousand; then they become flow runs, a hundred at a time, which takes Prefect a while:
        what this call does not get to (an exception, a kill) is done by `stablequeue up`.

        Args:
            requests: What to make. One may have a `key` of its own beside its fields.
            key: Names this submission, so that it can be repeated: a request that was accepted
                under it is not accepted again. Equal requests count as often as they occur; the
                order may change, and `fields` do not matter. A request's own `key` stands for
                its content, so it may be corrected as long as it was not accepted. Without any
                key every call makes new jobs.
            on_bad: Called with the position (from 0) and the problem of each request that cannot
                be accepted, which is left out. None: the first of them is raised.
            on_progress: Called with how many are accepted, and how many of them flow runs.
            fields: Fields of `GenerationRequest`, over those of every request; `tags` are added
                to a request's own.

        Returns:
            For each request in order, without those left out: as `submit` does.

        Raises:
            BadRequest: The first problem, naming the request's position and the field. Nothing is
                kept.
            CatalogueBusy: Retryable, with the same key.
        """
        from stablequeue.client.submitting import submit_many  # noqa: PLC0415  # needs SQLModel

        return submit_many(
            self.session, requests, fields, key=key, on_bad=on_bad, on_progress=on_progress
        )

    def jobs(
        self,
        *,
        states: Collection[ViewState] = (),
        server: str = "",
        tag: str = "",
        limit: int = 50,
        history: bool = True,
    ) -> list[JobView]:
        """Return jobs: running ones, waiting ones in their order, ended ones newest first.

        Args:
            states: Only these; empty: all.
            server: Only this server's.
            tag: Only with this tag.
            limit: At most so many.
            history: Also ended jobs whose run Prefect no longer has.

        When Prefect does not answer, the catalogue's part is returned, with state `unknown` for
        what has not ended; `prefect_answered` says so.
        """
        return self._reading.jobs(
            states=states, server=server, tag=tag, limit=limit, history=history
        )

    def job(self, job_id: str) -> JobView:
        """Return one job.

        Raises:
            NotFound: There is no such job.
            Refused: The short id fits several.
        """
        return self._reading.job(job_id)

    def skipped(self, job: JobView) -> Mapping[str, str]:
        """Return why servers do not take a waiting job, by alias, as the worker last said."""
        return self._reading.skipped(job.flow_run_id) if job.flow_run_id else {}

    def wait(
        self,
        job_id: str,
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> JobView:
        """Follow a job to its end.

        While Prefect does not answer it goes on waiting; the job is not touched by this.

        Args:
            job_id: Which.
            on_progress: Called with every new view, the last one included.
            timeout: Seconds after which to return all the same. None: never.

        Returns:
            The last view; `ended` is False only after the timeout.
        """
        return wait(self.session, self._reading, job_id, on_progress=on_progress, timeout=timeout)

    def pictures(self, job_id: str) -> list[Picture]:
        """Return the stored files of a job, by picture, with where they are."""
        return self.files.of(job_id)

    @cached_property
    def files(self) -> "Pictures":
        """Stores of this installation."""
        from stablequeue.client.pictures import Pictures  # noqa: PLC0415  # needs the stores

        return Pictures(self.session)

    @cached_property
    def models(self) -> "Models":
        """The model library of this host, its sources and its downloads."""
        from stablequeue.client.models import Models  # noqa: PLC0415  # needs SQLModel

        return Models(self.session)

    def cancel(self, job_id: str) -> Change:
        """Cancel a job: a waiting one at once, a running one within seconds.

        Work of others on the same server is not touched. A job that has ended stays as it is.
        """
        return self._acting.cancel(job_id)

    def cancel_all(
        self, *, server: str = "", tag: str = "", waiting_only: bool = False, dry_run: bool = False
    ) -> list[Change]:
        """Cancel every job that fits.

        Args:
            server: Only this server's.
            tag: Only with this tag.
            waiting_only: Not those under way.
            dry_run: Say what would be done, do nothing.
        """
        return self._acting.cancel_all(
            server=server, tag=tag, waiting_only=waiting_only, dry_run=dry_run
        )

    def retry(self, job_id: str) -> Change:
        """Let a job that failed, crashed or was cancelled go on from where it was.

        What is stored is kept, what runs on the server is found again. The same flow run goes on;
        where Prefect no longer has it, the job gets a new one.

        Raises:
            Refused: It is finished (use `again`), or it has not ended.
        """
        return self._acting.retry(job_id)

    def again(self, job_id: str, **changes: Any) -> "Submitted":
        """Queue a new job like an old one, with `changes`.

        A seed of -1 was chosen by the old job's id, so the new one gets another.
        """
        return self.submit({**self.asked(job_id), **changes})

    def asked(self, job_id: str) -> dict[str, Any]:
        """Return what a job was asked for as fields of a request, without when it expires."""
        stored, run = self._reading.find(job_id)
        data: Any = stored.data if stored else run.parameters.get("request") if run else None
        fields: dict[str, Any] = dict(data) if isinstance(data, Mapping) else {}  # pyright: ignore[reportUnknownArgumentType]
        fields.pop("expires_at", None)
        return fields

    def waiting(
        self, *, server: str = "", tier: str = "", tag: str = "", text: str = ""
    ) -> list[JobView]:
        """Return every waiting job that fits, in the order of the queue.

        Args:
            server: For this server, or `any`.
            tier: Of this tier.
            tag: With this tag.
            text: With this text in the prompt.

        Raises:
            PrefectUnreachable: Nobody knows what waits.
        """
        which = Which(server=server, tier=tier, tag=tag, text=text)
        return [one.seen for one in self._choosing.waiting(which)]

    def move_front(self, job_id: str) -> Change:
        """Put a waiting job before all others of its server and tier; nothing overtakes it.

        Raises:
            Refused: It does not wait.
        """
        return self._single(self.move([job_id], front=True))

    def move(
        self,
        jobs: "Which | Iterable[str]",
        *,
        front: bool = False,
        after: str = "",
        tier: str = "",
        server: str = "",
    ) -> list[Change]:
        """Move waiting jobs; their ids stay. Exactly one of the ways is given.

        Args:
            jobs: Their ids, or which.
            front: Before all others of their server and tier, in the order given; there nothing
                overtakes them, whatever is loaded.
            after: Right behind this job, which is of the same server and tier.
            tier: To this tier; their places stay.
            server: To this server, or `any`; their places stay.

        Returns:
            What happened to each; one that began meanwhile stays where it is.

        Raises:
            BadRequest: There is no such tier or server.
            Refused: One does not wait.
            PrefectUnreachable: Some may have been moved; moving again is fine.
        """
        if [front, bool(after), bool(tier), bool(server)].count(True) != 1:
            raise BadRequest("move", "say one of: front, after, tier, server")
        chosen = self._chosen(jobs)
        if front:
            return self._placing.front(chosen)
        if after:
            return self._placing.after(chosen, self._choosing.one(after))
        if tier:
            from stablequeue.request import Tier  # noqa: PLC0415  # needs pydantic

            if tier not in TIERS:
                raise BadRequest("tier", f"there is no tier {tier!r}", TIERS)
            return self._ordering.tier(chosen, Tier(tier))
        return self._ordering.server(chosen, server)

    def edit(self, jobs: "Which | Iterable[str]", changes: Mapping[str, Any]) -> list[Change]:
        """Change what waiting jobs ask for.

        Args:
            jobs: Their ids, or which.
            changes: Fields of `GenerationRequest` and their values; dots lead into fields of
                fields, e.g. `hires.steps`. Not `server`: `move` does that.

        Returns:
            What happened to each; one that began meanwhile stays as it was.

        Raises:
            BadRequest: The first problem, as for `submit`. Nothing is changed.
            Refused: One does not wait, or has begun before.
        """
        return self._ordering.edit(self._chosen(jobs), changes)

    def _chosen(self, jobs: "Which | Iterable[str]") -> "list[Chosen]":
        if isinstance(jobs, Which):
            return self._choosing.waiting(jobs)
        return self._choosing.these([jobs] if isinstance(jobs, str) else jobs)

    def _single(self, changes: list[Change]) -> Change:
        [change] = changes
        if not change.done:
            raise Refused(f"job {change.job_id} {change.message}")
        return change

    @cached_property
    def _ordering(self) -> "Ordering":
        from stablequeue.client.ordering import Ordering  # noqa: PLC0415  # needs SQLModel

        return Ordering(self.session, self._placing)

    def pause(self, server: str = "", *, tier: str = "") -> list[str]:
        """Start no more jobs of a server (`any`: the shared ones; empty: of every server).

        Args:
            server: Its alias.
            tier: Only jobs of this tier.

        Returns:
            What is paused now.
        """
        return self._pausing.pause(server, tier)

    def resume(self, server: str = "", *, tier: str = "") -> list[str]:
        """Start jobs again, also those that were parked because their store failed."""
        return self._pausing.resume(server, tier)

    def drain(
        self,
        server: str,
        *,
        on_left: Callable[[int], None] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Pause a server and wait until nothing runs on it.

        Args:
            server: Its alias.
            on_left: Called with how many jobs still run, whenever that changed.
            timeout: Seconds after which to return all the same. None: never.

        Returns:
            How many still run: 0 unless the time was over. The server stays paused.

        Raises:
            NotFound: There is no such server.
        """
        return self._pausing.drain(server, on_left=on_left, timeout=timeout)

    def clear_ended(
        self, *, server: str = "", tag: str = "", dry_run: bool = False
    ) -> list[Change]:
        """Take ended jobs off the list; their outcome and pictures stay in the catalogue."""
        return self._acting.clear_ended(server=server, tag=tag, dry_run=dry_run)

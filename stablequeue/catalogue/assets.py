"""Assets and the blobs they share."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, update
from sqlalchemy import select as sa_select
from sqlmodel import Session, col, select

from stablequeue.catalogue.attempts import attempt_row
from stablequeue.catalogue.part import Part, now, request_row, valid_job_id
from stablequeue.catalogue.recording import (
    ASSETS,
    BLOBS,
    Prepared,
    blob_record,
    insert_assets,
    read_assets,
)
from stablequeue.catalogue.records import (
    TRANSITIONS,
    Asset,
    AttemptState,
    Blob,
    NewAsset,
    StoredRequest,
)
from stablequeue.catalogue.requests import stored_request
from stablequeue.catalogue.tables import UNUSED, AttemptRow, BlobRow
from stablequeue.catalogue.texts import is_hexadecimal
from stablequeue.errors import NotFound, Refused

_SHA256_DIGITS = 64
_SHORTEST_SHA256 = 6
_ID_DIGITS = 18  # below 2**63


class AssetPart(Part):
    """Recording what was stored, throwing it away, bringing it back."""

    def record_assets(self, attempt_id: int, assets: Sequence[NewAsset]) -> list[Asset]:
        """Record the stored files of one attempt and settle it, all in one transaction.

        Doing it again, or for another attempt after one stored this picture, records nothing and
        returns what there is. A file whose bytes the store has already shares that blob: the
        key recorded first stays, and the caller may delete the file it wrote.

        Raises:
            NotFound: There is no such attempt.
            Refused: The attempt ended without a result.
            CatalogueBusy: A file relied upon is being deleted right now; write it again, then
                record again. Retryable.
        """
        if len({new.ordinal for new in assets}) < len(assets):
            message = "two files of one picture have the same ordinal"
            raise ValueError(message)
        job_id, index, request = self._db.read(lambda session: _picture(session, attempt_id))
        prepared = [Prepared.of(new, request) for new in assets]

        def work(session: Session) -> list[Asset]:
            request_row(session, job_id, lock=True)
            attempt = attempt_row(session, attempt_id, lock=True)
            state = AttemptState(attempt.state)
            existing = read_assets(session, _is_picture(job_id, index))
            if state is AttemptState.STORED:
                return existing
            if AttemptState.STORED not in TRANSITIONS[state]:
                message = f"attempt {attempt_id} is {state}; its files are not recorded"
                raise Refused(message)
            repeated = _stored_before(session, job_id, index)
            attempt.state, attempt.updated_at = AttemptState.STORED, now()
            if repeated:
                notes = [attempt.note, "another attempt had stored this picture"]
                attempt.note = "; ".join(filter(None, notes))
                return existing
            insert_assets(session, attempt, prepared)
            return read_assets(session, _is_picture(job_id, index))

        return self._db.write(work)

    def blob(self, store: str, sha256: str) -> Blob | None:
        """Return the file a store has with these bytes, so that they are not written twice.

        None also while it is being deleted. Pass its id on as `NewAsset.blob_id` when the file was
        not written because of it.
        """
        query = select(BlobRow).where(
            col(BlobRow.sha256) == sha256, col(BlobRow.store) == store, col(BlobRow.refs) > 0
        )

        def work(session: Session) -> Blob | None:
            row = session.exec(query).one_or_none()
            return None if row is None else blob_record(row)

        return self._db.read(work)

    def assets(self, job_id: str) -> list[Asset]:
        """Return what a job made, by picture index, then ordinal; without the trash."""
        condition = and_(ASSETS.c.job_id == valid_job_id(job_id), ASSETS.c.trashed_at.is_(None))
        return self._db.read(lambda session: read_assets(session, condition))

    def asset(self, asset: int | str) -> Asset:
        """Return one asset, in the trash or not.

        Args:
            asset: Its id, or at least 6 digits its file's SHA-256 begins with (`sha256:` may stand
                before them). Of several assets with the same bytes the newest.

        Raises:
            NotFound: There is none.
            Refused: Files of different content begin so.
        """
        given = str(asset).strip().lower()
        digits = given.removeprefix("sha256:")

        def work(session: Session) -> list[Asset]:
            if given.isdecimal() and len(given) <= _ID_DIGITS:
                found = read_assets(session, ASSETS.c.id == int(given))
                if found or isinstance(asset, int):
                    return found
            if not _SHORTEST_SHA256 <= len(digits) <= _SHA256_DIGITS or not is_hexadecimal(digits):
                return []
            begins = (BLOBS.c.sha256 >= digits) & (BLOBS.c.sha256 < digits + "g")
            query = sa_select(BLOBS.c.sha256).where(begins).distinct().limit(2)
            several = session.connection().execute(query).all()
            if len(several) > 1:
                message = f"more than one file begins with {digits}; give more digits"
                raise Refused(message)
            return read_assets(session, begins)

        found = self._db.read(work)
        if not found:
            message = (
                f"there is no picture {str(asset)[:80]!r}. Look with: stablequeue images search"
            )
            raise NotFound(message)
        return max(found, key=lambda one: one.id)

    def trash(self, asset_id: int) -> Asset:
        """Put an asset into the trash: no search finds it, `restore` brings it back.

        Raises:
            NotFound: There is no such asset.
        """
        return self._set_trashed(asset_id, trashed=True)

    def restore(self, asset_id: int) -> Asset:
        """Bring an asset back from the trash.

        Raises:
            NotFound: There is no such asset (any more).
        """
        return self._set_trashed(asset_id, trashed=False)

    def trashed(self, *, limit: int = 100) -> list[Asset]:
        """Return what is in the trash, newest there first."""
        return self._db.read(
            lambda session: read_assets(
                session,
                ASSETS.c.trashed_at.is_not(None),
                order=(ASSETS.c.trashed_at.desc(), ASSETS.c.id.desc()),
                limit=limit,
            )
        )

    def purge_trash(self, *, older_than_s: float) -> list[Blob]:
        """Delete for good what has been in the trash for so long.

        Returns:
            Files no asset needs any more, also those of an earlier purge that did not get to
            delete them. The caller deletes each and then calls `forget_blob`.
        """
        moment = now() - timedelta(seconds=older_than_s)

        def work(session: Session) -> list[Blob]:
            old = sa_select(ASSETS.c.id, ASSETS.c.blob_id).where(
                ASSETS.c.trashed_at.is_not(None), ASSETS.c.trashed_at <= moment
            )
            rows = session.connection().execute(old.with_for_update()).all()
            counts: dict[int, int] = {}
            for _, blob_id in rows:
                counts[blob_id] = counts.get(blob_id, 0) + 1
            for asset_id, _ in rows:
                session.connection().execute(delete(ASSETS).where(ASSETS.c.id == asset_id))
            for blob_id, count in sorted(counts.items()):
                session.connection().execute(
                    update(BLOBS).where(BLOBS.c.id == blob_id).values(refs=BLOBS.c.refs - count)
                )
            unused = select(BlobRow).where(UNUSED).order_by(col(BlobRow.id))
            return [blob_record(row) for row in session.exec(unused)]

        return self._db.write(work)

    def move_blob(self, blob: Blob, key: str) -> bool:
        """Record that a file lies under another key now; False when it is not where `blob` says."""

        def work(session: Session) -> bool:
            moved = session.exec(
                update(BlobRow)
                .where(col(BlobRow.id) == blob.id, col(BlobRow.key) == blob.key)
                .values(key=key)
            )
            return moved.rowcount == 1

        return self._db.write(work)

    def forget_blob(self, blob: Blob) -> bool:
        """Forget a file that was deleted; False when it is in use again, under another key."""

        def work(session: Session) -> bool:
            deleted = session.exec(
                delete(BlobRow).where(
                    col(BlobRow.id) == blob.id,
                    col(BlobRow.key) == blob.key,
                    col(BlobRow.refs) == 0,
                )
            )
            return deleted.rowcount == 1

        return self._db.write(work)

    def _set_trashed(self, asset_id: int, *, trashed: bool) -> Asset:
        def work(session: Session) -> Asset:
            column = ASSETS.c.trashed_at
            other = column.is_(None) if trashed else column.is_not(None)
            session.connection().execute(
                update(ASSETS)
                .where(ASSETS.c.id == asset_id, other)
                .values(trashed_at=now() if trashed else None)
            )
            found = read_assets(session, ASSETS.c.id == asset_id)
            if not found:
                message = f"there is no picture {asset_id}. Look with: stablequeue images search"
                raise NotFound(message)
            return found[0]

        return self._db.write(work)


def _picture(session: Session, attempt_id: int) -> tuple[str, int, StoredRequest]:
    attempt = attempt_row(session, attempt_id)
    return attempt.job_id, attempt.idx, stored_request(request_row(session, attempt.job_id))


def _is_picture(job_id: str, index: int) -> ColumnElement[bool]:
    return and_(ASSETS.c.job_id == job_id, ASSETS.c.idx == index)


def _stored_before(session: Session, job_id: str, index: int) -> bool:
    query = select(AttemptRow.id).where(
        col(AttemptRow.job_id) == job_id,
        col(AttemptRow.idx) == index,
        col(AttemptRow.state) == AttemptState.STORED,
    )
    return session.exec(query).first() is not None

"""The contract in SQL, in the part of it that SQLite and PostgreSQL share."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import cast

from .contract import NewSession, Records
from .database import Cursor, Database, Row
from .model import Code, Device, Linked, Outcome, Session, SignIn

_SESSION = "digest, label, account, device, handshake, created, seen, idle_until, expires"
_SIGN_IN = "mailbox, login, website, origin, nonce, begun, expires"


class SqlRecords(Records):
    """Records in any SQL database that a `Database` reaches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """See `Records.open`."""
        await self._database.open()

    async def aclose(self) -> None:
        """See `Records.aclose`."""
        await self._database.aclose()

    # Sign-ins

    async def add_sign_in(self, sign_in: SignIn, *, now: int, most: int) -> Outcome:
        """See `Records.add_sign_in`."""

        def work(cursor: Cursor) -> Outcome:
            # Before the count, so that what is over takes no room; more than one so that a backlog shrinks.
            cursor.run(
                "DELETE FROM sign_ins WHERE mailbox IN"
                " (SELECT mailbox FROM sign_ins WHERE kept_until <= :now LIMIT 10)",
                now=now,
            )
            if _int(cursor.run("SELECT count(*) FROM sign_ins")[0][0]) >= most:
                return Outcome.FULL
            added = cursor.run(
                f"INSERT INTO sign_ins ({_SIGN_IN}, kept_until, taken) VALUES"  # noqa: S608 - a constant
                " (:mailbox, :login, :website, :origin, :nonce, :begun, :expires, :expires, 0)"
                " ON CONFLICT DO NOTHING RETURNING begun",
                login=sign_in.login,
                mailbox=sign_in.mailbox,
                website=sign_in.website,
                origin=sign_in.origin,
                nonce=sign_in.nonce,
                begun=sign_in.begun,
                expires=sign_in.expires,
            )
            return Outcome.ADDED if added else Outcome.EXISTS

        return await self._database.transact(work)

    async def take_sign_in(self, mailbox: str, login: bytes, *, now: int, keep_until: int) -> SignIn | None:
        """See `Records.take_sign_in`."""

        def work(cursor: Cursor) -> SignIn | None:
            rows = cursor.run(
                "UPDATE sign_ins SET taken = 1, kept_until = :keep_until"  # noqa: S608 - a constant
                " WHERE mailbox = :mailbox AND login = :login AND taken = 0 AND expires > :now"
                f" RETURNING {_SIGN_IN}",
                mailbox=mailbox,
                login=login,
                now=now,
                keep_until=keep_until,
            )
            return _sign_in(rows[0], login) if rows else None

        return await self._database.transact(work)

    async def has_sign_in(self, login: bytes, *, now: int) -> bool:
        """See `Records.has_sign_in`."""
        rows = await self._database.read(
            lambda cursor: cursor.run(
                "SELECT 1 FROM sign_ins WHERE login = :login AND taken = 0 AND expires > :now LIMIT 1",
                login=login,
                now=now,
            )
        )
        return bool(rows)

    async def origin_of(self, website: str, *, now: int) -> str | None:
        """See `Records.origin_of`."""
        rows = await self._database.read(
            lambda cursor: cursor.run(
                "SELECT origin FROM sign_ins WHERE website = :website AND taken = 0 AND expires > :now"
                " ORDER BY begun DESC LIMIT 1",
                website=website,
                now=now,
            )
        )
        return str(rows[0][0]) if rows else None

    # Links and codes

    async def link(self, code: Code, *, now: int, most_devices: int) -> None:
        """See `Records.link`."""
        linked = code.linked

        def work(cursor: Cursor) -> None:
            cursor.run(
                "INSERT INTO accounts (account, first_linked, last_linked) VALUES (:account, :now, :now)"
                " ON CONFLICT (account) DO UPDATE SET last_linked = excluded.last_linked",
                account=linked.account,
                now=now,
            )
            cursor.run(
                "INSERT INTO devices (account, peer, first_linked, last_linked) VALUES (:account, :peer, :now, :now)"
                " ON CONFLICT (account, peer) DO UPDATE SET last_linked = excluded.last_linked",
                account=linked.account,
                peer=linked.device,
                now=now,
            )
            cursor.run(
                "DELETE FROM devices WHERE account = :account AND peer <> :peer AND peer NOT IN"
                " (SELECT peer FROM devices WHERE account = :account AND peer <> :peer"
                " ORDER BY last_linked DESC, peer LIMIT :others)",
                account=linked.account,
                peer=linked.device,
                others=most_devices - 1,
            )
            cursor.run(
                "INSERT INTO codes (digest, holder, account, device, handshake, expires)"
                " VALUES (:digest, :holder, :account, :device, :handshake, :expires)",
                digest=code.digest,
                holder=code.holder,
                account=linked.account,
                device=linked.device,
                handshake=linked.handshake,
                expires=code.expires,
            )

        await self._database.transact(work)

    async def redeem(
        self, code: bytes, holder: bytes, new: NewSession, *, ends: bytes | None, now: int, most_sessions: int
    ) -> Session | None:
        """See `Records.redeem`."""

        def work(cursor: Cursor) -> Session | None:
            rows = cursor.run(
                "DELETE FROM codes WHERE digest = :digest AND holder = :holder AND expires > :now"
                " RETURNING account, device, handshake",
                digest=code,
                holder=holder,
                now=now,
            )
            if not rows:
                return None
            linked = Linked(*(str(value) for value in rows[0]))
            session = Session(new.digest, new.label, linked, now, now, new.idle_until, new.expires)
            if ends is not None:
                cursor.run("DELETE FROM sessions WHERE digest = :digest", digest=ends)
            cursor.run(
                "DELETE FROM sessions WHERE account = :account AND digest NOT IN"
                " (SELECT digest FROM sessions WHERE account = :account"
                " ORDER BY seen DESC, digest LIMIT :others)",
                account=linked.account,
                others=most_sessions - 1,
            )
            _insert(cursor, session)
            return session

        return await self._database.transact(work)

    # Sessions

    async def session(self, digest: bytes, *, now: int) -> Session | None:
        """See `Records.session`."""
        rows = await self._database.read(
            lambda cursor: cursor.run(
                f"SELECT {_SESSION} FROM sessions"  # noqa: S608 - a constant
                " WHERE digest = :digest AND expires > :now AND idle_until > :now",
                digest=digest,
                now=now,
            )
        )
        session = _session(rows[0]) if rows else None
        # An index may compare as it likes: what is let in is compared in constant time.
        return session if session is not None and hmac.compare_digest(session.digest, digest) else None

    async def touch(self, digest: bytes, *, now: int, idle_until: int) -> None:
        """See `Records.touch`."""
        await self._database.transact(
            lambda cursor: cursor.run(
                "UPDATE sessions SET seen = :now, idle_until = :idle_until"
                " WHERE digest = :digest AND expires > :now AND idle_until > :now",
                digest=digest,
                now=now,
                idle_until=idle_until,
            )
        )

    async def rotate(self, old: bytes, new: bytes, *, now: int, idle_until: int) -> Session | None:
        """See `Records.rotate`."""
        rows = await self._database.transact(
            lambda cursor: cursor.run(
                "UPDATE sessions SET digest = :new, seen = :now, idle_until = :idle_until"  # noqa: S608 - a constant
                f" WHERE digest = :old AND expires > :now AND idle_until > :now RETURNING {_SESSION}",
                old=old,
                new=new,
                now=now,
                idle_until=idle_until,
            )
        )
        return _session(rows[0]) if rows else None

    async def end_session(self, digest: bytes) -> None:
        """See `Records.end_session`."""
        await self._database.transact(
            lambda cursor: cursor.run("DELETE FROM sessions WHERE digest = :digest", digest=digest)
        )

    async def sessions_of(self, account: str, *, now: int) -> Sequence[Session]:
        """See `Records.sessions_of`."""
        rows = await self._database.read(
            lambda cursor: cursor.run(
                f"SELECT {_SESSION} FROM sessions"  # noqa: S608 - a constant
                " WHERE account = :account AND expires > :now AND idle_until > :now"
                " ORDER BY seen DESC, label",
                account=account,
                now=now,
            )
        )
        return [_session(row) for row in rows]

    async def end_sessions_of(self, account: str, *, label: str | None = None) -> int:
        """See `Records.end_sessions_of`."""

        def work(cursor: Cursor) -> int:
            if label is None:
                sql = "DELETE FROM sessions WHERE account = :account RETURNING label"
                return len(cursor.run(sql, account=account))
            sql = "DELETE FROM sessions WHERE account = :account AND label = :label RETURNING label"
            return len(cursor.run(sql, account=account, label=label))

        return await self._database.transact(work)

    # Devices

    async def devices_of(self, account: str) -> Sequence[Device]:
        """See `Records.devices_of`."""
        rows = await self._database.read(
            lambda cursor: cursor.run(
                "SELECT account, peer, first_linked, last_linked FROM devices"
                " WHERE account = :account ORDER BY last_linked DESC, peer",
                account=account,
            )
        )
        return [Device(str(row[0]), str(row[1]), _int(row[2]), _int(row[3])) for row in rows]

    async def revoke_device(self, account: str, peer: str) -> bool:
        """See `Records.revoke_device`."""
        rows = await self._database.transact(
            lambda cursor: cursor.run(
                "DELETE FROM devices WHERE account = :account AND peer = :peer RETURNING peer",
                account=account,
                peer=peer,
            )
        )
        return bool(rows)

    # Time

    async def purge(self, *, now: int, most: int) -> int:
        """See `Records.purge`."""

        def work(cursor: Cursor) -> int:
            return sum(
                len(
                    cursor.run(
                        f"DELETE FROM {table} WHERE {key} IN"  # noqa: S608 - constants
                        f" (SELECT {key} FROM {table} WHERE {end} <= :now LIMIT :most) RETURNING 1",
                        now=now,
                        most=most,
                    )
                )
                for table, key, end in (
                    ("sign_ins", "mailbox", "kept_until"),
                    ("codes", "digest", "expires"),
                    ("sessions", "digest", "expires"),
                    ("sessions", "digest", "idle_until"),
                )
            )

        return await self._database.transact(work)


def _insert(cursor: Cursor, session: Session) -> None:
    cursor.run(
        f"INSERT INTO sessions ({_SESSION}) VALUES"  # noqa: S608 - a constant
        " (:digest, :label, :account, :device, :handshake, :created, :seen, :idle_until, :expires)",
        digest=session.digest,
        label=session.label,
        account=session.linked.account,
        device=session.linked.device,
        handshake=session.linked.handshake,
        created=session.created,
        seen=session.seen,
        idle_until=session.idle_until,
        expires=session.expires,
    )


def _session(row: Row) -> Session:
    digest, label, account, device, handshake, created, seen, idle_until, expires = row
    linked = Linked(str(account), str(device), str(handshake))
    times = _int(created), _int(seen), _int(idle_until), _int(expires)
    return Session(_bytes(digest), str(label), linked, *times)


def _sign_in(row: Row, login: bytes) -> SignIn | None:
    mailbox, kept, website, origin, nonce, begun, expires = row
    if not hmac.compare_digest(_bytes(kept), login):
        return None
    hashed = None if nonce is None else _bytes(nonce)
    return SignIn(str(mailbox), login, str(website), str(origin), hashed, _int(begun), _int(expires))


def _int(value: object) -> int:
    return cast("int", value)


def _bytes(value: object) -> bytes:
    return bytes(cast("bytes", value))

"""What the service must not forget: accounts, linked devices, sessions, and sign-ins that are under way.

=====================  ==============================================================
`Records`              the contract
`SqliteRecords`        one file, the default; ``SqliteRecords(None)`` is in memory
`PostgresRecords`      one database for several processes or machines; the extra ``postgres``
=====================  ==============================================================

Secrets come in as SHA-256 and stay so: a copy of the database opens no session.
"""

from __future__ import annotations

from .contract import Records
from .model import Code, Device, Linked, Outcome, Session, SignIn
from .postgres import PostgresRecords
from .sqlite import SqliteRecords

__all__ = [
    "Code",
    "Device",
    "Linked",
    "Outcome",
    "PostgresRecords",
    "Records",
    "Session",
    "SignIn",
    "SqliteRecords",
]

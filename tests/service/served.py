"""What `test_servers.py` has each server run: both ways to deploy, chosen by name."""

from __future__ import annotations

import os

from handclasp.service import create_app
from handclasp.service.embedded import create_embedded_app
from handclasp.service.records import SqliteRecords
from handclasp.service.signin import SignInSettings

embedded = create_embedded_app(
    SignInSettings(origins=("https://shop.example",)), records=SqliteRecords(os.environ.get("RECORDS"))
)
shared = create_app()

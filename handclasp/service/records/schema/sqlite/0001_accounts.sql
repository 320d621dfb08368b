CREATE TABLE accounts (
    account TEXT NOT NULL PRIMARY KEY,
    first_linked INTEGER NOT NULL,
    last_linked INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    account TEXT NOT NULL REFERENCES accounts (account) ON DELETE CASCADE,
    peer TEXT NOT NULL,
    first_linked INTEGER NOT NULL,
    last_linked INTEGER NOT NULL,
    PRIMARY KEY (account, peer)
) STRICT;

CREATE TABLE sessions (
    digest BLOB NOT NULL PRIMARY KEY,
    label TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    device TEXT NOT NULL,
    handshake TEXT NOT NULL,
    created INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    idle_until INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    FOREIGN KEY (account, device) REFERENCES devices (account, peer) ON DELETE CASCADE
) STRICT;

CREATE INDEX sessions_by_account ON sessions (account, device);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE INDEX sessions_by_idleness ON sessions (idle_until);

CREATE TABLE accounts (
    account TEXT NOT NULL PRIMARY KEY,
    first_linked BIGINT NOT NULL,
    last_linked BIGINT NOT NULL
);

CREATE TABLE devices (
    account TEXT NOT NULL REFERENCES accounts (account) ON DELETE CASCADE,
    peer TEXT NOT NULL,
    first_linked BIGINT NOT NULL,
    last_linked BIGINT NOT NULL,
    PRIMARY KEY (account, peer)
);

CREATE TABLE sessions (
    digest BYTEA NOT NULL PRIMARY KEY,
    label TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    device TEXT NOT NULL,
    handshake TEXT NOT NULL,
    created BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    idle_until BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    FOREIGN KEY (account, device) REFERENCES devices (account, peer) ON DELETE CASCADE
);

CREATE INDEX sessions_by_account ON sessions (account, device);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE INDEX sessions_by_idleness ON sessions (idle_until);

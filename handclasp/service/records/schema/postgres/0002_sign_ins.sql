CREATE TABLE sign_ins (
    mailbox TEXT NOT NULL PRIMARY KEY,
    login BYTEA NOT NULL,
    website TEXT NOT NULL,
    origin TEXT NOT NULL,
    nonce BYTEA,
    begun BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    kept_until BIGINT NOT NULL,
    taken BIGINT NOT NULL
);

CREATE INDEX sign_ins_by_login ON sign_ins (login);
CREATE INDEX sign_ins_by_website ON sign_ins (website);
CREATE INDEX sign_ins_by_end ON sign_ins (kept_until);

CREATE TABLE codes (
    digest BYTEA NOT NULL PRIMARY KEY,
    holder BYTEA NOT NULL,
    account TEXT NOT NULL,
    device TEXT NOT NULL,
    handshake TEXT NOT NULL,
    expires BIGINT NOT NULL,
    FOREIGN KEY (account, device) REFERENCES devices (account, peer) ON DELETE CASCADE
);

CREATE INDEX codes_by_device ON codes (account, device);
CREATE INDEX codes_by_expiry ON codes (expires);

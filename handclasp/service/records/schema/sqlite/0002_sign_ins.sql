CREATE TABLE sign_ins (
    mailbox TEXT NOT NULL PRIMARY KEY,
    login BLOB NOT NULL,
    website TEXT NOT NULL,
    origin TEXT NOT NULL,
    nonce BLOB,
    begun INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    kept_until INTEGER NOT NULL,
    taken INTEGER NOT NULL
) STRICT;

CREATE INDEX sign_ins_by_login ON sign_ins (login);
CREATE INDEX sign_ins_by_website ON sign_ins (website);
CREATE INDEX sign_ins_by_end ON sign_ins (kept_until);

CREATE TABLE codes (
    digest BLOB NOT NULL PRIMARY KEY,
    holder BLOB NOT NULL,
    account TEXT NOT NULL,
    device TEXT NOT NULL,
    handshake TEXT NOT NULL,
    expires INTEGER NOT NULL,
    FOREIGN KEY (account, device) REFERENCES devices (account, peer) ON DELETE CASCADE
) STRICT;

CREATE INDEX codes_by_device ON codes (account, device);
CREATE INDEX codes_by_expiry ON codes (expires);

-- Relays by which kernels may be reached.

CREATE TABLE relay (
    number    INTEGER NOT NULL PRIMARY KEY,
    address   TEXT    NOT NULL,
    last_seen INTEGER NOT NULL,   -- 0: unknown
    bootstrap INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

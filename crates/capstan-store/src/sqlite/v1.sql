-- Schema 1 of a capstan store.
--
-- A table that lists entities is keyed by their numbers, and also shows their names (ko12, v1, …) in a
-- generated column; everywhere else entities appear by name. Numbers are the 64 bits of an unsigned integer.
-- slots, subscribers, hints and retires are JSON arrays of text. Times are milliseconds since 1970.
-- An absent value is NULL. What only indexes or caches is not stored: it is rebuilt when the store is opened.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The next number of each kind to be given out.
CREATE TABLE counter (
    name TEXT    NOT NULL PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    ko           INTEGER NOT NULL PRIMARY KEY,
    owner        TEXT,              -- endpoint, 'kernel', or NULL: orphan
    reachable    INTEGER NOT NULL,
    recognizable INTEGER NOT NULL,
    revoked      INTEGER NOT NULL,
    kref         TEXT AS ('ko' || ko)
) STRICT, WITHOUT ROWID;

CREATE TABLE promises (
    kp          INTEGER NOT NULL PRIMARY KEY,
    state       TEXT    NOT NULL,   -- 'unresolved', 'fulfilled', 'rejected'
    decider     TEXT,               -- unresolved: endpoint, 'kernel', or NULL: nobody yet
    subscribers TEXT,               -- unresolved: endpoints
    body        TEXT,               -- settled: value or reason
    slots       TEXT,               -- settled: krefs
    count       INTEGER NOT NULL,
    kref        TEXT AS ('kp' || kp)
) STRICT, WITHOUT ROWID;

CREATE TABLE clist (
    endpoint     TEXT    NOT NULL,
    kref         TEXT    NOT NULL,
    eref         TEXT    NOT NULL,
    reachable    INTEGER NOT NULL,
    last_mention INTEGER NOT NULL,
    PRIMARY KEY (endpoint, kref)
) STRICT, WITHOUT ROWID;

-- The run queue, lowest number first.
CREATE TABLE queue (
    number   INTEGER NOT NULL PRIMARY KEY,
    kind     TEXT    NOT NULL,      -- 'send', 'notify'
    target   TEXT,                  -- send
    body     TEXT,                  -- send: method and arguments
    slots    TEXT,                  -- send: krefs
    result   TEXT,                  -- send: promise for the answer, or NULL
    endpoint TEXT,                  -- notify
    promise  TEXT                   -- notify
) STRICT, WITHOUT ROWID;

-- Messages parked on an unresolved promise, lowest number first.
CREATE TABLE promise_queue (
    promise TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    target  TEXT    NOT NULL,
    body    TEXT    NOT NULL,
    slots   TEXT    NOT NULL,
    result  TEXT,
    PRIMARY KEY (promise, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE gc_action (
    endpoint TEXT NOT NULL,
    kind     TEXT NOT NULL,         -- 'dropExport', 'retireExport', 'retireImport'
    object   TEXT NOT NULL,
    PRIMARY KEY (endpoint, kind, object)
) STRICT, WITHOUT ROWID;

-- Endpoints to be asked to collect garbage, lowest number first.
CREATE TABLE reap (
    number   INTEGER NOT NULL PRIMARY KEY,
    endpoint TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE vat (
    vat               INTEGER NOT NULL PRIMARY KEY,
    subcluster        TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    code              TEXT    NOT NULL,     -- hash
    parameters        TEXT,                 -- JSON
    crank_deadline_ms INTEGER NOT NULL,
    memory_bytes_max  INTEGER NOT NULL,
    syscalls_max      INTEGER NOT NULL,
    body_units_max    INTEGER NOT NULL,
    slots_max         INTEGER NOT NULL,
    store_bytes_max   INTEGER NOT NULL,
    phase             TEXT    NOT NULL,     -- 'launching', 'starting', 'running', 'failed', 'terminated'
    failure           TEXT,                 -- failed: why
    incarnation       INTEGER NOT NULL,
    next_object       INTEGER NOT NULL,
    next_promise      INTEGER NOT NULL,
    deliveries        INTEGER NOT NULL,
    id                TEXT AS ('v' || vat)
) STRICT, WITHOUT ROWID;

CREATE TABLE code (
    hash   TEXT NOT NULL PRIMARY KEY,
    format TEXT NOT NULL,           -- 'module', 'bundle'
    name   TEXT NOT NULL,
    text   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE vat_store (
    vat   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (vat, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE subcluster (
    subcluster INTEGER NOT NULL PRIMARY KEY,
    bootstrap  TEXT    NOT NULL,
    config     TEXT    NOT NULL,    -- JSON
    launching  INTEGER NOT NULL,
    system     TEXT,
    id         TEXT AS ('s' || subcluster)
) STRICT, WITHOUT ROWID;

CREATE TABLE service (
    name   TEXT NOT NULL PRIMARY KEY,
    object TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE remote (
    remote        INTEGER NOT NULL PRIMARY KEY,
    peer          TEXT    NOT NULL,
    hints         TEXT    NOT NULL,
    next_object   INTEGER NOT NULL,
    next_promise  INTEGER NOT NULL,
    closed        INTEGER NOT NULL,
    restarts_seen INTEGER NOT NULL,
    id            TEXT AS ('r' || remote)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    peer             TEXT    NOT NULL PRIMARY KEY,
    epoch            INTEGER NOT NULL,
    base             INTEGER NOT NULL,
    una              INTEGER NOT NULL,
    sent             INTEGER NOT NULL,
    una_digest       TEXT    NOT NULL,
    recv             INTEGER NOT NULL,
    recv_digest      TEXT    NOT NULL,
    left_incarnation TEXT,
    left_epoch       INTEGER,
    classic_born     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    remote  TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    digest  TEXT    NOT NULL,
    retires TEXT    NOT NULL,
    PRIMARY KEY (remote, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE peer_incarnation (
    peer        TEXT    NOT NULL PRIMARY KEY,
    incarnation TEXT,
    seen        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE redemption (
    reply_key TEXT    NOT NULL PRIMARY KEY,
    remote    TEXT    NOT NULL,
    promise   TEXT    NOT NULL,
    deadline  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Issued URLs. The secret itself is not stored.
CREATE TABLE url (
    url         INTEGER NOT NULL PRIMARY KEY,
    secret_hash BLOB    NOT NULL,   -- SHA-256
    object      TEXT    NOT NULL,
    issued      INTEGER NOT NULL,
    last_used   INTEGER,
    expires     INTEGER,
    uses_left   INTEGER,
    parent      TEXT,
    revoked     INTEGER NOT NULL,
    id          TEXT AS ('g' || url)
) STRICT, WITHOUT ROWID;

CREATE TABLE pin (
    object TEXT    NOT NULL PRIMARY KEY,
    count  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE hold (
    kref  TEXT    NOT NULL,
    kind  TEXT    NOT NULL,         -- 'waiting', 'handed'
    count INTEGER NOT NULL,
    PRIMARY KEY (kref, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letter (
    number INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    item   TEXT    NOT NULL,
    reason TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

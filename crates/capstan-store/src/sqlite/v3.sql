-- How much is on its way to a peer.

ALTER TABLE session ADD COLUMN outbox_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE session SET outbox_bytes = (
    SELECT coalesce(sum(octet_length(outbox.text)), 0)
    FROM outbox JOIN remote ON outbox.remote = remote.id
    WHERE remote.peer = session.peer
);

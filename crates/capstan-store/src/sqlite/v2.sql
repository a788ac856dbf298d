-- What a vat is given, and how many messages may wait for it.

ALTER TABLE vat ADD COLUMN queued_max INTEGER NOT NULL DEFAULT 1000000;
ALTER TABLE vat ADD COLUMN endowments TEXT NOT NULL DEFAULT '{}';   -- JSON

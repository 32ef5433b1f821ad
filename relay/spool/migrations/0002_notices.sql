-- Schema 2: notices, answers that wait for Exchange, and a few remembered texts.

ALTER TABLE message ADD COLUMN delay_noticed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN direct INTEGER NOT NULL DEFAULT 0;   -- its client still waits for Exchange's answer

CREATE INDEX message_unnoticed ON message (received, id) WHERE state < 4 AND delay_noticed = 0;

CREATE TABLE memory (                         -- small texts that survive a restart: alerts told, notices counted
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

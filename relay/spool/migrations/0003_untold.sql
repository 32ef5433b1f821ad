-- Schema 3: a failure that somebody must still be told of keeps the content, whatever becomes of the others.

ALTER TABLE message ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;

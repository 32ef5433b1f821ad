-- oldest: 1
-- PostgreSQL schema 4: who accepted a message, and with what configuration each replica works. It only adds.

ALTER TABLE message ADD COLUMN accepted_by text;  -- the replica's name, for the first line of the trace
ALTER TABLE message ALTER COLUMN accepted_by SET DEFAULT nullif(current_setting('relay.name', true), '');

ALTER TABLE replica ADD COLUMN config text NOT NULL DEFAULT '';  -- digests of its configuration, as JSON; see relay/likeness.py

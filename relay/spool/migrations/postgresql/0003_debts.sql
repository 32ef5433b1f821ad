-- oldest: 1
-- PostgreSQL schema 3: how many connections a lost replica may have left open. It only adds: the release before works on it.

-- how many its worker may open at Exchange; those of the release before do not say it, and have two unless configured otherwise
ALTER TABLE lease ADD COLUMN connections smallint NOT NULL DEFAULT 2;
ALTER TABLE debt ADD COLUMN fence integer;    -- whose it is; with host and process: so that its end can be told
ALTER TABLE debt ADD COLUMN host text;
ALTER TABLE debt ADD COLUMN pid integer;
COMMENT ON COLUMN debt.connections IS 'how many may still be open';

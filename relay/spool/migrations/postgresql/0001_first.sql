-- oldest: 1
-- PostgreSQL schema 1: the tables and the meaning of every column are those of the SQLite spool (../0001 to 0003).
-- The first line names the oldest release, by the newest schema it knows, that can work on this schema.

CREATE TABLE lane (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    turn bigint NOT NULL DEFAULT 0,
    queued bigint NOT NULL DEFAULT 0,         -- kept by triggers, so that no start and no status counts rows
    active bigint NOT NULL DEFAULT 0,
    deferred bigint NOT NULL DEFAULT 0,
    held bigint NOT NULL DEFAULT 0,
    held_ms bigint NOT NULL DEFAULT 0,
    held_since bigint
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE source (
    lane bigint NOT NULL,
    name text NOT NULL,
    turn bigint NOT NULL,
    PRIMARY KEY (lane, name)
) WITH (fillfactor = 50);

CREATE TABLE message (
    id bigint PRIMARY KEY,
    received bigint NOT NULL,
    lane bigint NOT NULL,
    state smallint NOT NULL,
    turn bigint NOT NULL,
    due bigint,
    attempts integer NOT NULL DEFAULT 0,
    size bigint NOT NULL,
    sender text NOT NULL,
    client text NOT NULL,
    source text NOT NULL,
    message_id text NOT NULL,
    subject text NOT NULL,
    pool text,
    details text NOT NULL,
    reason text NOT NULL DEFAULT '',
    remedy text NOT NULL DEFAULT '',
    begun bigint,
    held_base bigint NOT NULL DEFAULT 0,
    held_ms bigint NOT NULL DEFAULT 0,
    held_since bigint,
    hold_key text,
    finished bigint,
    delay_noticed smallint NOT NULL DEFAULT 0,
    direct smallint NOT NULL DEFAULT 0,
    untold smallint NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX message_ready ON message (lane, turn, id) WHERE state = 0;
CREATE INDEX message_active ON message (lane, id) WHERE state = 1;
CREATE INDEX message_due ON message (lane, due) WHERE state = 2;
CREATE INDEX message_held ON message (lane, id) WHERE state = 3;
CREATE INDEX message_open ON message (received, id) WHERE state < 4;
CREATE INDEX message_lane ON message (lane, received) WHERE state < 4;
CREATE INDEX message_direct ON message (id) WHERE direct = 1 AND state < 4;
CREATE INDEX message_finished ON message (finished) WHERE state = 4;
CREATE INDEX message_unnoticed ON message (received, id) WHERE state < 4 AND delay_noticed = 0;

CREATE TABLE recipient (
    message bigint NOT NULL,
    n integer NOT NULL,
    address text NOT NULL,
    notify text,
    orcpt text,
    state smallint NOT NULL,
    code integer NOT NULL DEFAULT 0,
    text text NOT NULL DEFAULT '',
    PRIMARY KEY (message, n)
) WITH (fillfactor = 70);

CREATE TABLE content (
    message bigint PRIMARY KEY,
    size bigint NOT NULL,
    header bytea NOT NULL,
    body bytea,                               -- NULL: in pieces, in chunk
    body_size bigint NOT NULL
);
ALTER TABLE content ALTER COLUMN body SET STORAGE EXTERNAL;      -- mail is mostly base64 of compressed files

CREATE TABLE chunk (                          -- a large body in bounded pieces, stored as they come
    message bigint NOT NULL,
    n integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (message, n)
);
ALTER TABLE chunk ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE event (
    message bigint NOT NULL,
    at bigint NOT NULL,
    event text NOT NULL,
    fields text NOT NULL,
    PRIMARY KEY (message, at, event)
);

CREATE TABLE hold (
    scope text NOT NULL,
    key text NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    remedy text NOT NULL,
    evidence text NOT NULL,
    since bigint NOT NULL,
    probes integer NOT NULL DEFAULT 0,
    next_probe bigint,
    at_login smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
);

CREATE TABLE usage (
    lane bigint NOT NULL,
    span integer NOT NULL,
    at bigint NOT NULL,
    messages bigint NOT NULL,
    recipients bigint NOT NULL,
    PRIMARY KEY (lane, span, at)
) WITH (fillfactor = 50);

CREATE TABLE memory (
    key text PRIMARY KEY,
    value text NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE total (
    one integer PRIMARY KEY CHECK (one = 1),
    bytes bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO total VALUES (1, 0);

CREATE FUNCTION content_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE total SET bytes = bytes + NEW.size;
    ELSE
        UPDATE total SET bytes = bytes - OLD.size;
        IF OLD.body IS NULL THEN
            DELETE FROM chunk WHERE message = OLD.message;
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER content_changed AFTER INSERT OR DELETE ON content
    FOR EACH ROW EXECUTE FUNCTION content_changed();

CREATE FUNCTION count_in_lane(which bigint, kind smallint, by bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE lane SET queued = queued + CASE WHEN kind = 0 THEN by ELSE 0 END,
        active = active + CASE WHEN kind = 1 THEN by ELSE 0 END,
        deferred = deferred + CASE WHEN kind = 2 THEN by ELSE 0 END,
        held = held + CASE WHEN kind = 3 THEN by ELSE 0 END WHERE id = which
$$;
CREATE FUNCTION message_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state < 4 THEN
        PERFORM count_in_lane(OLD.lane, OLD.state, -1);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state < 4 THEN
        PERFORM count_in_lane(NEW.lane, NEW.state, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER message_comes_or_goes AFTER INSERT OR DELETE ON message
    FOR EACH ROW EXECUTE FUNCTION message_counted();
CREATE TRIGGER message_moves AFTER UPDATE OF state, lane ON message
    FOR EACH ROW WHEN (OLD.state <> NEW.state OR OLD.lane <> NEW.lane) EXECUTE FUNCTION message_counted();

-- the texts of one list in a JSON object; none where an escape in it is no character that PostgreSQL can hold
CREATE FUNCTION texts_of(packed text, member text) RETURNS SETOF text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN QUERY SELECT json_array_elements_text(packed::json -> member);
EXCEPTION WHEN OTHERS THEN
    RETURN;
END $$;

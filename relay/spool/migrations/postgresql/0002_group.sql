-- oldest: 1
-- PostgreSQL schema 2: several relays share the work (docs/postgresql.md). It only adds: the release before works on it.
--
-- Sessions of this release say who they are (the settings relay.fence and relay.name, see postgres_member.py). What such
-- a session counts goes to rows of its own, so that replicas never wait for one another's counters; sessions of the
-- release before have no such setting, and count in the rows they know.

CREATE SEQUENCE replica_fence AS integer MAXVALUE 2000000000 CYCLE;

CREATE TABLE replica (                        -- who is a member of the group; a row that is gone ends its rights
    fence integer PRIMARY KEY,
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started double precision NOT NULL,        -- server's seconds since 1970
    seen double precision NOT NULL,
    leaving smallint NOT NULL DEFAULT 0       -- it stops: it takes nothing more
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE TABLE lease (                          -- who works a lane, or does a task that only one may do at a time
    kind text NOT NULL,                       -- lane, task
    name text NOT NULL,
    replica integer NOT NULL,                 -- 0: a lane that was let go, for another one to take
    since double precision NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX lease_replica ON lease (replica, kind);

CREATE TABLE debt (                           -- what a lost replica may still have open, or send late
    lane bigint NOT NULL,
    until bigint NOT NULL,                    -- milliseconds since 1970
    connections smallint NOT NULL,            -- 1: it had the lane, its connections may be open
    messages integer NOT NULL                 -- begun, and perhaps not complete yet
);
CREATE INDEX debt_lane ON debt (lane);

ALTER TABLE message ADD COLUMN replica integer; -- who claimed it; means something while state = 1
ALTER TABLE message ADD COLUMN home integer;  -- who accepted it
ALTER TABLE message ALTER COLUMN home SET DEFAULT nullif(current_setting('relay.fence', true), '')::integer;
ALTER TABLE event ADD COLUMN replica text;    -- whose line of the trace it is
ALTER TABLE event ALTER COLUMN replica SET DEFAULT nullif(current_setting('relay.name', true), '');

CREATE TABLE lane_part (                      -- what one replica's changes add to the counts of a lane
    lane bigint NOT NULL,
    fence integer NOT NULL,
    queued bigint NOT NULL,
    active bigint NOT NULL,
    deferred bigint NOT NULL,
    held bigint NOT NULL,
    PRIMARY KEY (lane, fence)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE total_part (                     -- the same for the octets that are stored
    fence integer PRIMARY KEY,
    bytes bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE VIEW lane_now AS
    SELECT l.id, l.name, l.turn, l.held_ms, l.held_since,
        l.queued + p.queued AS queued, l.active + p.active AS active,
        l.deferred + p.deferred AS deferred, l.held + p.held AS held
    FROM lane l CROSS JOIN LATERAL (
        SELECT coalesce(sum(queued), 0)::bigint AS queued, coalesce(sum(active), 0)::bigint AS active,
            coalesce(sum(deferred), 0)::bigint AS deferred, coalesce(sum(held), 0)::bigint AS held
        FROM lane_part WHERE lane_part.lane = l.id) p;

CREATE VIEW total_now AS
    SELECT bytes + coalesce((SELECT sum(bytes) FROM total_part), 0)::bigint AS bytes FROM total;

CREATE FUNCTION my_fence() RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('relay.fence', true), '')::integer
$$;

CREATE OR REPLACE FUNCTION content_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change bigint;
    mine integer := my_fence();
BEGIN
    IF TG_OP = 'INSERT' THEN
        change := NEW.size;
    ELSE
        change := -OLD.size;
        IF OLD.body IS NULL THEN
            DELETE FROM chunk WHERE message = OLD.message;
        END IF;
    END IF;
    IF mine IS NULL THEN
        UPDATE total SET bytes = bytes + change;
    ELSE
        INSERT INTO total_part VALUES (mine, change)
            ON CONFLICT (fence) DO UPDATE SET bytes = total_part.bytes + excluded.bytes;
    END IF;
    RETURN NULL;
END $$;

-- the numbers of a lane change once for each statement, however many messages it is about
CREATE FUNCTION add_to_lane(which bigint, q bigint, a bigint, d bigint, h bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    mine integer := my_fence();
BEGIN
    IF mine IS NULL THEN
        UPDATE lane SET queued = queued + q, active = active + a, deferred = deferred + d, held = held + h WHERE id = which;
    ELSE
        INSERT INTO lane_part VALUES (which, mine, q, a, d, h)
            ON CONFLICT (lane, fence) DO UPDATE SET queued = lane_part.queued + q, active = lane_part.active + a,
                deferred = lane_part.deferred + d, held = lane_part.held + h;
    END IF;
END $$;

CREATE FUNCTION messages_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_to_lane(lane, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1),
        count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3)) FROM fresh WHERE state < 4 GROUP BY lane;
    RETURN NULL;
END $$;
CREATE FUNCTION messages_went() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_to_lane(lane, -count(*) FILTER (WHERE state = 0), -count(*) FILTER (WHERE state = 1),
        -count(*) FILTER (WHERE state = 2), -count(*) FILTER (WHERE state = 3)) FROM gone WHERE state < 4 GROUP BY lane;
    RETURN NULL;
END $$;
CREATE FUNCTION messages_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_to_lane(lane, q, a, d, h) FROM (
        SELECT lane, coalesce(sum(n) FILTER (WHERE state = 0), 0)::bigint AS q,
            coalesce(sum(n) FILTER (WHERE state = 1), 0)::bigint AS a,
            coalesce(sum(n) FILTER (WHERE state = 2), 0)::bigint AS d,
            coalesce(sum(n) FILTER (WHERE state = 3), 0)::bigint AS h
        FROM (SELECT lane, state, -1 AS n FROM gone UNION ALL SELECT lane, state, 1 FROM fresh) both_
        WHERE state < 4 GROUP BY lane) changes WHERE (q, a, d, h) <> (0, 0, 0, 0);
    RETURN NULL;
END $$;
DROP TRIGGER message_comes_or_goes ON message;
DROP TRIGGER message_moves ON message;
DROP FUNCTION message_counted();
DROP FUNCTION count_in_lane(bigint, smallint, bigint);
CREATE TRIGGER messages_came AFTER INSERT ON message REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION messages_came();
CREATE TRIGGER messages_went AFTER DELETE ON message REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION messages_went();
CREATE TRIGGER messages_moved AFTER UPDATE ON message REFERENCING OLD TABLE AS gone NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION messages_moved();

-- the parts of those who are gone (all: of everybody) go into the rows that every release reads
CREATE FUNCTION fold_parts(everybody boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM lane_part p WHERE everybody OR NOT EXISTS (SELECT 1 FROM replica r WHERE r.fence = p.fence)
        RETURNING *
    ), sums AS (
        SELECT lane, sum(queued) AS queued, sum(active) AS active, sum(deferred) AS deferred, sum(held) AS held
        FROM gone GROUP BY lane
    )
    UPDATE lane SET queued = lane.queued + s.queued, active = lane.active + s.active,
        deferred = lane.deferred + s.deferred, held = lane.held + s.held FROM sums s WHERE lane.id = s.lane;
    WITH gone AS (
        DELETE FROM total_part p WHERE everybody OR NOT EXISTS (SELECT 1 FROM replica r WHERE r.fence = p.fence)
        RETURNING bytes
    )
    UPDATE total SET bytes = bytes + (SELECT sum(bytes) FROM gone) WHERE EXISTS (SELECT 1 FROM gone);
END $$;

-- A relay of the release before writes this row when it takes the spool for itself alone, which it can only while no
-- replica of this release has its place: so all of them are out, and what they counted must be where it looks.
CREATE FUNCTION alone_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM replica;
    DELETE FROM lease;
    PERFORM fold_parts(true);
    RETURN NULL;
END $$;
CREATE TRIGGER alone_again AFTER INSERT OR UPDATE ON memory
    FOR EACH ROW WHEN (NEW.key = 'spool:owner') EXECUTE FUNCTION alone_again();

-- Schema 1. States: 0 queued, 1 active, 2 deferred, 3 held, 4 done; recipients also 5 sent, 6 failed, 7 deleted.
-- Times are milliseconds since 1970. What changes often (message) is kept apart from what is large (content),
-- because SQLite writes a changed row whole.

CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    turn INTEGER NOT NULL DEFAULT 0,          -- turn of the message claimed last
    queued INTEGER NOT NULL DEFAULT 0,        -- kept by triggers, so that no start and no status counts rows
    active INTEGER NOT NULL DEFAULT 0,
    deferred INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    held_ms INTEGER NOT NULL DEFAULT 0,       -- how long holds have covered this lane, in all
    held_since INTEGER                        -- set while one does
);

CREATE TABLE source (                         -- the last turn given to a source, until it is spent
    lane INTEGER NOT NULL,
    name TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (lane, name)
) WITHOUT ROWID;

CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    received INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    state INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    due INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    sender TEXT NOT NULL,
    client TEXT NOT NULL,
    source TEXT NOT NULL,
    message_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    pool TEXT,
    details TEXT NOT NULL,                    -- JSON: rest of client and envelope, From addresses, repairs
    reason TEXT NOT NULL DEFAULT '',
    remedy TEXT NOT NULL DEFAULT '',
    begun INTEGER,                            -- an attempt has begun and is not settled
    held_base INTEGER NOT NULL DEFAULT 0,     -- the lane's held time when it came
    held_ms INTEGER NOT NULL DEFAULT 0,       -- own held time, and that of lanes it has left
    held_since INTEGER,
    hold_key TEXT,                            -- the sender hold that keeps it, if one does
    finished INTEGER
);
CREATE INDEX message_ready ON message (lane, turn, id) WHERE state = 0;
CREATE INDEX message_active ON message (lane, id) WHERE state = 1;
CREATE INDEX message_due ON message (lane, due) WHERE state = 2;
CREATE INDEX message_held ON message (lane, id) WHERE state = 3;
CREATE INDEX message_open ON message (received, id) WHERE state < 4;
CREATE INDEX message_lane ON message (lane, received) WHERE state < 4;
CREATE INDEX message_finished ON message (finished) WHERE state = 4;

CREATE TABLE recipient (
    message INTEGER NOT NULL,
    n INTEGER NOT NULL,
    address TEXT NOT NULL,
    notify TEXT,
    orcpt TEXT,
    state INTEGER NOT NULL,                   -- 0 unfinished (its state is the message's), 2, 3, 5, 6, 7
    code INTEGER NOT NULL DEFAULT 0,
    text TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, n)
) WITHOUT ROWID;

CREATE TABLE content (
    message INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    header BLOB NOT NULL,
    body BLOB,                                -- NULL: in a file beside the database
    body_size INTEGER NOT NULL
);

CREATE TABLE event (
    message INTEGER NOT NULL,
    at INTEGER NOT NULL,                      -- microseconds
    event TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (message, at, event)
) WITHOUT ROWID;

CREATE TABLE hold (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    remedy TEXT NOT NULL,
    evidence TEXT NOT NULL,
    since INTEGER NOT NULL,
    probes INTEGER NOT NULL DEFAULT 0,
    next_probe INTEGER,
    at_login INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

CREATE TABLE usage (                          -- submissions by second (the last minutes) and by minute (a day)
    lane INTEGER NOT NULL,
    span INTEGER NOT NULL,                    -- 1 or 60
    at INTEGER NOT NULL,                      -- start, in seconds
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (lane, span, at)
) WITHOUT ROWID;

CREATE TABLE total (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bytes INTEGER NOT NULL                    -- octets of stored content
);
INSERT INTO total VALUES (1, 0);

CREATE TRIGGER content_in AFTER INSERT ON content BEGIN
    UPDATE total SET bytes = bytes + NEW.size;
END;
CREATE TRIGGER content_out AFTER DELETE ON content BEGIN
    UPDATE total SET bytes = bytes - OLD.size;
END;

CREATE TRIGGER message_in AFTER INSERT ON message BEGIN
    UPDATE lane SET queued = queued + (NEW.state = 0), active = active + (NEW.state = 1),
        deferred = deferred + (NEW.state = 2), held = held + (NEW.state = 3) WHERE id = NEW.lane;
END;
CREATE TRIGGER message_out AFTER DELETE ON message WHEN OLD.state < 4 BEGIN
    UPDATE lane SET queued = queued - (OLD.state = 0), active = active - (OLD.state = 1),
        deferred = deferred - (OLD.state = 2), held = held - (OLD.state = 3) WHERE id = OLD.lane;
END;
CREATE TRIGGER message_moved AFTER UPDATE OF state, lane ON message
    WHEN OLD.state <> NEW.state OR OLD.lane <> NEW.lane BEGIN
    UPDATE lane SET queued = queued - (OLD.state = 0), active = active - (OLD.state = 1),
        deferred = deferred - (OLD.state = 2), held = held - (OLD.state = 3) WHERE id = OLD.lane;
    UPDATE lane SET queued = queued + (NEW.state = 0), active = active + (NEW.state = 1),
        deferred = deferred + (NEW.state = 2), held = held + (NEW.state = 3) WHERE id = NEW.lane;
END;

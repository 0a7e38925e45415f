-- Projects, the holds of their resources, the places in their queues, and the audit log.
-- Times are RFC 3339, UTC, with milliseconds. Sessions, tickets and tokens are numbers below 2^53.

-- An isolated lock space.
CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Who reigns over a project, and how far its turns are written.
CREATE TABLE lock_meta (
    project_id TEXT NOT NULL PRIMARY KEY REFERENCES projects (id),
    -- Goes up by one with each claim, and never back.
    epoch INTEGER NOT NULL,
    -- The number of the last turn of this epoch that recorded something.
    seq INTEGER NOT NULL,
    -- The number of the last event.
    last_event INTEGER NOT NULL,
    claimed_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every hold, live (released_at is null) or over.
CREATE TABLE resource_locks (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    resource_type TEXT NOT NULL,
    resource_key TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    acquired_at TEXT NOT NULL,
    released_at TEXT,
    timeout_at TEXT NOT NULL,
    session_id INTEGER NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('shared', 'update', 'exclusive', 'permit')),
    -- The first slot of a permit; all of them stand in slots, as JSON.
    permit_slot INTEGER,
    slots TEXT,
    token INTEGER NOT NULL,
    reason TEXT,
    metadata TEXT,
    lease_ms INTEGER NOT NULL,
    release_cause TEXT,
    released_by TEXT,
    -- The request the hold came from, and the acquires that are left of a counted hold, as JSON;
    -- null is the first one alone.
    ticket INTEGER NOT NULL,
    shares TEXT,
    -- The first ticket of the session's work when it got the hold.
    birth INTEGER NOT NULL,
    request_id TEXT,
    wait_ms INTEGER NOT NULL,
    -- When a hold that is being revoked ends by force.
    revoked_at TEXT
) STRICT;

-- A second exclusive hold of a resource is impossible, whatever the program does.
CREATE UNIQUE INDEX idx_resource_locks_active
    ON resource_locks (project_id, resource_type, resource_key)
    WHERE released_at IS NULL AND mode = 'exclusive';

-- The live holds of the other modes; costs an exclusive hold nothing.
CREATE INDEX idx_resource_locks_together
    ON resource_locks (project_id, resource_type, resource_key)
    WHERE released_at IS NULL AND mode <> 'exclusive';

CREATE INDEX idx_resource_locks_timeout
    ON resource_locks (timeout_at)
    WHERE released_at IS NULL;

-- The places in the queues.
CREATE TABLE lock_tickets (
    project_id TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    session_id INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    queued_at TEXT NOT NULL,
    wait_until TEXT NOT NULL,
    -- When it must be polled; null while a call waits on it.
    poll_by TEXT,
    -- Whether its asker was told the ticket and may come back for the outcome.
    parked INTEGER NOT NULL DEFAULT 0,
    birth INTEGER NOT NULL,
    request_id TEXT,
    -- What it waits for, as it was recorded.
    request TEXT NOT NULL,
    PRIMARY KEY (project_id, ticket)
) STRICT, WITHOUT ROWID;

-- The open sessions. Birth, aborts and retrying are those of work that a deadlock has struck, or
-- that was taken over from an earlier session.
CREATE TABLE sessions (
    project_id TEXT NOT NULL,
    id INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('attached', 'detached')),
    priority INTEGER NOT NULL,
    birth INTEGER,
    aborts INTEGER NOT NULL DEFAULT 0,
    retrying INTEGER NOT NULL DEFAULT 0,
    opened_at TEXT NOT NULL,
    PRIMARY KEY (project_id, id)
) STRICT, WITHOUT ROWID;

-- Who has declared to wait for whom.
CREATE TABLE declared_waits (
    project_id TEXT NOT NULL,
    session_id INTEGER NOT NULL,
    on_session_id INTEGER NOT NULL,
    birth INTEGER,
    declared_at TEXT NOT NULL,
    PRIMARY KEY (project_id, session_id, on_session_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX idx_declared_waits_on ON declared_waits (project_id, on_session_id);

CREATE TABLE resource_capacities (
    project_id TEXT NOT NULL,
    resource TEXT NOT NULL,
    capacity INTEGER NOT NULL CHECK (capacity > 0),
    declared_at TEXT NOT NULL,
    PRIMARY KEY (project_id, resource)
) STRICT, WITHOUT ROWID;

-- What happened, one row a fact, in the commit that made it true. Replayed, it gives the table.
CREATE TABLE audit_log (
    id INTEGER NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    event_time TEXT NOT NULL,
    agent_id TEXT,
    resource TEXT,
    token INTEGER,
    details TEXT NOT NULL,
    -- Where a session remembers what became of a request, so that asking again changes nothing:
    -- the session, and the id of the request if it had one.
    session_id INTEGER,
    request_id TEXT
) STRICT;

CREATE INDEX idx_audit_log_remembered
    ON audit_log (project_id, session_id)
    WHERE session_id IS NOT NULL;

-- Rows of the audit log from before this moment may be removed. There is one row.
CREATE TABLE audit_horizon (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    before TEXT NOT NULL
) STRICT;

INSERT INTO audit_horizon (only_row, before) VALUES (1, '');

CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

-- Only a row with a number of its own can replace another one; ours let SQLite number them.
CREATE TRIGGER audit_log_is_not_replaced BEFORE INSERT ON audit_log
WHEN NEW.id > 0
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only') FROM audit_log WHERE id = NEW.id;
END;

-- The newest row stays, so that ids are never given twice.
CREATE TRIGGER audit_log_is_only_pruned BEFORE DELETE ON audit_log
WHEN OLD.event_time >= coalesce((SELECT before FROM audit_horizon), '')
    OR OLD.id = (SELECT max(id) FROM audit_log)
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;

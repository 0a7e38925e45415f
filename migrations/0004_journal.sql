-- What is acknowledged is written here, in one row for each commit of a project, and in nothing
-- else: so a commit touches as few pages as can be. A moment later, many rows at a time, it is
-- carried over: into the other tables, as before, and out of here. A row is here or its facts are
-- there, never both, never neither.
CREATE TABLE journal (
    id INTEGER NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    -- Whose turns they are, and the last one of them.
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- The number of the last event.
    last_event INTEGER NOT NULL,
    -- [[milliseconds since 1970, fact], …] as JSON; the facts as they will be in audit_log.
    facts TEXT NOT NULL
) STRICT;

-- Tasks that agents claim. A claim is an exclusive hold of the task's resource.

CREATE TABLE tasks (
    project_id TEXT NOT NULL,
    -- As text, `task:id`.
    resource TEXT NOT NULL,
    -- Goes up by one with each transition.
    version INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'claimed', 'done')),
    -- The hold that is its claim.
    lock_id TEXT,
    moved_at TEXT NOT NULL,
    PRIMARY KEY (project_id, resource)
) STRICT, WITHOUT ROWID;

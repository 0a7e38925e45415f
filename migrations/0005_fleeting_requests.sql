-- A request id that the program made up for itself is of use as long as its hold lives: nobody
-- asks by it once that is over and the program gone. The hold's own row remembers it meanwhile, and
-- audit_log does not name its session: with many sessions the index of those that do is the most
-- expensive thing there is to keep.
ALTER TABLE resource_locks ADD COLUMN fleeting INTEGER NOT NULL DEFAULT 0;

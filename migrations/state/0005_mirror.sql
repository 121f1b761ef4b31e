-- Where PostgreSQL is, and what is asked of it (DESIGN D2): whichever authority leads must know. The
-- connection string holds no secret. One row; none: never configured.
CREATE TABLE mirror_settings (
    cluster_id TEXT PRIMARY KEY NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('disabled', 'async', 'required')),
    dsn TEXT NOT NULL,
    max_lag_ms INTEGER NOT NULL,
    -- How often an owner had the mirror written anew; PostgreSQL has the same number once that is done.
    rebuilds INTEGER NOT NULL,
    -- Why the mirror is not to be believed; NULL: it is. Only a rebuild takes it away.
    alarm TEXT,
    alarm_detail TEXT,
    alarm_at INTEGER,
    updated_at INTEGER NOT NULL
) STRICT;

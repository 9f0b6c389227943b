-- The PostgreSQL store's tables. `@app@` stands for the app's own schema, as in the scripts of
-- PostgreSQL's extensions. Instants are Unix times in seconds, money is in nano-dollars.

CREATE TABLE @app@.schema_version (version integer NOT NULL);

-- Money by day and subject ("app", "caller:<name>"). A caller has one row, slot 0. The app's is
-- spread over slots, so that requests do not queue for one row: each slot may spend up to its
-- `share_nano`, and the shares add up to `limit_nano`, the cap. They are -1 while more than the cap
-- is spent: then no request passes without looking at all of them. `measured_by` is the cap that the
-- slot's last charge was measured by, for the day's warning.
CREATE TABLE @app@.spend (
    day date NOT NULL,
    subject text NOT NULL,
    slot smallint NOT NULL DEFAULT 0,
    settled_nano bigint NOT NULL DEFAULT 0,
    reserved_nano bigint NOT NULL DEFAULT 0,
    limit_nano bigint NOT NULL DEFAULT 0,
    share_nano bigint NOT NULL DEFAULT -1,
    measured_by bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, subject, slot)
) WITH (fillfactor = 50);

-- The days whose warning has been given.
CREATE TABLE @app@.warnings (day date PRIMARY KEY);

-- One row per request in flight. `expired`: its owner died, and `charged_nano` was kept.
-- `callers` and `slot` name the spend rows that it counts in.
CREATE TABLE @app@.reservations (
    id text PRIMARY KEY,
    day date NOT NULL,
    callers text[] NOT NULL,
    slot smallint NOT NULL,
    amount_nano bigint NOT NULL,
    limit_nano bigint NOT NULL,
    claim text,
    dispatched boolean NOT NULL DEFAULT false,
    expired boolean NOT NULL DEFAULT false,
    charged_nano bigint NOT NULL DEFAULT 0,
    lease_seconds double precision NOT NULL,
    expires_at double precision NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX ON @app@.reservations (expired, expires_at);

-- What a rate has admitted: `counts[i]` admissions, whose windows end in one second of the clock,
-- count until `ends[i]`, when the last of them ends; in ascending order. `forget_at` moves in steps
-- of ten minutes, so that hardly any write touches its index.
CREATE TABLE @app@.rates (
    subject text PRIMARY KEY,
    ends double precision[] NOT NULL DEFAULT '{}',
    counts integer[] NOT NULL DEFAULT '{}',
    forget_at double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX ON @app@.rates (forget_at);

-- One row per idempotency key; `status` is null while its owner is at work;
-- it is kept for `keep_seconds` from its answer on.
CREATE TABLE @app@.idempotency (
    key text PRIMARY KEY,
    fingerprint text NOT NULL,
    reservation text NOT NULL,
    status integer,
    media_type text NOT NULL DEFAULT '',
    body bytea,
    complete boolean NOT NULL DEFAULT false,
    keep_seconds integer NOT NULL,
    expires_at double precision NOT NULL
);
CREATE INDEX ON @app@.idempotency (expires_at) WHERE status IS NOT NULL;

-- Sealed values, such as summaries of conversations.
CREATE TABLE @app@.memos (
    key text PRIMARY KEY,
    value bytea NOT NULL,
    expires_at double precision NOT NULL
);
CREATE INDEX ON @app@.memos (expires_at);

CREATE TABLE @app@.incidents (key text PRIMARY KEY, remind_at double precision NOT NULL);

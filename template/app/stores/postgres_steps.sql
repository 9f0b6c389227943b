-- The PostgreSQL store's steps: one function each, so that a step is one round trip and one
-- transaction. `@app@` is the app's schema. `@release@` is a digest of this file: releases that run
-- side by side during a deploy each call their own functions.
--
-- Rows are locked in one order everywhere, so that no two steps ever wait for each other:
-- reservation, rates by subject, callers' money by subject, the app's slots, warning, key. After the
-- last two a step waits for nothing more. Cleaning up skips what is locked.
--
-- `p_deadline` is an instant of the server's clock: a step that would be later changes nothing, for
-- its caller has given up. `p_now` stands in for the clock of quotas, leases and days, in tests.
-- Every step returns the server's clock as `at`. The errors it raises on purpose:
--   SK001  too late, or on another day than the caller believes; DETAIL is the server's clock
--   SK002  lost a race against another step: everything is undone, the caller tries again

-- Counters by minute and hour (`span` in seconds); `number` is that of the span since 1970. It is made
-- here and not in postgres_schema.sql, since a schema of an earlier release gains it.
CREATE TABLE IF NOT EXISTS @app@.counts (
    name text NOT NULL,
    span integer NOT NULL,
    number bigint NOT NULL,
    label text NOT NULL,
    value bigint NOT NULL,
    PRIMARY KEY (name, span, number, label)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS counts_age ON @app@.counts (span, number);

-- Sealed values in collections that forget. It is made here for the same reason.
CREATE TABLE IF NOT EXISTS @app@.entries (
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    times bigint NOT NULL,
    seen_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    PRIMARY KEY (name, key)
);
CREATE INDEX IF NOT EXISTS entries_order ON @app@.entries (name, expires_at, key);
CREATE INDEX IF NOT EXISTS entries_expiry ON @app@.entries (expires_at);

CREATE FUNCTION @app@.clock@release@(p_deadline float8) RETURNS float8 AS $$
DECLARE
    at float8 := date_part('epoch', clock_timestamp());
BEGIN
    IF at >= p_deadline THEN
        RAISE EXCEPTION 'too late' USING ERRCODE = 'SK001', DETAIL = at;
    END IF;
    RETURN at;
END $$ LANGUAGE plpgsql;

-- The beginning of each step that waits for rows: no wait is longer than until the deadline. Planning
-- anew for every length of an array would cost more than the steps themselves.
CREATE FUNCTION @app@.begin@release@(p_deadline float8) RETURNS float8 AS $$
DECLARE
    at float8 := @app@.clock@release@(p_deadline);
BEGIN
    PERFORM
        set_config('lock_timeout', least(900000, ceil((p_deadline - at) * 1000))::text, true),
        set_config('plan_cache_mode', 'force_generic_plan', true);
    RETURN at;
END $$ LANGUAGE plpgsql;

-- Lock the app's slots, which are made where the day is new.
CREATE FUNCTION @app@.lock_slots@release@(p_day date) RETURNS void AS $$
BEGIN
    INSERT INTO @app@.spend (day, subject, slot)
    SELECT p_day, 'app', n FROM generate_series(0, @slots@ - 1) AS n ON CONFLICT DO NOTHING;
    PERFORM FROM @app@.spend WHERE day = p_day AND subject = 'app' ORDER BY slot FOR UPDATE;
END $$ LANGUAGE plpgsql;

-- Divide what is left of the cap among the slots, which the step has locked. Near the end fewer
-- slots share it, so that each has room for several more of `p_amount`.
CREATE FUNCTION @app@.share@release@(p_day date, p_limit int8, p_amount int8) RETURNS void AS $$
DECLARE
    free int8;
    parts int8;
BEGIN
    SELECT p_limit - sum(settled_nano + reserved_nano) INTO free
    FROM @app@.spend WHERE day = p_day AND subject = 'app';
    parts := greatest(1, least(@slots@, free / greatest(1, 4 * p_amount)));
    UPDATE @app@.spend
    SET limit_nano = p_limit,
        share_nano = CASE
            WHEN free < 0 THEN -1
            ELSE settled_nano + reserved_nano + CASE WHEN slot < parts THEN free / parts ELSE 0 END
        END
    WHERE day = p_day AND subject = 'app';
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.admit@release@(
    p_deadline float8, p_now float8, p_day date, p_day_begins float8, p_day_ends float8,
    p_exact boolean, -- do not rely on a slot's share
    p_id text, p_amount int8, p_lease_seconds float8,
    p_subjects text[], p_quotas int8[], p_windows int8[], -- the rates, by subject
    p_limit int8, p_callers text[], p_caller_limits int8[], -- the caps, callers by subject
    p_claim text, p_fingerprint text, p_keep_seconds int4,
    -- admitted, replay, rate, app_cap, caller_cap, in_progress, key_reused; over: the key's owner
    -- died with nothing done, and its `reservation` must be ended first; again: call once more, with
    -- p_exact.
    OUT at float8, OUT verdict text,
    OUT used int8[], OUT resets float8[], -- of each rate; resets are in seconds from now
    OUT status int4, OUT media_type text, OUT body bytea, OUT complete boolean, OUT expires_in float8,
    OUT reservation text
) AS $$
DECLARE
    now float8;
    locked boolean;
    missing boolean := false; -- the row of a rate
    held record;
    instants float8[];
    hits int4[];
    first int4; -- instants[first .. last] still count
    last int4;
    firsts int4[];
    lasts int4[];
    place int4;
    its_end float8;
    rest int8;
    exhausted boolean;
    committed int8;
    roomy int2[]; -- the slots whose share has room
    chosen int2;
    has_room boolean;
BEGIN
    at := @app@.begin@release@(p_deadline);
    -- Look twice: first without a lock, so that a refusal costs no write; then with all of them.
    FOREACH locked IN ARRAY ARRAY[false, true] LOOP
        IF locked AND missing THEN
            INSERT INTO @app@.rates (subject)
            SELECT unnest(p_subjects) ON CONFLICT DO NOTHING;
        END IF;
        IF locked THEN
            PERFORM FROM @app@.rates r WHERE r.subject = ANY (p_subjects)
            ORDER BY r.subject COLLATE "C" FOR UPDATE;
        END IF;
        -- The clock is read after the rates are locked, so that admissions are in its order.
        at := @app@.clock@release@(p_deadline);
        now := coalesce(p_now, at);
        IF now < p_day_begins OR now >= p_day_ends THEN
            RAISE EXCEPTION 'another day' USING ERRCODE = 'SK001', DETAIL = at;
        END IF;

        IF p_claim IS NOT NULL THEN
            SELECT i.*, r.expires_at AS lease_ends, r.dispatched INTO held
            FROM @app@.idempotency i
            LEFT JOIN @app@.reservations r ON r.id = i.reservation AND NOT r.expired
            WHERE i.key = p_claim;
            IF held.status IS NULL AND held.lease_ends <= now THEN
                -- Its owner is dead. Nobody knows the outcome once a provider may have been called.
                IF NOT held.dispatched THEN
                    verdict := 'over';
                    reservation := held.reservation;
                    RETURN;
                END IF;
                held.status := 504;
                held.media_type := 'application/json';
                held.expires_at := now + held.keep_seconds;
            END IF;
            IF held.key IS NOT NULL AND (held.status IS NULL OR held.expires_at > now) THEN
                verdict := CASE
                    WHEN held.fingerprint <> p_fingerprint THEN 'key_reused'
                    WHEN held.status IS NULL THEN 'in_progress'
                    ELSE 'replay'
                END;
                status := held.status;
                media_type := held.media_type;
                body := held.body;
                complete := held.complete;
                expires_in := held.expires_at - now;
                RETURN;
            END IF;
        END IF;

        exhausted := false;
        FOR i IN 1 .. cardinality(p_subjects) LOOP
            SELECT r.ends, r.counts INTO instants, hits
            FROM @app@.rates r WHERE r.subject = p_subjects[i];
            IF NOT FOUND THEN
                IF locked THEN
                    RAISE EXCEPTION 'a rate was just forgotten' USING ERRCODE = 'SK002';
                END IF;
                missing := true;
            END IF;
            first := 1;
            last := coalesce(cardinality(instants), 0);
            WHILE first <= last AND instants[first] <= now LOOP
                first := first + 1;
            END LOOP;
            -- The clock was set back: what lies too far ahead is forgotten.
            WHILE first <= last AND instants[last] > now + 2 * p_windows[i] LOOP
                last := last - 1;
            END LOOP;
            firsts[i] := first;
            lasts[i] := last;
            rest := (SELECT coalesce(sum(n), 0) FROM unnest(hits[first:last]) AS n);
            used[i] := rest;
            resets[i] := CASE WHEN rest > 0 THEN instants[first] - now ELSE 0 END;
            WHILE rest >= p_quotas[i] LOOP
                exhausted := true;
                resets[i] := instants[first] - now;
                rest := rest - hits[first];
                first := first + 1;
            END LOOP;
        END LOOP;
        IF exhausted THEN
            verdict := 'rate';
            RETURN;
        END IF;

        IF NOT locked THEN
            SELECT
                coalesce(sum(s.settled_nano + s.reserved_nano), 0),
                array_agg(s.slot) FILTER (
                    WHERE s.limit_nano = p_limit
                    AND s.settled_nano + s.reserved_nano + p_amount <= s.share_nano
                )
            INTO committed, roomy
            FROM @app@.spend s WHERE s.day = p_day AND s.subject = 'app';
            IF committed + p_amount > p_limit THEN
                verdict := 'app_cap';
                RETURN;
            END IF;
        END IF;
        FOR i IN 1 .. cardinality(p_callers) LOOP
            IF locked THEN
                INSERT INTO @app@.spend (day, subject) VALUES (p_day, p_callers[i])
                ON CONFLICT DO NOTHING;
                PERFORM FROM @app@.spend s
                WHERE s.day = p_day AND s.subject = p_callers[i] AND s.slot = 0 FOR UPDATE;
            END IF;
            SELECT s.settled_nano + s.reserved_nano INTO committed
            FROM @app@.spend s WHERE s.day = p_day AND s.subject = p_callers[i] AND s.slot = 0;
            IF coalesce(committed, 0) + p_amount > p_caller_limits[i] THEN
                verdict := 'caller_cap';
                RETURN;
            END IF;
        END LOOP;
    END LOOP;

    IF roomy IS NULL OR p_exact THEN
        -- No share has room: lock them all and decide on the exact total.
        PERFORM @app@.lock_slots@release@(p_day);
        SELECT sum(s.settled_nano + s.reserved_nano) INTO committed
        FROM @app@.spend s WHERE s.day = p_day AND s.subject = 'app';
        IF committed + p_amount > p_limit THEN
            verdict := 'app_cap';
            RETURN;
        END IF;
        chosen := 0;
    ELSE
        -- One that nobody else is writing, or else one to wait for. Its money may have changed
        -- since it was looked at, and now that it is locked no other may be waited for.
        SELECT s.slot, s.limit_nano = p_limit
            AND s.settled_nano + s.reserved_nano + p_amount <= s.share_nano
        INTO chosen, has_room
        FROM @app@.spend s WHERE s.day = p_day AND s.subject = 'app' AND s.slot = ANY (roomy)
        ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            SELECT s.slot, s.limit_nano = p_limit
                AND s.settled_nano + s.reserved_nano + p_amount <= s.share_nano
            INTO chosen, has_room
            FROM @app@.spend s WHERE s.day = p_day AND s.subject = 'app'
                AND s.slot = roomy[1 + pg_backend_pid() % cardinality(roomy)] FOR UPDATE;
        END IF;
        IF has_room IS NOT TRUE THEN
            verdict := 'again';
            RETURN;
        END IF;
    END IF;
    PERFORM @app@.clock@release@(p_deadline);

    -- All of it is granted: write everything.
    FOR i IN 1 .. cardinality(p_subjects) LOOP
        SELECT r.ends[firsts[i]:lasts[i]], r.counts[firsts[i]:lasts[i]] INTO instants, hits
        FROM @app@.rates r WHERE r.subject = p_subjects[i];
        its_end := now + p_windows[i];
        place := cardinality(instants);
        -- They stay in order also when the clock was set back a little.
        WHILE floor(instants[place]) > floor(its_end) LOOP
            place := place - 1;
        END LOOP;
        IF floor(instants[place]) = floor(its_end) THEN
            instants[place] := greatest(instants[place], its_end);
            hits[place] := hits[place] + 1;
        ELSE
            instants := instants[:place] || its_end || instants[place + 1:];
            hits := hits[:place] || 1 || hits[place + 1:];
        END IF;
        used[i] := used[i] + 1;
        resets[i] := instants[1] - now;
        UPDATE @app@.rates r
        SET ends = instants, counts = hits,
            forget_at = (floor(its_end / 600) + 1) * 600
        WHERE r.subject = p_subjects[i];
    END LOOP;
    UPDATE @app@.spend s SET reserved_nano = s.reserved_nano + p_amount
    WHERE s.day = p_day
        AND (s.subject = ANY (p_callers) AND s.slot = 0 OR s.subject = 'app' AND s.slot = chosen);
    IF has_room IS NULL THEN
        PERFORM @app@.share@release@(p_day, p_limit, p_amount);
    END IF;
    INSERT INTO @app@.reservations
        (id, day, callers, slot, amount_nano, limit_nano, claim, lease_seconds, expires_at)
    VALUES (
        p_id, p_day, p_callers, chosen, p_amount, p_limit, p_claim,
        p_lease_seconds, now + p_lease_seconds
    );
    IF p_claim IS NOT NULL THEN
        INSERT INTO @app@.idempotency AS i (key, fingerprint, reservation, keep_seconds, expires_at)
        VALUES (p_claim, p_fingerprint, p_id, p_keep_seconds, now + p_keep_seconds)
        ON CONFLICT (key) DO UPDATE
        SET fingerprint = excluded.fingerprint, reservation = excluded.reservation, status = NULL,
            body = NULL, keep_seconds = excluded.keep_seconds, expires_at = excluded.expires_at
        WHERE i.status IS NOT NULL AND i.expires_at <= now;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the key was just claimed' USING ERRCODE = 'SK002';
        END IF;
    END IF;
    verdict := 'admitted';
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.dispatch@release@(p_deadline float8, p_now float8, p_id text,
    OUT at float8, OUT done boolean
) AS $$
BEGIN
    at := @app@.begin@release@(p_deadline);
    UPDATE @app@.reservations r SET dispatched = true
    WHERE r.id = p_id AND NOT r.expired AND r.expires_at > coalesce(p_now, at);
    done := FOUND;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.renew@release@(
    p_deadline float8, p_now float8, p_id text, p_lease_seconds float8,
    OUT at float8, OUT done boolean
) AS $$
BEGIN
    at := @app@.begin@release@(p_deadline);
    UPDATE @app@.reservations r
    SET lease_seconds = p_lease_seconds, expires_at = coalesce(p_now, at) + p_lease_seconds
    WHERE r.id = p_id AND NOT r.expired AND r.expires_at > coalesce(p_now, at);
    done := FOUND;
END $$ LANGUAGE plpgsql;

-- Take money out of what a reservation holds, and charge some of it.
CREATE FUNCTION @app@.charge@release@(
    r @app@.reservations, p_released int8, p_charged int8
) RETURNS void AS $$
DECLARE
    caller text;
BEGIN
    FOREACH caller IN ARRAY r.callers LOOP
        UPDATE @app@.spend s
        SET reserved_nano = s.reserved_nano - p_released, settled_nano = s.settled_nano + p_charged
        WHERE s.day = r.day AND s.subject = caller AND s.slot = 0;
    END LOOP;
    IF p_charged > p_released THEN
        PERFORM @app@.lock_slots@release@(r.day);
    END IF;
    UPDATE @app@.spend s
    SET reserved_nano = s.reserved_nano - p_released, settled_nano = s.settled_nano + p_charged,
        measured_by = CASE WHEN p_charged > 0 THEN r.limit_nano ELSE s.measured_by END
    WHERE s.day = r.day AND s.subject = 'app' AND s.slot = r.slot;
    IF p_charged > p_released THEN
        -- More than was reserved: it may lie beyond the slot's share.
        PERFORM @app@.share@release@(r.day, r.limit_nano, r.amount_nano);
    END IF;
END $$ LANGUAGE plpgsql;

-- Keep the answer of a reservation's key, or release the key where `p_status` is null.
CREATE FUNCTION @app@.answer@release@(
    r @app@.reservations, p_now float8,
    p_status int4, p_media_type text, p_body bytea, p_complete boolean
) RETURNS void AS $$
BEGIN
    IF p_status IS NULL THEN
        DELETE FROM @app@.idempotency i WHERE i.key = r.claim AND i.reservation = r.id;
    ELSE
        UPDATE @app@.idempotency i
        SET status = p_status, media_type = p_media_type, body = p_body, complete = p_complete,
            expires_at = p_now + i.keep_seconds
        WHERE i.key = r.claim AND i.reservation = r.id;
    END IF;
END $$ LANGUAGE plpgsql;

-- True for the one step that finds a day's warning due.
CREATE FUNCTION @app@.warn@release@(
    p_day date, p_limit int8, OUT due boolean, OUT settled int8
) AS $$
BEGIN
    SELECT sum(s.settled_nano) INTO settled
    FROM @app@.spend s WHERE s.day = p_day AND s.subject = 'app';
    IF settled * 100 >= p_limit * @warn_at_percent@ THEN
        INSERT INTO @app@.warnings VALUES (p_day) ON CONFLICT DO NOTHING;
        due := FOUND;
    END IF;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.settle@release@(
    p_deadline float8, p_now float8, p_id text, p_cost int8,
    p_status int4, p_media_type text, p_body bytea, p_complete boolean,
    OUT at float8, OUT due boolean, OUT day date, OUT settled int8, OUT limit_nano int8
) AS $$
DECLARE
    r @app@.reservations;
    late boolean;
BEGIN
    at := @app@.begin@release@(p_deadline);
    SELECT * INTO r FROM @app@.reservations s WHERE s.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    at := @app@.clock@release@(p_deadline);
    -- Late, whether a lease that is over was noticed or not: the clock decides, not who came first.
    -- The charge was kept, or is now. It may grow, and never shrinks.
    late := r.expired OR r.expires_at <= coalesce(p_now, at);
    IF r.expired THEN
        PERFORM @app@.charge@release@(r, 0, greatest(0, p_cost - r.charged_nano));
    ELSIF late AND r.dispatched THEN
        PERFORM @app@.charge@release@(r, r.amount_nano, greatest(p_cost, r.amount_nano));
    ELSE
        PERFORM @app@.charge@release@(r, r.amount_nano, p_cost);
    END IF;
    DELETE FROM @app@.reservations s WHERE s.id = p_id;
    day := r.day;
    limit_nano := r.limit_nano;
    SELECT w.due, w.settled INTO due, settled FROM @app@.warn@release@(r.day, r.limit_nano) w;
    IF r.claim IS NOT NULL THEN
        -- A key of whose request nothing was done in time is free.
        PERFORM @app@.answer@release@(
            r, coalesce(p_now, at), CASE WHEN r.dispatched OR NOT late THEN p_status END,
            p_media_type, p_body, p_complete
        );
    END IF;
END $$ LANGUAGE plpgsql;

-- End a lease whose time is over. Once a provider may have been called the outcome is unknown: the
-- charge is kept, and so is the key, with the answer that nobody knows.
CREATE FUNCTION @app@.expire@release@(
    p_deadline float8, p_now float8, p_id text,
    OUT at float8, OUT due boolean, OUT day date, OUT settled int8, OUT limit_nano int8
) AS $$
DECLARE
    r @app@.reservations;
BEGIN
    at := @app@.begin@release@(p_deadline);
    SELECT * INTO r FROM @app@.reservations s WHERE s.id = p_id AND NOT s.expired FOR UPDATE;
    at := @app@.clock@release@(p_deadline);
    IF r.id IS NULL OR r.expires_at > coalesce(p_now, at) THEN
        RETURN;
    END IF;
    r.charged_nano := CASE WHEN r.dispatched THEN r.amount_nano ELSE 0 END;
    PERFORM @app@.charge@release@(r, r.amount_nano, r.charged_nano);
    UPDATE @app@.reservations s SET expired = true, charged_nano = r.charged_nano
    WHERE s.id = p_id;
    IF r.dispatched THEN
        day := r.day;
        limit_nano := r.limit_nano;
        SELECT w.due, w.settled INTO due, settled
        FROM @app@.warn@release@(r.day, r.limit_nano) w;
    END IF;
    IF r.claim IS NOT NULL THEN
        PERFORM @app@.answer@release@(
            r, coalesce(p_now, at),
            CASE WHEN r.dispatched THEN 504 END, 'application/json', NULL, false
        );
    END IF;
END $$ LANGUAGE plpgsql;

-- Which leases are over. One that ends later than its length from now on (the clock was set back)
-- is shortened.
CREATE FUNCTION @app@.overdue@release@(
    p_deadline float8, p_now float8, OUT at float8, OUT reservations text[]
) AS $$
DECLARE
    now float8;
BEGIN
    at := @app@.clock@release@(p_deadline);
    now := coalesce(p_now, at);
    UPDATE @app@.reservations r SET expires_at = now + r.lease_seconds
    WHERE r.id = ANY (ARRAY(
        SELECT f.id FROM @app@.reservations f
        WHERE f.id = ANY (ARRAY(
            SELECT l.id FROM @app@.reservations l WHERE NOT l.expired
            ORDER BY l.expires_at DESC LIMIT @reap_rows@
        )) AND NOT f.expired AND f.expires_at > now + f.lease_seconds
        FOR UPDATE SKIP LOCKED
    ));
    reservations := ARRAY(
        SELECT r.id FROM @app@.reservations r WHERE NOT r.expired AND r.expires_at <= now
        ORDER BY r.expires_at, r.id COLLATE "C" LIMIT @reap_leases@
    );
END $$ LANGUAGE plpgsql;

-- Forget what has expired, a bounded number of rows of each table, and find warnings that are due:
-- two settlements at the same instant may each have missed the other's money.
CREATE FUNCTION @app@.forget@release@(
    p_deadline float8, p_now float8, p_day date, p_day_begins float8, p_day_ends float8,
    OUT at float8, OUT more boolean, OUT days date[], OUT settled int8[], OUT limits int8[]
) AS $$
DECLARE
    now float8;
    deleted int4;
    spent record;
    warning record;
BEGIN
    at := @app@.begin@release@(p_deadline);
    now := coalesce(p_now, at);
    -- First the warnings: a step may wait for one, and from the first deletion on this one does not.
    FOR spent IN
        SELECT s.day, max(s.measured_by) AS limit_nano FROM @app@.spend s
        WHERE s.day >= p_day - 1 AND s.subject = 'app' AND s.measured_by > 0 GROUP BY s.day
    LOOP
        SELECT * INTO warning FROM @app@.warn@release@(spent.day, spent.limit_nano);
        IF warning.due THEN
            days := days || spent.day;
            settled := settled || warning.settled;
            limits := limits || spent.limit_nano;
        END IF;
    END LOOP;
    more := false;
    -- ARRAY() makes the chosen rows a constant: with IN, the choice could be made more than once.
    DELETE FROM @app@.idempotency WHERE key = ANY (ARRAY(
        SELECT i.key FROM @app@.idempotency i WHERE i.status IS NOT NULL AND i.expires_at <= now
        ORDER BY i.expires_at LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.memos WHERE key = ANY (ARRAY(
        SELECT m.key FROM @app@.memos m WHERE m.expires_at <= now
        ORDER BY m.expires_at LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.rates WHERE subject = ANY (ARRAY(
        SELECT r.subject FROM @app@.rates r WHERE r.forget_at <= now
        ORDER BY r.forget_at LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.reservations WHERE id = ANY (ARRAY(
        SELECT r.id FROM @app@.reservations r
        WHERE r.expired AND r.expires_at <= now - @keep_expired_seconds@
        ORDER BY r.expires_at LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.spend WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM @app@.spend s WHERE s.day < p_day - @keep_days@
        ORDER BY s.day LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.counts WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM @app@.counts c
        WHERE c.span = 60 AND c.number < floor(now / 60)::int8 - @keep_minutes@
            OR c.span = 3600 AND c.number < floor(now / 3600)::int8 - @keep_hours@
        LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.entries WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM @app@.entries e WHERE e.expires_at <= now
        ORDER BY e.expires_at LIMIT @reap_rows@ FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    more := more OR deleted >= @reap_rows@;
    DELETE FROM @app@.warnings w WHERE w.day < p_day - @keep_days@;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.spending@release@(
    p_deadline float8, p_now float8, p_day date, p_day_begins float8, p_day_ends float8,
    p_subject text,
    OUT at float8, OUT settled int8, OUT reserved int8
) AS $$
BEGIN
    at := @app@.clock@release@(p_deadline);
    IF coalesce(p_now, at) < p_day_begins OR coalesce(p_now, at) >= p_day_ends THEN
        RAISE EXCEPTION 'another day' USING ERRCODE = 'SK001', DETAIL = at;
    END IF;
    SELECT coalesce(sum(s.settled_nano), 0), coalesce(sum(s.reserved_nano), 0)
    INTO settled, reserved
    FROM @app@.spend s WHERE s.day = p_day AND s.subject = p_subject;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.remember@release@(
    p_deadline float8, p_now float8, p_key text, p_value bytea, p_keep_seconds float8,
    OUT at float8
) AS $$
BEGIN
    at := @app@.begin@release@(p_deadline);
    INSERT INTO @app@.memos AS m VALUES (p_key, p_value, coalesce(p_now, at) + p_keep_seconds)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.recall@release@(
    p_deadline float8, p_now float8, p_key text, OUT at float8, OUT value bytea
) AS $$
BEGIN
    at := @app@.clock@release@(p_deadline);
    SELECT m.value INTO value FROM @app@.memos m
    WHERE m.key = p_key AND m.expires_at > coalesce(p_now, at);
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.open_incident@release@(
    p_deadline float8, p_now float8, p_key text, p_remind_seconds float8,
    OUT at float8, OUT done boolean
) AS $$
BEGIN
    at := @app@.begin@release@(p_deadline);
    INSERT INTO @app@.incidents AS i VALUES (p_key, coalesce(p_now, at) + p_remind_seconds)
    ON CONFLICT (key) DO UPDATE SET remind_at = excluded.remind_at
    -- Due, or noted by a clock that was set back since.
    WHERE i.remind_at <= coalesce(p_now, at) OR i.remind_at > excluded.remind_at;
    done := FOUND;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.close_incident@release@(
    p_deadline float8, p_now float8, p_key text, OUT at float8, OUT done boolean
) AS $$
BEGIN
    at := @app@.begin@release@(p_deadline);
    DELETE FROM @app@.incidents i WHERE i.key = p_key;
    done := FOUND;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.count@release@(
    p_deadline float8, p_now float8, p_name text, p_labels text[], p_added int8[], OUT at float8
) AS $$
DECLARE
    now float8;
BEGIN
    at := @app@.begin@release@(p_deadline);
    now := coalesce(p_now, at);
    -- In one order, so that no two processes ever wait for each other.
    INSERT INTO @app@.counts AS c
    SELECT p_name, s.span, floor(now / s.span)::int8, a.label, a.added
    FROM (VALUES (60), (3600)) AS s (span), unnest(p_labels, p_added) AS a (label, added)
    ORDER BY s.span, a.label
    ON CONFLICT (name, span, number, label) DO UPDATE SET value = c.value + excluded.value;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.counted@release@(
    p_deadline float8, p_now float8, p_name text, p_span int4, p_spans int4,
    OUT at float8, OUT ages int8[], OUT labels text[], OUT amounts int8[]
) AS $$
DECLARE
    current int8;
BEGIN
    at := @app@.clock@release@(p_deadline);
    current := floor(coalesce(p_now, at) / p_span);
    SELECT array_agg(current - c.number ORDER BY c.number DESC, c.label COLLATE "C"),
        array_agg(c.label ORDER BY c.number DESC, c.label COLLATE "C"),
        array_agg(c.value ORDER BY c.number DESC, c.label COLLATE "C")
    INTO ages, labels, amounts
    FROM @app@.counts c
    WHERE c.name = p_name AND c.span = p_span AND c.number > current - p_spans AND c.number <= current;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.collect@release@(
    p_deadline float8, p_now float8, p_name text, p_keys text[], p_values bytea[], p_times int8[],
    p_keep_seconds float8, p_at_most int4, p_gone text[], OUT at float8
) AS $$
DECLARE
    now float8;
BEGIN
    at := @app@.begin@release@(p_deadline);
    now := coalesce(p_now, at);
    DELETE FROM @app@.entries e WHERE e.name = p_name AND e.key = ANY (p_gone);
    -- In one order, so that no two processes ever wait for each other.
    INSERT INTO @app@.entries AS e
    SELECT p_name, n.key, n.value, n.times, now, now + p_keep_seconds
    FROM unnest(p_keys, p_values, p_times) AS n (key, value, times) ORDER BY n.key COLLATE "C"
    ON CONFLICT (name, key) DO UPDATE
    SET value = excluded.value, seen_at = excluded.seen_at, expires_at = excluded.expires_at,
        times = excluded.times + CASE WHEN e.expires_at > now THEN e.times ELSE 0 END;
    -- What stays is counted, never locked; and no two processes take away the same surplus twice.
    DELETE FROM @app@.entries WHERE ctid = ANY (ARRAY(
        SELECT e.ctid FROM @app@.entries e WHERE e.ctid = ANY (ARRAY(
            SELECT o.ctid FROM @app@.entries o WHERE o.name = p_name
            ORDER BY o.expires_at, o.key LIMIT (
                SELECT greatest(0, least(count(*) - p_at_most, @reap_rows@))
                FROM @app@.entries c WHERE c.name = p_name
            )
        )) FOR UPDATE SKIP LOCKED
    ));
END $$ LANGUAGE plpgsql;

CREATE FUNCTION @app@.collected@release@(
    p_deadline float8, p_now float8, p_name text, p_at_most int4, p_key text,
    OUT at float8, OUT keys text[], OUT sealed bytea[], OUT times int8[], OUT ages float8[]
) AS $$
DECLARE
    now float8;
BEGIN
    at := @app@.clock@release@(p_deadline);
    now := coalesce(p_now, at);
    SELECT array_agg(f.key), array_agg(f.value), array_agg(f.times),
        array_agg(greatest(0, now - f.seen_at))
    INTO keys, sealed, times, ages
    FROM (
        SELECT * FROM @app@.entries e
        WHERE e.name = p_name AND e.expires_at > now AND (p_key IS NULL OR e.key = p_key)
        ORDER BY e.expires_at DESC, e.key DESC LIMIT p_at_most
    ) AS f;
END $$ LANGUAGE plpgsql;

-- The first schema. Its tables are empty when their indexes are made, so nobody waits for these.
--
-- A later migration runs beside the service. Each file is one transaction. It waits for a locked table for a second at
-- most, is then rolled back, and is tried again (src/migrate.rs). So:
--   * A file changes one table. The statement that needs its strongest lock comes last: a lock stays until the end.
--   * Nothing reads or rewrites a large table under that lock. A new column has no default that is computed for each
--     row; a new constraint is `not valid`, and a later file validates it.
--   * An index on a table that has rows needs `create index concurrently`, which can't run in a transaction:
--     src/migrate.rs must first learn to run such a file outside of one.
--   * The version before works with the result: in a deployment both run.
--   * A file that was released is never changed: `migrate` compares checksums.

-- The balance of each user. `seq` is that of the user's last log entry.
-- Half-empty pages keep the update of a balance on its page (HOT): no index entry is written for it.
create table user_point (
    user_id bigint primary key check (user_id > 0),
    point bigint not null default 0 check (point between 0 and 9007199254740991),
    seq bigint not null default 0 check (seq >= 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
) with (fillfactor = 50);

-- Every change, and every refusal, once and for good. `balance` is the user's after the entry.
-- Every index begins with user_id: the pages in use are those of the active users, however long the log.
-- The log does not reference user_point: an entry is only ever written in the transaction that has its user's row
-- locked, so the reference would be looked up once more for each entry and never be found wanting. A balance that is
-- removed by hand is found by the audit.
create table log (
    user_id bigint not null,
    seq bigint not null check (seq > 0),
    request_id uuid not null,
    action text not null check (action in ('add', 'subtract')),
    point bigint not null check (point between 1 and 9007199254740991),
    status text not null check (status in ('applied', 'rejected')),
    reject_reason text check (reject_reason in ('insufficient_points', 'balance_limit')),
    reason text check (char_length(reason) between 1 and 200),
    balance bigint not null check (balance between 0 and 9007199254740991),
    requested_at timestamptz not null,
    created_at timestamptz not null,
    primary key (user_id, seq),
    unique (user_id, request_id),
    check ((status = 'rejected') = (reject_reason is not null))
);

-- The refusals of a user, for a page of them: an entry here for a refusal only, so next to nothing to maintain.
-- There is no index on the times: they never go back within a user's log, so `seq` is in their order as well,
-- and a time is found by a binary search in the primary key; what an index would cost is in docs/history.md.
create index log_rejected on log (user_id, seq) where status = 'rejected';

-- The keys of the API. A key itself is never kept: it is 256 random bits, so one round of SHA-256 hides it
-- for good. Salts and slow hashes are for secrets of less than 112 bits (NIST SP 800-63B §5.1.2.2).
-- A row is never deleted: it says who had a key, and when it was last used.
create table api_key (
    id bigint generated always as identity primary key,
    name text not null check (name ~ '^[A-Za-z][A-Za-z0-9._-]{0,62}$'),
    scope text not null check (scope in ('read', 'write', 'admin')),
    key_hash bytea not null unique check (octet_length(key_hash) = 32),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at timestamptz
);

-- A name may be used again once its key is revoked.
create unique index api_key_name on api_key (name) where revoked_at is null;

-- How far each partition has come, told every few seconds by those who accept changes and those who take them from the
-- queue. Where something was accepted and nobody takes it, the partition is silent. The first two are times of requests, by
-- the clocks of the nodes that accepted them; `moved_at` is when the partition was last known to be well, by this server's.
create table partition_pulse (
    partition smallint primary key,
    accepted_until timestamptz not null default '-infinity',
    taken_until timestamptz not null default '-infinity',
    moved_at timestamptz not null
);

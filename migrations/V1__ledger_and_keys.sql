-- The first schema. Its tables are empty when their indexes are created, so nobody waits for that.
--
-- Later migrations run beside the service. Each file is one transaction. If a table is locked, it waits for at most
-- half a second, is rolled back, and is retried (src/infra/migrate.rs). So:
--   * A file changes one table. The statement that needs the strongest lock comes last: a lock stays until the end.
--   * Nothing reads or rewrites a large table under that lock. A new column has no default that is computed for each
--     row. A new constraint is `not valid`, and a later file validates it.
--   * To allow a new value in a domain, replace its check with one that is `not valid`, and leave it so: existing rows
--     satisfied the narrower check, and validation would block writes to every table that uses the domain. Add a column
--     of a new domain before the domain gets its check: otherwise PostgreSQL rewrites the table.
--   * An index on a table that has rows needs `create index concurrently`, which can't run in a transaction. Before the
--     first such file, src/infra/migrate.rs must learn to run it outside of a transaction.
--   * The previous version works with the new schema, because both run during a deploy.
--   * A released file never changes: `migrate` compares checksums.

-- What all nodes on this database have in common: one row, made by the first `migrate`. The names of the queues contain
-- the id and the epoch, so no other installation on the same broker has the same queues. The number of partitions is
-- fixed: a user's changes keep their order because the user never changes partition.
create table installation (
    is_only boolean primary key default true check (is_only),
    id text not null check (id ~ '^[a-z0-9]{1,32}$'),
    epoch integer not null default 0 check (epoch >= 0),
    partitions smallint not null check (partitions in (1, 2, 4, 8, 16, 32, 64)),
    created_at timestamptz not null default now()
);

-- The rules of single columns are domains: a session parses the checks of a domain once, but those of a table for each
-- statement. That parsing took a third of the time of writing one entry (docs/performance.md).
create domain points as bigint check (value between 0 and 9007199254740991);
create domain change as bigint check (value between -9007199254740991 and 9007199254740991);
create domain seq as bigint check (value > 0);
create domain last_seq as bigint check (value >= 0);
-- A user id is the customer's own. Collation "C" compares bytes: it is the fastest, and no update of the operating
-- system changes its order.
create domain user_id as text collate "C" check (octet_length(value) between 1 and 64);
create domain action as text check (value in ('add', 'subtract', 'reverse', 'transfer', 'hold', 'capture', 'release',
    'expire'));
create domain actor as text check (char_length(value) between 1 and 63);
create domain reject_reason as text check (value in ('insufficient_points', 'balance_limit', 'key_reused',
    'unknown_request', 'not_reversible', 'already_reversed', 'expired', 'lot_limit', 'hold_limit', 'unknown_hold',
    'hold_over', 'hold_too_small'));
create domain reason as text check (char_length(value) between 1 and 200);
create domain metadata as text check (octet_length(value) between 2 and 1024);

-- The balance of each user. `seq` is the `seq` of the user's last log entry. `format` says how to read the row: a
-- version that reads a higher one leaves the user's changes to a newer version.
-- Half-empty pages keep the update of a balance on its page (HOT), so an update writes no index entry.
-- `lots` are the points that expire: of each lot, the time in microseconds since 1970, and its points. They are in the
-- order of the times, and part of `point`. `holds` are the open holds, whose points are not part of `point`: a JSON array
-- of objects, in the order of their ends (src/domain/holds.rs). `due_at` is when the first lot expires or the first hold
-- ends. `format` is 1 if there are lots only, and 2 if there are holds.
-- With up to eight columns, those that are null take no space.
create table user_point (
    point points not null default 0,
    seq last_seq not null default 0,
    updated_at timestamptz not null default now(),
    format smallint not null default 0,
    user_id user_id primary key,
    due_at timestamptz,
    lots bigint[],
    holds text,
    check ((due_at is null) = (lots is null and holds is null)),
    check (case when holds is not null then format > 1 when lots is not null then format > 0 else true end)
) with (fillfactor = 50);

-- The users with points that expire or holds, for the job that looks for those whose time has come.
create index user_point_due on user_point (due_at, user_id) where due_at is not null;

-- Every change, applied or rejected, once and for good. `point` is what was asked for, `change` is what it did, and
-- `balance` is the user's balance after it. With `partial`, `change` may be smaller than `point`. `actor` is the name
-- of the API key that asked. `ref` is the other request that the entry refers to: for a reversal, the reversed one,
-- whose points are the reversal's `point`, and for a capture or a release, the hold. A capture's `change` is what
-- returns. `counterparty` is the other user of a transfer, whose log has an entry with the same request id and the
-- opposite change, unless the transfer was rejected. `expires_at` is when the points of an add expire, when expired
-- points did, or when a hold ends. `lots` are those of the other points that expire: what the change took from the lots
-- of `user_point`, or gave back to them, in the same form, and for a capture, those of the captured points.
-- `fingerprint` tells one requested change from another (src/domain/delta.rs). `metadata` is JSON, kept as it was sent.
-- An entry is rejected if it has a `reject_reason`. The columns of fixed length come first: that saves the bytes that
-- would align them. Every index begins with user_id, so the pages in use belong to the active users, however long the
-- log is. The log has no foreign key to user_point. The transaction that writes an entry holds the lock on the user's
-- row, so the extra lookup for each entry would never fail. If somebody removes a balance by hand, the audit finds it.
create table log (
    seq seq not null,
    point points not null,
    change change not null,
    balance points not null,
    fingerprint bigint not null,
    requested_at timestamptz not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    request_id uuid not null,
    ref uuid,
    partial boolean,
    user_id user_id not null,
    action action not null,
    actor actor,
    reject_reason reject_reason,
    reason reason,
    metadata metadata,
    lots bigint[],
    counterparty user_id check (counterparty <> user_id),
    primary key (user_id, seq),
    unique (user_id, request_id),
    check (reject_reason is null or change = 0),
    check (partial is null or (partial and action in ('subtract', 'reverse'))),
    check (case action when 'add' then true when 'expire' then expires_at is not null
        when 'hold' then expires_at is not null or reject_reason is not null else expires_at is null end),
    check (lots is null or (reject_reason is null and action not in ('add', 'expire'))),
    check (case action when 'transfer' then counterparty is not null
        else counterparty is null or action = 'reverse' end),
    check (point > 0 or (action in ('reverse', 'capture', 'release') and reject_reason is not null))
);

-- The rejected changes of a user, for pages of them. Only a rejected change has an entry here, so it costs little.
-- There is no index on the times. A user's times never go back, so `seq` has the same order, and a binary search in
-- the primary key finds a time. docs/history.md has what an index on the times would cost.
create index log_rejected on log (user_id, seq) where reject_reason is not null;

-- A change is reversed only once, and a hold is captured or released only once. The transaction that does it looks an
-- earlier entry of that kind up here. If that ever failed, this index would refuse the second one.
create unique index log_ended on log (user_id, ref)
    where action in ('reverse', 'capture', 'release') and reject_reason is null;

-- The API keys. Only the hash of a key is stored. A key is 256 random bits, so one round of SHA-256 hides it for good;
-- salts and slow hashes are for secrets of less than 112 bits (NIST SP 800-63B §5.1.2.2).
-- A row is never deleted: it records who had a key, and when the key was last used.
-- A name stands for the same actor for ever. Its first key has generation 1, and each rotation adds the next one. If
-- two sessions create or rotate a name at once, the second breaks `unique (name, generation)`.
create table api_key (
    id bigint generated always as identity primary key,
    name text not null check (name ~ '^[A-Za-z][A-Za-z0-9._-]{0,62}$'),
    generation integer not null check (generation > 0),
    scope text not null check (scope in ('read', 'write', 'admin')),
    key_hash bytea not null unique check (octet_length(key_hash) = 32),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at timestamptz,
    unique (name, generation)
);

-- How far the nodes are in each partition. Nodes that accept changes and nodes that take them from the queue write it
-- every few seconds. The first two times are those of requests, by the clocks of the nodes that accepted them. The
-- latest request that was accepted has this user and this id. `moved_at` is when the partition last moved, by the clock
-- of this server.
create table partition_pulse (
    partition smallint primary key,
    accepted_until timestamptz not null default '-infinity',
    accepted_user text,
    accepted_request uuid,
    taken_until timestamptz not null default '-infinity',
    moved_at timestamptz not null
);

-- Whether changes wait in a partition: some were accepted, no node has told that it has taken them, and the latest is
-- not decided. A worker that has decided it may have ended before it could tell. A partition is silent if changes wait
-- and no node takes them.
create view partition_silence as
    select partition, accepted_until, taken_until, moved_at, accepted_until > taken_until and not exists (
            select from log where user_id = accepted_user and request_id = accepted_request) as waits
    from partition_pulse;

-- What each process tells of itself every five seconds, for the last quarter of an hour: what it has counted since it
-- started, what it can reach, and how many messages wait in the queues. The console shows it. `oldest_at` is when the
-- oldest change that a worker holds was accepted. `kept` are the partitions whose next message the worker does not
-- understand.
create table node_beat (
    node uuid not null,
    beat_at timestamptz not null,
    started_at timestamptz not null,
    accepted bigint not null,
    applied bigint not null,
    refused bigint not null,
    oldest_at timestamptz,
    rabbitmq_since timestamptz not null,
    postgresql_since timestamptz not null,
    rabbitmq_up boolean not null,
    role text not null,
    version text not null,
    kept smallint[] not null,
    -- For each partition, the number of waiting messages; null where the broker did not answer.
    depths integer[] not null,
    primary key (beat_at, node)
);

-- What each node did per second from one beat to the next.
create view node_rate as
    select *, (accepted - lag(accepted) over beats) / seconds as accepted_s,
        (applied - lag(applied) over beats) / seconds as applied_s,
        (refused - lag(refused) over beats) / seconds as refused_s
    from (select *, extract(epoch from beat_at - lag(beat_at) over (partition by node order by beat_at))::float8
              as seconds from node_beat) as spans
    window beats as (partition by node order by beat_at);

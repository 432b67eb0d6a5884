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
create table log (
    user_id bigint not null references user_point,
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

-- How far each partition has come, told every few seconds by those who accept changes and those who take them from the
-- queue. Where something was accepted and nobody takes it, the partition is silent. The first two are times of requests, by
-- the clocks of the nodes that accepted them; `moved_at` is when the partition was last known to be well, by this server's.
create table partition_pulse (
    partition smallint primary key,
    accepted_until timestamptz not null default '-infinity',
    taken_until timestamptz not null default '-infinity',
    moved_at timestamptz not null
);

-- The refusals of a user, for a page of them: an entry here for a refusal only, so next to nothing to maintain.
-- There is no index on the times: they never go back within a user's log, so `seq` is in their order as well,
-- and a time is found by a binary search in the primary key; what an index would cost is in docs/history.md.
create index log_rejected on log (user_id, seq) where status = 'rejected';

-- The trace of a request (W3C Trace Context), if its caller sent one. Where it is null it takes no space.
alter table log add column trace_id uuid;

-- An entry is only ever written in the transaction that has its user's row locked, so the reference was looked up
-- once more for each entry and never found wanting. A balance that is removed by hand is found by the audit.
alter table log drop constraint log_user_id_fkey;

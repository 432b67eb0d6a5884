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

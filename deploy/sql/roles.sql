-- The roles of the database, each with no more privileges than it needs:
--
--   point_system_owner    owns the tables and domains: migrate, and key create, rotate and revoke
--   point_system_service  serve, work, import and dead-letters: adds entries to the log and never changes one
--   point_system_reader   audit, export, key list and migrate --check: reads everything except the hashes of keys
--
-- Run it as an administrator of a database that is only for point-system, before the first migrate and after every
-- migrate. It can run while the service is running, and any number of times:
--
--   psql --set ON_ERROR_STOP=1 --file roles.sql point_system
--
-- The roles can log in, but have no password yet. Set one for each (\password), or make logins of your own that are
-- members of a role, so that you can change a password without an interruption:
--
--   create role serve_a login in role point_system_service;
--
-- The service can't create or revoke keys, so the console's page of keys only lists them. To allow it, accept that a
-- compromised service can make keys, and run this after each run of the script:
--
--   grant insert, update (revoked_at) on api_key to point_system_service;

begin;

do $$
declare
    role text;
begin
    foreach role in array array['point_system_owner', 'point_system_service', 'point_system_reader'] loop
        if not exists (select from pg_roles where rolname = role) then
            execute format('create role %I login', role);
        end if;
    end loop;
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to point_system_owner, point_system_service, point_system_reader',
        current_database());
end $$;

revoke all on schema public from public;
grant usage on schema public to point_system_service, point_system_reader;
grant usage, create on schema public to point_system_owner;
-- With this role, migrate can name the sessions that lock a table.
grant pg_read_all_stats to point_system_owner;

revoke all on all tables in schema public from public, point_system_service, point_system_reader;

do $$
declare
    granted record;
begin
    for granted in
        select * from (values
            ('refinery_schema_history', 'select', 'select'),
            ('installation', 'select', 'select'),
            ('log', 'select, insert', 'select'),
            -- The id of a user never changes. A row without an entry in the log is deleted.
            ('user_point', 'select, insert, delete, update (point, seq, updated_at, format, due_at, lots, holds)',
                'select'),
            ('api_key', 'select, update (last_used_at)',
                'select (id, name, generation, scope, created_at, last_used_at, revoked_at)'),
            ('partition_pulse', 'select, insert, update', 'select'),
            ('partition_silence', 'select', 'select'),
            -- Locking a row requires the privilege to update a column.
            ('node_beat', 'select, insert, delete, update (kept)', 'select'),
            ('node_rate', 'select', 'select')
        ) as tables (name, service, reader)
        -- Before the first migrate there are no tables.
        where to_regclass('public.' || name) is not null
    loop
        execute format('alter table public.%I owner to point_system_owner', granted.name);
        execute format('grant %s on public.%I to point_system_service', granted.service, granted.name);
        execute format('grant %s on public.%I to point_system_reader', granted.reader, granted.name);
    end loop;
    for granted in select typname from pg_type where typnamespace = 'public'::regnamespace and typtype = 'd' loop
        execute format('alter domain public.%I owner to point_system_owner', granted.typname);
    end loop;
end $$;

commit;

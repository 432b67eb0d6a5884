//! Random damage: statements that the service never sends, for a database without constraints.

use fastrand::Rng;

/// The number of users that may be damaged.
const USERS: i64 = 12;

/// The most entries of a user.
const ENTRIES: i64 = 55;

/// Drops the constraints with their indexes, the unique index, and the not-null rules of all columns except the ids.
pub const DROP_CONSTRAINTS: &str = "drop index log_ended; do $$
    declare found record;
    begin
        for found in select conrelid::regclass as owner, conname from pg_constraint
            where conrelid in ('log'::regclass, 'user_point'::regclass)
        loop
            execute format('alter table %s drop constraint %I', found.owner, found.conname);
        end loop;
        for found in select contypid::regtype as owner, conname from pg_constraint
            where contypid <> 0 and connamespace = 'public'::regnamespace loop
            execute format('alter domain %s drop constraint %I', found.owner, found.conname);
        end loop;
        for found in select attrelid::regclass as owner, attname from pg_attribute
            where attrelid in ('log'::regclass, 'user_point'::regclass) and attnum > 0 and attnotnull
                and attname not in ('user_id', 'request_id') and (attrelid, attname) <> ('log'::regclass, 'seq')
        loop
            execute format('alter table %s alter %I drop not null', found.owner, found.attname);
        end loop;
    end $$";

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// An amount that a careless comparison or a weak hash may take for zero.
fn amount(rng: &mut Rng) -> i64 {
    let sign = if rng.bool() { 1 } else { -1 };
    sign * match rng.u8(..5) {
        0 => 1,
        1 => rng.i64(1..10),
        2 => 1 << rng.u32(0..53),
        3 => rng.i64(1..1 << 20) << 32,
        _ => rng.i64(1..1 << 53),
    }
}

fn number(rng: &mut Rng, column: &str) -> String {
    match rng.u8(..8) {
        0 => pick(rng, &["0", "-1", "1", "9007199254740992", "9223372036854775807", "-9223372036854775808"])
            .to_owned(),
        1 => amount(rng).to_string(),
        // A number that may be too large for its column wraps around.
        _ => {
            let sum = format!("{column}::numeric + {}", amount(rng));
            format!("(mod({sum} + 27670116110564327424, 18446744073709551616) - 9223372036854775808)::bigint")
        }
    }
}

fn moved(rng: &mut Rng, column: &str) -> String {
    match rng.u8(..8) {
        0 => pick(rng, &["'infinity'", "'-infinity'", "'12000-01-01Z'", "'0100-01-01Z'", "null"]).to_owned(),
        1..=3 => format!("{column} + interval '{} microseconds'", pick(rng, &["1", "-1", "400", "-400"])),
        _ => format!("{column} + interval '{} seconds'", pick(rng, &["1", "-1", "100000", "-100000"])),
    }
}

const ACTIONS: [&str; 12] = [
    "'add'",
    "'subtract'",
    "'reverse'",
    "'transfer'",
    "'expire'",
    "'hold'",
    "'capture'",
    "'release'",
    "'Add'",
    "''",
    "'grant'",
    "null",
];

const REASONS: [&str; 15] = [
    "'insufficient_points'",
    "'balance_limit'",
    "'key_reused'",
    "'unknown_request'",
    "'not_reversible'",
    "'already_reversed'",
    "'expired'",
    "'lot_limit'",
    "'hold_limit'",
    "'unknown_hold'",
    "'hold_over'",
    "'hold_too_small'",
    "'because'",
    "''",
    "null",
];

/// A new value for a column of the log.
fn value(rng: &mut Rng, column: &str) -> String {
    match column {
        "action" => pick(rng, &ACTIONS).to_owned(),
        "actor" => {
            pick(rng, &["'shop'", "'system:expiry'", "''", "repeat('é', 32)", "repeat('a', 63)", "null"])
                .to_owned()
        }
        "metadata" => pick(rng, &["'{}'", "''", "repeat('é', 512)", "repeat('é', 513)", "null"]).to_owned(),
        "partial" => pick(rng, &["true", "false", "null"]).to_owned(),
        "ref" => match rng.u8(..3) {
            0 => pick(rng, &["request_id", "null"]).to_owned(),
            _ => format!(
                "(select request_id from log as other where other.user_id = log.user_id and seq = {} limit 1)",
                rng.i64(1..=ENTRIES)
            ),
        },
        "fingerprint" => pick(rng, &["fingerprint", "1", "null"]).to_owned(),
        "reject_reason" => pick(rng, &REASONS).to_owned(),
        "reason" => pick(rng, &["''", "repeat('é', 201)", "E'a\\u0085b'", "E'a\\tb'", "'é'"]).to_owned(),
        "requested_at" | "created_at" => moved(rng, column),
        "expires_at" => match rng.u8(..3) {
            0 => pick(rng, &["null", "created_at", "now()", "'infinity'"]).to_owned(),
            _ => moved(rng, column),
        },
        "counterparty" => {
            pick(rng, &["null", "user_id", "'1'", "'2'", "'99'", "''", "(user_id::int + 1)::text"]).to_owned()
        }
        "lots" => lots(rng),
        "user_id" => {
            pick(rng, &["''", "'é'", "'a b'", "'99'", "'1'", "'2'", "repeat('a', 65)", "E'1\\n'"]).to_owned()
        }
        "request_id" => {
            format!("(select request_id from log where user_id = '{}' limit 1)", rng.i64(1..=USERS))
        }
        column => number(rng, column),
    }
}

/// A new value for lots: often those of another entry.
fn lots(rng: &mut Rng) -> String {
    let values = [
        "null",
        "'{}'",
        "'{1}'",
        "'{1,0}'",
        "'{5,1,5,1}'",
        "'{5,1,4,1}'",
        "'{5,null}'",
        "'{{5,1}}'",
        "'{5,9223372036854775807,6,1}'",
        "'{9223372036854775807,1}'",
        "'{4070901600000000,1}'",
        "'{4070908800000000,7}'",
        "lots || lots",
        "array[lots[1], lots[2] + 1]",
        "array[lots[1] + 1, lots[2]]",
    ];
    match rng.u8(..4) {
        0 => format!(
            "(select lots from log as other where user_id = '{}' and seq = {} limit 1)",
            rng.i64(1..=USERS),
            rng.i64(22..=ENTRIES)
        ),
        _ => pick(rng, &values).to_owned(),
    }
}

/// A new value for the holds of a row: often with another number somewhere.
fn holds(rng: &mut Rng) -> String {
    let values = [
        "null",
        "'[]'",
        "'{'",
        "replace(holds, '\"point\":6', '\"point\":5')",
        "replace(holds, '\"expires_at\":40709', '\"expires_at\":40708')",
        "regexp_replace(holds, ',\"lots\":[^]]*]', '')",
        "regexp_replace(holds, '\"lots\":.([0-9]+),2', '\"lots\":[\\1,1')",
        "replace(holds, 'request\":\"', 'request\":\"0')",
        "substr(holds, 2)",
        "replace(holds, '}]', '},' || substr(holds, 2))",
    ];
    match rng.u8(..4) {
        0 => format!("(select holds from user_point where user_id = '{}' limit 1)", rng.i64(1..=USERS)),
        _ => pick(rng, &values).to_owned(),
    }
}

const COLUMNS: [&str; 18] = [
    "user_id",
    "seq",
    "request_id",
    "action",
    "point",
    "partial",
    "change",
    "actor",
    "ref",
    "fingerprint",
    "metadata",
    "reject_reason",
    "reason",
    "balance",
    "created_at",
    "expires_at",
    "lots",
    "counterparty",
];

fn entry(rng: &mut Rng) -> String {
    format!("user_id = '{}' and seq = {}", rng.i64(1..=USERS), rng.i64(1..=ENTRIES))
}

/// Swaps a column of two entries, of one user or of different users.
fn swap(rng: &mut Rng, user: i64, at: &str) -> String {
    let column = pick(rng, &COLUMNS);
    let of = if rng.bool() {
        entry(rng)
    } else {
        format!("user_id = '{user}' and seq = {}", rng.i64(1..=ENTRIES))
    };
    format!(
        "with pair as (select ctid as place, {column} as old,
                     lead({column}) over w as next, lag({column}) over w as last
                     from log where {at} or {of} window w as (order by ctid))
                 update log set {column} = coalesce(next, last, old) from pair where log.ctid = place"
    )
}

/// A statement that may damage something.
pub fn statement(rng: &mut Rng) -> String {
    let (user, at) = (rng.i64(1..=USERS), entry(rng));
    let later = format!("user_id = '{user}' and seq >= {}", rng.i64(1..=ENTRIES));
    match rng.u8(..13) {
        0 | 1 => {
            let column = pick(rng, &COLUMNS);
            format!("update log set {column} = {} where {at}", value(rng, column))
        }
        2 => format!("update log set requested_at = {} where {at}", moved(rng, "requested_at")),
        3 => {
            let column = pick(rng, &["point", "change", "balance", "seq", "created_at", "action"]);
            format!("update log set {column} = {} where {later}", value(rng, column))
        }
        4 => {
            let column = pick(rng, &["point", "seq", "format", "lots", "due_at", "holds"]);
            let new = match column {
                "format" => pick(rng, &["null", "0", "1", "3"]).to_owned(),
                "lots" => lots(rng),
                "due_at" => moved(rng, column),
                "holds" => holds(rng),
                column => number(rng, column),
            };
            format!("update user_point set {column} = {new} where user_id = '{user}'")
        }
        5 => {
            format!(
                "update user_point set updated_at = {} where user_id = '{user}'",
                moved(rng, "updated_at")
            )
        }
        6 => swap(rng, user, &at),
        7 => {
            let by = amount(rng);
            format!(
                "update log set balance = balance + {by} where user_id = '{user}';
                 update user_point set point = point + {by} where user_id = '{user}'"
            )
        }
        8 => format!(
            "delete from {}",
            pick(
                rng,
                &[
                    &format!("log where {at}"),
                    &format!("log where {later}"),
                    &format!("user_point where user_id = '{user}'")
                ]
            )
        ),
        9 => {
            let table = pick(rng, &["log", "user_point"]);
            let rows = if table == "log" { at } else { format!("user_id = '{user}'") };
            format!("insert into {table} select * from {table} where {rows}")
        }
        10 => format!(
            "update log set seq = seq + {by} where {later};
             update user_point set seq = seq + {by} where user_id = '{user}'",
            by = rng.i64(-2..=2)
        ),
        11 => format!(
            "insert into user_point (user_id, point, seq) values ({}, {}, {})",
            pick(rng, &["'98'", "'97'", "'é'", "''"]),
            rng.i64(0..2),
            rng.i64(0..2)
        ),
        // The row moves to the end of the table, which is no damage.
        _ => format!("update log set reason = 'another' where {later}"),
    }
}

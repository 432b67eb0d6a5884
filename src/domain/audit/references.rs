//! Checks that each reversal, capture and release is about an earlier entry of its user, as its outcome says. It looks
//! that entry up, and so it reads only these. Must not contain what an entry says by itself.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::{AuditError, Finding};
use crate::infra::postgres::Client;

/// The condition that the user has an entry before the one in `log`, which is `o` in the condition.
macro_rules! earlier {
    ($condition:literal) => {
        concat!(
            "exists (select from log o where o.user_id = log.user_id and o.seq < log.seq and ",
            $condition,
            ")"
        )
    };
}

/// What is expected of the `ref` of an entry in `log`, or null if nothing is wrong with it. Numbers that overflow when
/// they are negated are compared as `numeric`.
macro_rules! broken_reference {
    () => {
        concat!(
            "case when action = 'reverse' and ref is not null then case \
                 when reject_reason is null or reject_reason in ('insufficient_points', 'balance_limit') then case \
                     when not ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and o.reject_reason is null and case o.action \
                     when 'capture' then o.point = log.point \
                     else o.action in ('add', 'subtract', 'transfer') and abs(o.change::numeric) = log.point end \
                 and o.counterparty is not distinct from log.counterparty \
                 and case log.reject_reason \
                     when 'insufficient_points' then case o.action when 'transfer' then o.change < 0 \
                         else o.action <> 'capture' and o.change > 0 end \
                     when 'balance_limit' then o.action = 'capture' or o.change < 0 \
                     else (o.action = 'capture' or o.change < 0) = (log.change > 0) end"
            ),
            " then 'an earlier change that this undoes' when ",
            $crate::domain::audit::references::earlier!(
                "o.ref = log.ref and o.action = 'reverse' and o.reject_reason is null"
            ),
            " then 'a change that was not reversed before' end \
                 when reject_reason = 'unknown_request' then case when ",
            $crate::domain::audit::references::earlier!("o.request_id = log.ref"),
            " then 'a request without an earlier entry' end \
                 when reject_reason = 'not_reversible' then case when not ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and (o.reject_reason is not null or o.action not in ('add', 'subtract', 'transfer', 'capture') \
                     or o.action = 'transfer' and o.change > 0) \
                 and abs(o.change::numeric) = log.point"
            ),
            " then 'an earlier entry that cannot be reversed' end \
                 when reject_reason = 'already_reversed' then case when not ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and o.action = 'reverse' and o.reject_reason is null \
                 and o.point = log.point"
            ),
            " then 'an earlier reversal' end end \
             when action in ('capture', 'release') and ref is not null then case \
                 when reject_reason is null or reject_reason = 'hold_too_small' then case when not ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and o.action = 'hold' and o.reject_reason is null \
                 and (log.reject_reason is null or o.point < log.point) \
                 and (o.expires_at <= log.created_at) \
                     = (log.action = 'release' and log.actor is not distinct from 'system:expiry')"
            ),
            " then 'a hold that was open' when ",
            $crate::domain::audit::references::earlier!(
                "o.ref = log.ref and o.action in ('capture', 'release') and o.reject_reason is null"
            ),
            " then 'a hold that had not ended before' end \
                 when reject_reason = 'unknown_hold' then case when ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and o.action = 'hold' and o.reject_reason is null"
            ),
            " then 'a request without an earlier hold' end \
                 when reject_reason = 'hold_over' then case when not ",
            $crate::domain::audit::references::earlier!(
                "o.request_id = log.ref and o.action in ('capture', 'release') and o.reject_reason is null \
                 and (log.action = 'capture' \
                     or o.point::numeric + case o.action when 'capture' then o.change else 0 end = log.point)"
            ),
            " then 'what ended a hold before' end end end"
        )
    };
}

/// Whether the entry in `log` is one of two entries of a transfer, or of its reversal, without the other one.
macro_rules! is_unmatched {
    () => {
        "(counterparty is not null and reject_reason is null and not exists (select from log o \
             where o.user_id = log.counterparty and o.counterparty = log.user_id and o.request_id = log.request_id \
                 and o.action = log.action and o.reject_reason is null and o.point = log.point \
                 and o.change::numeric = -log.change::numeric and o.ref is not distinct from log.ref \
                 and o.lots is not distinct from log.lots))"
    };
}
pub(super) use {broken_reference, earlier, is_unmatched};

const BROKEN: &str = concat!(
    "select seq, 'ref' as \"column\", found, expected from (select seq, ref::text as found, ",
    broken_reference!(),
    " as expected from log where user_id = $1 and ref is not null) as entry where expected is not null \
     union all select seq, 'counterparty', counterparty, 'another user with such an entry of the same request' \
     from log where user_id = $1 and ",
    is_unmatched!(),
    " order by 1, 2 desc"
);

/// Reports the references of a user's entries that are wrong.
pub(super) async fn user(
    client: &Client,
    user_id: &str,
    find: &mut impl FnMut(Finding),
) -> Result<(), AuditError> {
    let parameters: [&(dyn ToSql + Sync); 1] = [&user_id];
    let mut broken = pin!(client.query_raw(BROKEN, parameters).await?);
    while let Some(row) = broken.try_next().await? {
        find(Finding {
            user_id: user_id.to_owned(),
            seq: row.try_get("seq")?,
            column: if row.try_get::<_, &str>("column")? == "ref" { "ref" } else { "counterparty" },
            expected: row.try_get("expected")?,
            found: row.try_get("found")?,
        });
    }
    Ok(())
}

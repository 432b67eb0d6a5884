//! The rule in SQL that an entry must not break by itself. Must not contain a statement.

/// The change of an entry, or null if the entry breaks a rule by itself, whatever comes before it. The client checks the
/// balance and the time, which it gets anyway. It also searches the reasons for control characters, all reasons of a part
/// at once: a pattern match per entry costs as much as all the other rules. Whether a balance and its holds would exceed
/// the limit is another question: see [`DOUBTFUL`](super). A reason longer than 200 characters of four bytes is broken
/// anyway.
macro_rules! change {
    () => {
        "case when (point between 1 and 9007199254740991 \
                 or point = 0 and action in ('reverse', 'capture', 'release') and reject_reason is not null) \
             and requested_at > '-infinity' and requested_at < '9999-12-30T22:00:01Z' \
             and (reason is null or octet_length(reason) between 1 and 200 \
                 or char_length(reason) between 1 and 200) \
             and (actor is null or octet_length(actor) between 1 and 63) \
             and (metadata is null or octet_length(metadata) between 2 and 1024) \
             and fingerprint is not null \
             and case action when 'add' then counterparty is null when 'subtract' then counterparty is null \
                 when 'transfer' then counterparty is not null when 'reverse' then true \
                 when 'hold' then counterparty is null when 'capture' then counterparty is null \
                 when 'release' then counterparty is null when 'expire' then counterparty is null end \
         then case when case \
             when reject_reason is null then case action \
                 when 'add' then ref is null and partial is null and change = point \
                 when 'subtract' then ref is null and case when partial is null then change = -point \
                     else partial and (change = -point or balance = 0 and change between -point and -1) end \
                 when 'expire' then ref is null and partial is null and change = -point and expires_at is not null \
                 when 'hold' then ref is null and partial is null and change = -point and expires_at is not null \
                 when 'capture' then ref is not null and partial is null \
                     and change between 0 and 9007199254740991 \
                 when 'release' then ref is not null and partial is null and change = point \
                 when 'transfer' then ref is null and partial is null and change in (point, -point) \
                 when 'reverse' then ref is not null and case when partial is null then change in (point, -point) \
                     else partial and (change in (point, -point) \
                         or balance = 0 and change between -point and -1 \
                         or counterparty is not null and change between 1 and point) end end \
             when change <> 0 or not partial then false \
             when reject_reason = 'key_reused' then ref is not null and case action \
                 when 'subtract' then true when 'reverse' then point = 0 \
                 when 'release' then partial is null and point = 0 else partial is null end \
             when action = 'add' then ref is null and partial is null and case reject_reason \
                 when 'balance_limit' then true \
                 when 'expired' then expires_at <= created_at \
                 when 'lot_limit' then expires_at is not null end \
             when action = 'hold' then ref is null and partial is null and case reject_reason \
                 when 'insufficient_points' then balance < point \
                 when 'expired' then expires_at <= created_at \
                 when 'hold_limit' then true end \
             when action in ('capture', 'release') then ref is not null and partial is null and case reject_reason \
                 when 'unknown_hold' then action = 'capture' or point = 0 \
                 when 'hold_over' then true \
                 when 'hold_too_small' then action = 'capture' end \
             when action = 'subtract' then ref is null \
                 and reject_reason = 'insufficient_points' and balance < point and (partial is null or balance = 0) \
             when action = 'transfer' then ref is null and partial is null and case reject_reason \
                 when 'insufficient_points' then balance < point when 'balance_limit' then true \
                 when 'lot_limit' then true end \
             when action = 'reverse' then ref is not null and case reject_reason \
                 when 'insufficient_points' \
                     then counterparty is not null or balance < point and (partial is null or balance = 0) \
                 when 'balance_limit' then true \
                 when 'lot_limit' then true \
                 when 'unknown_request' then point = 0 \
                 when 'not_reversible' then true \
                 when 'already_reversed' then true end \
         end then change end end"
    };
}
pub(super) use change;

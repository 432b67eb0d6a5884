//! The catalogue of problems: what each kind means, and what to do about it. Must not contain handlers.

use actix_web::http::StatusCode;

/// Makes the catalogue of one row per kind: status, last part of the `type`, title, meaning, advice.
macro_rules! catalogue {
    ($($kind:ident($status:ident, $slug:literal, $title:literal) { $meaning:literal $advice:literal })*) => {
        /// A kind of problem. Responses, pages and the API's description take their words from here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($kind),* }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];

            pub(super) fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row {
                        status: StatusCode::$status,
                        slug: $slug,
                        title: $title,
                        meaning: $meaning,
                        advice: $advice,
                    }),*
                }
            }
        }
    };
}

/// The facts about a kind.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) status: StatusCode,
    /// The last part of the `type`. It never changes, because clients compare it.
    pub(super) slug: &'static str,
    pub(super) title: &'static str,
    pub(super) meaning: &'static str,
    pub(super) advice: &'static str,
}

impl Row {
    /// The `type` of RFC 9457 §3.1.1: the path of the page that explains it.
    pub(super) fn path(self) -> String {
        format!("/problems/{}", self.slug)
    }
}

impl Kind {
    pub(super) fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.row().slug == slug)
    }
}

catalogue! {
    NotFound(NOT_FOUND, "not-found", "Not found") {
        "There is nothing at this path."
        "Compare the path with the API's description at /docs. Paths are case-sensitive and have no trailing slash."
    }
    MethodNotAllowed(METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed") {
        "The path exists, but it does not take this method."
        "Use one of the methods that the response's Allow header lists."
    }
    UnsupportedMediaType(UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type") {
        "The Content-Type is not JSON."
        "Send the header Content-Type: application/json, once."
    }
    BodyTooLarge(PAYLOAD_TOO_LARGE, "body-too-large", "Body too large") {
        "The body is longer than this path allows; the detail names the limit."
        "Send a smaller body. A batch has at most 1,000 operations, and a reason has at most 200 characters."
    }
    BodyTimeout(REQUEST_TIMEOUT, "body-timeout", "Body timeout") {
        "The body did not arrive in time. Nothing was done."
        "Send the request again on a new connection. If this happens often, check the network and the proxies."
    }
    EmptyBody(BAD_REQUEST, "empty-body", "Empty body") {
        "The request has no body. This path needs a JSON object."
        "Send the change as a JSON object, such as {\"user_id\":\"1\",\"point\":1000}."
    }
    MalformedBody(BAD_REQUEST, "malformed-body", "Malformed body") {
        "The body is not a single well-formed JSON object, or a field appears in it twice."
        "Build the body with a JSON library, not by hand. The detail says what is wrong, and where."
    }
    InvalidField(BAD_REQUEST, "invalid-field", "Invalid field") {
        "A field, parameter or header is missing, unknown or invalid. Nothing was done."
        "The member field names the one at fault, and the detail states its rule. Correct it, then send the request again."
    }
    UnknownUser(NOT_FOUND, "unknown-user", "Unknown user") {
        "This user has no log entries, so there is no balance."
        "Check the id. The first log entry creates a user; right after a 202 that may take a moment."
    }
    KeyReused(UNPROCESSABLE_ENTITY, "key-reused", "Idempotency key reused") {
        "The Idempotency-Key was already used for another change of this user. This change was not applied; of a batch, \
         nothing was queued."
        "Use a new key for each new change. To repeat a request, send it unchanged with the same key."
    }
    InsufficientPoints(CONFLICT, "insufficient-points", "Insufficient points") {
        "The user has fewer points than the request would subtract, transfer or hold. To reverse a transfer, the points \
         come from the user who received them. The log of the request's user_id has the rejection. The balance is \
         unchanged; the member balance states it."
        "Take at most the balance, send \"partial\": true to accept a smaller amount, or add points first. Use a new \
         Idempotency-Key: a rejected key stays rejected."
    }
    BalanceLimit(CONFLICT, "balance-limit", "Balance limit") {
        "The balance would exceed 9007199254740991 (2^53 − 1), the largest whole number that every JSON client reads \
         exactly. For a transfer, that is the balance of the user who receives the points. The log of the request's \
         user_id has the rejection. The balance is unchanged."
        "Add fewer points, with a new Idempotency-Key: a rejected key stays rejected."
    }
    UnknownRequest(CONFLICT, "unknown-request", "Unknown request") {
        "The user has no log entry of the request to reverse. The member ref names the request. The user's log has the \
         rejection."
        "Check the user and the request id. A change that is still in the queue is decided before a reversal that is queued \
         after it, but not before one with Prefer: wait. Use a new Idempotency-Key: a rejected key stays rejected."
    }
    NotReversible(CONFLICT, "not-reversible", "Not reversible") {
        "The request to reverse, which the member ref names, changed nothing because it was rejected, or it is \
         itself a reversal, a hold or a release, or a transfer that this user received. The user's log has the rejection."
        "Reverse the request of an applied add, subtract or capture, or of a transfer as the user who sent the points. \
         Release a hold instead. To undo a reversal, make the change again."
    }
    AlreadyReversed(CONFLICT, "already-reversed", "Already reversed") {
        "The request was reversed before, and a change is reversed only once. The member ref names the first reversal. The \
         user's log has the rejection, and the balance is unchanged."
        "Read the first reversal, which has undone the change. If you send a reversal again because its response was \
         lost, send it with the same Idempotency-Key: you then get the original response."
    }
    Expired(CONFLICT, "expired", "Expired") {
        "The change waited in the queue until its expires_at had passed. The user's log has the rejection, and the \
         balance is unchanged."
        "Add or hold the points with a later expires_at, and with a new Idempotency-Key: a rejected key stays rejected. \
         With Prefer: wait, a change does not wait in the queue."
    }
    LotLimit(CONFLICT, "lot-limit", "Lot limit") {
        "The user would have points that expire at more than 100 different times. Points that expire at the same time count \
         once. The user's log has the rejection, and the balance is unchanged."
        "Let points expire together, for example at the end of the month, and send the change with a new Idempotency-Key. The \
         balance says what expires next."
    }
    HoldLimit(CONFLICT, "hold-limit", "Hold limit") {
        "The user has 100 open holds, and can't have more. The user's log has the rejection, and the balance is unchanged."
        "Capture or release holds that are no longer needed, or give holds an earlier expires_at. GET /v1/point/holds lists them. Use a \
         new Idempotency-Key: a rejected key stays rejected."
    }
    UnknownHold(CONFLICT, "unknown-hold", "Unknown hold") {
        "The user has no applied hold with this request id, which the member ref names. The user's log has the rejection."
        "Check the user and the request id of the hold. A hold that is still in the queue is decided before a capture that is \
         queued after it, but not before one with Prefer: wait. Use a new Idempotency-Key: a rejected key stays rejected."
    }
    HoldOver(CONFLICT, "hold-over", "Hold over") {
        "The hold was captured or released before, or its time had come. The detail says which, and the member ref names the \
         request that ended it. The user's log has the rejection, and the balance is unchanged."
        "Read the first capture or release. If you send a capture again because its response was lost, send it with the same \
         Idempotency-Key: you then get the original response. If the hold's time had come, subtract the points instead."
    }
    HoldTooSmall(CONFLICT, "hold-too-small", "Hold too small") {
        "The hold has fewer points than are to be captured. The member ref names the hold, which stays open. The user's log has \
         the rejection."
        "Capture at most the points of the hold, with a new Idempotency-Key: a rejected key stays rejected. Subtract what \
         is missing."
    }
    Rejected(CONFLICT, "rejected", "Rejected") {
        "A newer version of the service rejected the change, for a reason that this version does not know."
        "The detail names the reason. A rejection is final: send a new change, with a new Idempotency-Key, once the reason \
         no longer applies."
    }
    QueueUnavailable(SERVICE_UNAVAILABLE, "queue-unavailable", "Queue unavailable") {
        "The queue can't be reached, or did not confirm the change in time. The change may be queued. The member \
         request_id names it; a batch has operations instead."
        "Wait for the time in Retry-After, then send the same request with the same Idempotency-Key: it counts once. \
         Without a key, ask for the outcome at the response's Location before you send another request. A change that was \
         never queued stays pending."
    }
    UserBlocked(SERVICE_UNAVAILABLE, "user-blocked", "User blocked") {
        "The database is up, but it can't serve this user now: another session has locked the user's row, or a row of \
         the user is damaged. Other users are served. A change with Prefer: wait may be applied: an earlier attempt may \
         have ended without an answer."
        "Wait for the time in Retry-After, then ask for the outcome at the Location, or send the same request with the \
         same Idempotency-Key: it counts once. The operator can find the session that holds the lock in \
         pg_stat_activity, and damage with `point-system audit`."
    }
    DatabaseUnavailable(SERVICE_UNAVAILABLE, "database-unavailable", "Database unavailable") {
        "The database can't be reached. A change with Prefer: wait may be applied; the member request_id names it."
        "Wait for the time in Retry-After, then send the same request with the same Idempotency-Key: it counts once. \
         Without a key, ask for the outcome at the response's Location before you send another request. Changes without \
         Prefer: wait do not need the database."
    }
    NewerVersion(SERVICE_UNAVAILABLE, "newer-version", "Newer version required") {
        "A newer version of the service wrote data of this user that this node does not understand. Other users are \
         served. A change with Prefer: wait may be applied: an earlier attempt may have ended without an answer."
        "Wait for the time in Retry-After, then send the same request with the same Idempotency-Key: it counts once, and a \
         newer node may serve it. Changes without Prefer: wait do not need a newer node, only a newer worker."
    }
    Overloaded(SERVICE_UNAVAILABLE, "overloaded", "Overloaded") {
        "Too many requests are waiting, so this one was rejected. Nothing was queued and nothing was changed."
        "Wait for the time in Retry-After, then send the request again. Send fewer requests at a time while this lasts."
    }
    Refused(INTERNAL_SERVER_ERROR, "refused", "Refused by the database") {
        "The database permanently refuses this change, which should not happen to a valid request. Nothing was applied."
        "Do not send the request again. Tell the operator when it happened: the log of the service says why."
    }
    Unauthorized(UNAUTHORIZED, "unauthorized", "Unauthorized") {
        "The service requires an API key. The request has none, or its key is unknown or revoked. Nothing was done."
        "Send the header Authorization: Bearer KEY. The operator creates a key with point-system key create."
    }
    InsufficientScope(FORBIDDEN, "insufficient-scope", "Insufficient scope") {
        "The API key lacks the required scope; the detail names it. Nothing was done."
        "Use a key that has the scope. A key with the scope read can't make changes."
    }
    LoopbackOnly(FORBIDDEN, "loopback-only", "Loopback only") {
        "Without an API key, the service serves only clients on its own machine. This request names another host, comes \
         from a web page of another site, or came through a proxy; the member field names the header that shows it. \
         Nothing was done."
        "To serve other clients, create a key: point-system key create --name NAME --scope write. Then send the header \
         Authorization: Bearer KEY. On the machine itself, call localhost or 127.0.0.1 without a proxy."
    }
    RateLimited(TOO_MANY_REQUESTS, "rate-limited", "Too many requests") {
        "This API key, or this address without one, has reached its rate limit. Nothing was done."
        "Wait for the time in Retry-After. The headers RateLimit and RateLimit-Policy of each answer to an identified \
         caller say how many requests are left."
    }
    NotReady(SERVICE_UNAVAILABLE, "not-ready", "Not ready") {
        "This node can't do its work: it is starting or stopping, or a dependency is down. The members say which."
        "Send requests to another node until this one is ready. A restart does not bring the dependency back."
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;
    use crate::{
        domain::{LOTS_MAX, POINTS_MAX, REASON_MAX_CHARS},
        http::batch::OPERATIONS_MAX,
    };

    #[test]
    fn the_limits_in_the_words_are_those_of_the_code() {
        let advice = Kind::BodyTooLarge.row().advice.replace(',', "");
        for limit in [OPERATIONS_MAX, REASON_MAX_CHARS] {
            assert!(advice.contains(&format!("at most {limit} ")), "{advice}");
        }
        assert!(Kind::LotLimit.row().meaning.contains(&format!("more than {LOTS_MAX} ")));
        let words = [Kind::BalanceLimit.row().meaning, &Kind::BalanceLimit.example().to_string()];
        assert!(words.iter().all(|words| words.contains(&POINTS_MAX.to_string())), "{words:?}");
    }
}

//! The catalogue of problems: what each kind means, and what to do about it. No request may enter.

use actix_web::http::StatusCode;

/// Every kind once: status, the last part of the `type`, title, what it means, what to do.
macro_rules! catalogue {
    ($($kind:ident($status:ident, $slug:literal, $title:literal) { $meaning:literal $advice:literal })*) => {
        /// A kind of problem. What a response, a page and the API's description say of it comes from here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($kind),* }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];

            pub(super) fn about(self) -> About {
                match self {
                    $(Self::$kind => About {
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

/// What there is to say about a kind.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) status: StatusCode,
    /// The last part of the `type`. It never changes: clients compare it.
    pub(super) slug: &'static str,
    pub(super) title: &'static str,
    pub(super) meaning: &'static str,
    pub(super) advice: &'static str,
}

impl About {
    /// The `type` of RFC 9457 §3.1.1: the path of the page that explains it.
    pub(super) fn path(self) -> String {
        format!("/problems/{}", self.slug)
    }
}

impl Kind {
    pub(super) fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.about().slug == slug)
    }
}

catalogue! {
    NotFound(NOT_FOUND, "not-found", "Not found") {
        "There is nothing at this path."
        "Compare the path with the API's description at /docs. Paths are case-sensitive and end without a slash."
    }
    MethodNotAllowed(METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed") {
        "The path exists, but it does not take this method."
        "Use one of the methods that the response's Allow header names."
    }
    UnsupportedMediaType(UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type") {
        "The body is not announced as JSON."
        "Send the header Content-Type: application/json, once."
    }
    BodyTooLarge(PAYLOAD_TOO_LARGE, "body-too-large", "Body too large") {
        "The body is longer than this path takes; the detail says how long it may be."
        "Send a smaller body. A change needs two numbers and, at most, 200 characters of reason."
    }
    BodyTimeout(REQUEST_TIMEOUT, "body-timeout", "Body timeout") {
        "The head of the request came, but its body did not arrive in time. Nothing was done."
        "Send it again on a new connection. If it happens often, look at the network and the proxies between."
    }
    EmptyBody(BAD_REQUEST, "empty-body", "Empty body") {
        "The request has no body, where a JSON object was expected."
        "Send the change as a JSON object, such as {\"user_id\":1,\"point\":1000}."
    }
    MalformedBody(BAD_REQUEST, "malformed-body", "Malformed body") {
        "The body is not one well-formed JSON object, or it names a field twice."
        "Build the body with a JSON library rather than by hand; the detail says where reading it failed."
    }
    InvalidField(BAD_REQUEST, "invalid-field", "Invalid field") {
        "A field, a parameter or a header is missing, is unknown, or breaks its rule. Nothing was done."
        "The member field names the one at fault and the detail its rule. Correct it; the same request \
         is refused again."
    }
    UnknownUser(NOT_FOUND, "unknown-user", "Unknown user") {
        "No points were ever added to or subtracted from this user, so there is no balance to show."
        "Check the id. A user comes into being with the first change that is applied: right after a 202 that may \
         take a moment."
    }
    KeyReused(UNPROCESSABLE_ENTITY, "key-reused", "Idempotency key reused") {
        "This user's Idempotency-Key stands for another change, which was decided before. This one was not applied."
        "Use a key for one change only, and a new one for each new change. To repeat a request, send it unaltered."
    }
    InsufficientPoints(CONFLICT, "insufficient-points", "Insufficient points") {
        "The user has fewer points than the request would subtract. The refusal is in the user's log, and the \
         balance is as it was: the member balance says what it is."
        "Subtract no more than that, or add points first. Then use a new Idempotency-Key: a refused key stays refused."
    }
    BalanceLimit(CONFLICT, "balance-limit", "Balance limit") {
        "The balance would pass 9007199254740991 (2^53 − 1), the largest whole number that every JSON client reads \
         exactly. The refusal is in the user's log, and the balance is as it was."
        "Add fewer points, with a new Idempotency-Key: a refused key stays refused."
    }
    QueueUnavailable(SERVICE_UNAVAILABLE, "queue-unavailable", "Queue unavailable") {
        "The queue can't be reached, or did not confirm the change in time. The change may or may not be in it; the \
         members request_id, or operations for a batch, name it."
        "Wait as long as Retry-After says, then send the same request with the same Idempotency-Key: it counts once. \
         Without a key, ask at the response's Location what became of the change before you send another: it stays \
         pending where it was never queued."
    }
    UserBlocked(SERVICE_UNAVAILABLE, "user-blocked", "User blocked") {
        "The database is up, but nothing can be done for this user now: another session has the user's row locked, or a \
         row of the user was damaged by hand. Other users are served. A change that was waited for is not known to be \
         applied: a try before may have ended without an answer."
        "Wait as long as Retry-After says, then ask for the outcome at the Location, or send the same request again with \
         the same Idempotency-Key: it counts once. The operator finds the session that holds \
         the lock in pg_stat_activity, and damage with `point-system audit`."
    }
    DatabaseUnavailable(SERVICE_UNAVAILABLE, "database-unavailable", "Database unavailable") {
        "The database can't be reached. A change that was waited for may or may not be applied; the member \
         request_id names it."
        "Wait as long as Retry-After says, then send the same request with the same Idempotency-Key: it counts once. \
         Without a key, ask at the response's Location what became of the change before you send another. \
         Changes that are queued, without Prefer: wait, need no database."
    }
    Overloaded(SERVICE_UNAVAILABLE, "overloaded", "Overloaded") {
        "More requests wait than the service holds at once, so this one was rejected. Nothing was queued and nothing \
         was changed."
        "Wait as long as Retry-After says, then send it again, and send fewer at once while this goes on."
    }
    Refused(INTERNAL_SERVER_ERROR, "refused", "Refused by the database") {
        "The database refuses this change for good, which no valid request should bring about. Nothing was applied."
        "Don't send it again. Tell those who run the service when it happened: their log says why."
    }
    Unauthorized(UNAUTHORIZED, "unauthorized", "Unauthorized") {
        "The request came without an API key where one is needed, or with one that is unknown or revoked. Nothing \
         was done."
        "Send the header Authorization: Bearer KEY. Those who run the service make a key with point-system key create."
    }
    InsufficientScope(FORBIDDEN, "insufficient-scope", "Insufficient scope") {
        "The API key is valid, but it may not do this: the detail names the scope that it lacks. Nothing was done."
        "Use a key that has the scope. A key with the scope read can't make changes."
    }
    LoopbackOnly(FORBIDDEN, "loopback-only", "Loopback only") {
        "Without an API key, the service serves clients on its own machine only. The request names another host, comes \
         from a web page of another site, or came through a proxy; the member field names the header. Nothing was \
         done."
        "To let others in, create a key: point-system key create --name NAME --scope write. Then send the header \
         Authorization: Bearer KEY. On the machine itself, call localhost or 127.0.0.1 without a proxy."
    }
    RateLimited(TOO_MANY_REQUESTS, "rate-limited", "Too many requests") {
        "This key, or this address where no key was sent, has sent as many requests as it may. Nothing was done."
        "Wait as long as Retry-After says. The headers RateLimit and RateLimit-Policy of every answer say what is left."
    }
    NotReady(SERVICE_UNAVAILABLE, "not-ready", "Not ready") {
        "This node can't do its work now: it starts, it stops, or what it needs is down. The members say which."
        "Send requests to another node until this one is ready. A restart brings back nothing that it needs."
    }
}

//! The admission of requests: who calls, what that caller may do, and how often. Must not contain handlers.

use std::{
    future::ready,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    dev::{Service, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    web,
};
use futures_util::future::{Either, TryFutureExt};

use super::{Api, error::ApiError, loopback};
use crate::{
    access::{Allowance, Caller, Scope, Stranger},
    domain::Actor,
};

/// The scheme of API keys (RFC 6750 §2.1), in upper or lower case (RFC 9110 §11.1).
const SCHEME: &str = "Bearer";

/// The headers of draft-ietf-httpapi-ratelimit-headers-11 §3 and §4. Our only policy is named "default".
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Calls `service` if the caller has the scope that the endpoint needs, and adds the rate limit headers. An endpoint
/// without a scope is open to everybody, and its requests do not count.
pub(super) fn admit<S>(
    needed: Option<Scope>,
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    let (allowance, admitted) = match needed {
        None => (None, Ok(())),
        Some(scope) => judge(scope, &request),
    };
    let answer = match admitted {
        Ok(()) => Either::Left(service.call(request)),
        Err(refusal) => Either::Right(ready(Ok(request.error_response(refusal)))),
    };
    answer.map_ok(move |mut response| {
        if needed.is_some() {
            // Without this, a cache may keep the answers of a service that needs no key (RFC 9111 §4.2.2).
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(allowance) = allowance {
            tell(&allowance, response.headers_mut());
        }
        response
    })
}

/// Who sent a request, or `None` for a caller without a key.
pub(super) fn actor(request: &HttpRequest) -> Option<Actor> {
    request.extensions().get().cloned()
}

/// Decides whether the handler may see the request, and returns the caller's rate limit after it.
fn judge(scope: Scope, request: &ServiceRequest) -> (Option<Allowance>, Result<(), ApiError>) {
    let api = request.app_data::<web::Data<Api>>().expect("set beside the routes");
    match api.access.caller(key(request.headers())) {
        Ok(caller) => judge_caller(&caller, scope, request),
        Err(stranger) => (None, Err(ApiError::Unauthorized { key_given: stranger == Stranger::WrongKey })),
    }
}

/// As [`admit`], for a known caller. Stores the actor in the request.
pub(super) fn judge_caller(
    caller: &Caller,
    scope: Scope,
    request: &ServiceRequest,
) -> (Option<Allowance>, Result<(), ApiError>) {
    if *caller == Caller::OnThisMachine
        && let Some(header) = loopback::foreign_header(request)
    {
        return (None, Err(ApiError::LoopbackOnly { header }));
    }
    if let Some(actor) = caller.actor() {
        request.extensions_mut().insert(actor.clone());
    }
    let (allowance, counted) = count(caller, request.request());
    let admitted = counted.and_then(|()| {
        if caller.may(scope) { Ok(()) } else { Err(ApiError::InsufficientScope { scope: scope.as_str() }) }
    });
    (allowance, admitted)
}

/// Counts a request against the caller's rate limit.
pub(super) fn count(caller: &Caller, request: &HttpRequest) -> (Option<Allowance>, Result<(), ApiError>) {
    let api = request.app_data::<web::Data<Api>>().expect("set beside the routes");
    let address = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let allowance = api.access.count(caller, address);
    let counted = match allowance {
        Some(Allowance { granted: false, more_after_s, .. }) => {
            Err(ApiError::RateLimited { retry_after: Duration::from_secs(more_after_s) })
        }
        _ => Ok(()),
    };
    (allowance, counted)
}

/// Reads the key from the request. Ignores a value of another scheme: it is for a proxy.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    (scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && key.first().is_none_or(|byte| *byte == b' '))
        .then(|| key.trim_ascii())
}

/// Adds the rate limit headers. `t` is exact: no more than `r` requests are allowed before then.
fn tell(allowance: &Allowance, headers: &mut HeaderMap) {
    let Allowance { limit, remaining, more_after_s, .. } = allowance;
    let policy = format!("\"default\";q={};w={}", limit.requests(), limit.window_s());
    let left = format!("\"default\";r={remaining};t={more_after_s}");
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        headers.insert(name, HeaderValue::try_from(value).expect("visible ASCII"));
    }
}

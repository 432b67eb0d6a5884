//! The description of what a scope brings to an endpoint: the API key, the refusals, the rate limit, the trace. Must
//! not contain decisions about requests.

use utoipa::openapi::{
    OpenApi, RefOr, Required, SecurityRequirement, Type,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::Object,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    catalogue::Kind,
    openapi::{header_of, problems},
};
use crate::access::Scope;

/// The name of the scheme in the description.
const BEARER: &str = "bearer";

/// The headers with a caller's rate limit.
const LIMIT_HEADERS: [(&str, &str); 2] = [
    (
        "RateLimit",
        "Present when requests are limited and the caller is identified: how many requests are left (`r`), and in how \
         many seconds more are available (`t`), such as `\"default\";r=99;t=1` (draft-ietf-httpapi-ratelimit-headers-11).",
    ),
    (
        "RateLimit-Policy",
        "Present when requests are limited and the caller is identified: how many requests (`q`) are allowed in how \
         many seconds (`w`), such as `\"default\";q=100;w=1`.",
    ),
];

/// Describes API keys.
pub(super) fn add_scheme(description: &mut OpenApi) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An API key. `point-system key create` creates one. A service that allows anonymous callers requires none.",
    ));
    let components = description.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
}

/// Describes what every endpoint with a scope has: security, refusals, rate limit headers and the trace.
pub(super) fn protect(operation: &mut Operation, scope: Scope) {
    // The empty requirement: a service may allow anonymous callers.
    operation.security =
        Some(vec![SecurityRequirement::new(BEARER, [scope.as_str()]), SecurityRequirement::default()]);
    let refusals = [Kind::Unauthorized, Kind::InsufficientScope, Kind::LoopbackOnly, Kind::RateLimited];
    operation.responses.responses.append(&mut problems(&refusals));
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            let header =
                header_of(Object::with_type(Type::String), "`no-store`: answers are not for caches.");
            response.headers.insert("Cache-Control".to_owned(), header.into());
        }
        // A caller that is not identified has no rate limit of its own.
        if status == "401" {
            continue;
        }
        if let RefOr::T(response) = response {
            for (name, description) in LIMIT_HEADERS {
                let header = header_of(Object::with_type(Type::String), description);
                response.headers.insert(name.to_owned(), header.into());
            }
        }
    }
    let trace = ParameterBuilder::new()
        .name("traceparent")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The caller's trace (W3C Trace Context). The logs and the entry name it. The service ignores an invalid value.",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .example(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()));
    operation.parameters.get_or_insert_default().push(trace.build().into());
}

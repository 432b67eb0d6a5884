//! What the API's description says of who may call, how often, and of tracing. No request may be judged here.

use utoipa::{
    Modify,
    openapi::{
        self, Required, SecurityRequirement, Type,
        path::{Operation, ParameterBuilder, ParameterIn},
        schema::Object,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    catalogue::Kind,
    openapi::{header_of, problems},
};
use crate::access::Scope;

/// The name of the scheme.
const BEARER: &str = "bearer";

/// The paths that ask who calls.
const GUARDED: &str = "/v1/";

/// What every operation on points has.
pub(super) struct Guarded;

impl Modify for Guarded {
    fn modify(&self, description: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An API key: `point-system key create` makes one. A service that allows anonymous callers needs none.",
        ));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
        let paths = description.paths.paths.iter_mut().filter(|(path, _)| path.starts_with(GUARDED));
        for (_, path) in paths {
            for (operation, scope) in [(&mut path.get, Scope::Read), (&mut path.post, Scope::Write)] {
                if let Some(operation) = operation {
                    guard(operation, scope);
                }
            }
        }
    }
}

fn guard(operation: &mut Operation, scope: Scope) {
    // The empty one: a service may allow anonymous callers.
    operation.security =
        Some(vec![SecurityRequirement::new(BEARER, [scope.as_str()]), SecurityRequirement::default()]);
    let refusals = [Kind::Unauthorized, Kind::InsufficientScope, Kind::LoopbackOnly, Kind::RateLimited];
    operation.responses.responses.append(&mut problems(&refusals));
    for (status, response) in &mut operation.responses.responses {
        // A stranger has no limit of its own to be told.
        if status == "401" {
            continue;
        }
        if let openapi::RefOr::T(response) = response {
            for (name, description) in [
                (
                    "RateLimit",
                    "Where requests are limited: how many are left (`r`), and in how many seconds there \
                    are more (`t`), such as `\"default\";r=99;t=1` (draft-ietf-httpapi-ratelimit-headers-11).",
                ),
                (
                    "RateLimit-Policy",
                    "Where requests are limited: how many (`q`) in how many seconds (`w`), such as \
                    `\"default\";q=100;w=1`.",
                ),
            ] {
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
            "The caller's trace (W3C Trace Context), which the logs then name. One that is not valid \
            is ignored, as the standard wants.",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .example(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()));
    operation.parameters.get_or_insert_default().push(trace.build().into());
}

//! The API's description: OpenAPI 3.1, made from the table of endpoints, the annotations of their handlers and the
//! catalogue of problems. Must not contain handlers.

use std::collections::BTreeMap;

use actix_web::{ResponseError, http::header};
use serde_json::Value;
use utoipa::{
    IntoResponses, OpenApi, ToSchema,
    openapi::{
        AllOfBuilder, Content, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response,
        ResponseBuilder, Type, example::ExampleBuilder, header::Header, schema::Object,
    },
};

use super::{
    bodies::{EntryResponse, PendingResponse},
    catalogue::Kind,
    endpoints::{ENDPOINTS, Handlers},
    probes::{NodeResponse, ReadinessResponse},
    problem::{self, ProblemResponse},
    schema, security,
};

mod answers;

pub(super) use answers::{
    CaptureAnswers, ChangeAnswers, HoldAnswers, OutcomeAnswers, ReadinessAnswers, ReleaseAnswers,
    ReversalAnswers,
};

/// The parts of the description that are not endpoints. The schemas are those that no annotation of a handler names.
#[derive(OpenApi)]
#[openapi(
    info(
        description = "Users' points, added and subtracted through a queue: exactly once and in order.\n\n\
            The service queues a change and answers `202` as soon as the change is safe. With `Prefer: wait` it \
            applies the change before it answers. After a `503`, or without an answer, send the change again with \
            the same `Idempotency-Key`: it counts once.\n\n\
            Every path that takes GET also takes HEAD. Every error is a problem (RFC 9457), except the `400` or `431` \
            of a request whose head can't be read; [/problems](/problems) explains them all.",
    ),
    servers((url = "/", description = "This service.")),
    tags(
        (name = "Points", description = "Changes and balances."),
        (name = "Service", description = "The service itself and its health."),
        (name = "Description", description = "The API's description, for programs and for people."),
    ),
    components(schemas(PendingResponse, EntryResponse, ProblemResponse, ReadinessResponse, NodeResponse)),
)]
struct Frame;

/// The description as JSON.
pub(super) fn description() -> String {
    let mut description = Frame::openapi();
    description.merge(Handlers::openapi());
    security::add_scheme(&mut description);
    for endpoint in ENDPOINTS {
        let item = description.paths.paths.get_mut(endpoint.path);
        let operation =
            item.and_then(|item| endpoint.operation(item)).expect("a row has the path of its handler");
        operation.responses.responses.append(&mut problems(&[Kind::MethodNotAllowed]));
        if let Some(scope) = endpoint.scope {
            security::protect(operation, scope);
        }
    }
    description.to_json().expect("a description is JSON")
}

/// Describes the answers of these kinds: one for each status, with an example of each kind.
pub(super) fn problems(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<Kind>>::new();
    for kind in kinds {
        by_status.entry(kind.row().status.as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds).into())).collect()
}

fn response(kinds: &[Kind]) -> Response {
    let meanings = kinds.iter().map(|kind| {
        let row = kind.row();
        format!("[{}]({}): {}", row.title, row.path(), row.meaning)
    });
    let types = kinds.iter().map(|kind| kind.row().path());
    let one_of_them = ObjectBuilder::new()
        .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types)));
    let schema = AllOfBuilder::new().item(reference::<ProblemResponse>()).item(one_of_them);
    let examples = kinds.iter().map(|kind| {
        let example = serde_json::to_value(kind.example().problem()).expect("JSON");
        let row = kind.row();
        (row.slug, ExampleBuilder::new().summary(row.title).value(Some(example)).build())
    });
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let mut response = ResponseBuilder::new()
        .description(meanings.collect::<Vec<_>>().join("\n\n"))
        .content(problem::MEDIA_TYPE, content);
    for kind in kinds {
        for name in kind.example().error_response().headers().keys() {
            response = match name {
                &header::CONTENT_TYPE => response,
                &header::ALLOW => {
                    let methods = Object::with_type(Type::String);
                    response.header("Allow", header_of(methods, "The methods that this path takes."))
                }
                &header::WWW_AUTHENTICATE => {
                    let challenge = Object::with_type(Type::String);
                    response.header(
                        "WWW-Authenticate",
                        header_of(challenge, "What the caller must send (RFC 6750 §3)."),
                    )
                }
                &header::LOCATION => {
                    let description =
                        "Present when the change may still take effect: the path of its outcome.";
                    response.header("Location", header_of(schema::location(), description))
                }
                &header::RETRY_AFTER => response
                    .header("Retry-After", header_of(schema::seconds(), "How long to wait, in seconds.")),
                unknown => unreachable!("{unknown} of {kind:?} is not described"),
            };
        }
    }
    response.build()
}

/// Names the kinds of problem that are answers of an endpoint, beside those that come from its row of the table.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident: $($kind:ident),*) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                problems(&[$(Kind::$kind),*])
            }
        }
    };
}

problems! {
    /// The problems of an endpoint with a parameter in its path.
    PathProblems: NotFound
}

problems! {
    /// The problems of reading a balance.
    BalanceProblems: InvalidField, UnknownUser, DatabaseUnavailable, UserBlocked, Overloaded
}

problems! {
    /// The problems of reading many balances, the log, and the outcome of a request.
    LogProblems: InvalidField, DatabaseUnavailable, UserBlocked, Overloaded
}

problems! {
    /// The problems of a batch.
    BatchProblems: EmptyBody, MalformedBody, InvalidField, KeyReused, BodyTimeout, BodyTooLarge,
        UnsupportedMediaType, QueueUnavailable, Overloaded
}

fn body<T: ToSchema>(example: Value) -> Content {
    ContentBuilder::new().schema(Some(reference::<T>())).example(Some(example)).build()
}

/// Refers to a schema, which [`Frame`] or the annotation of a handler must name.
fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// Describes a header of an answer.
pub(super) fn header_of(schema: Object, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_the_description_refers_to_is_in_it() {
        let text = description();
        let description: Value = serde_json::from_str(&text).expect("JSON");
        let references = text.split("\"#/components/schemas/").skip(1);
        for name in references.map(|rest| rest.split('"').next().expect("a name")) {
            assert!(description["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}

//! The API's description: OpenAPI 3.1, made from the handlers and the catalogue of problems. To describe another
//! endpoint, annotate its handler and name it in [`Description`]; nothing here may answer a request.

use std::collections::BTreeMap;

use actix_web::{ResponseError, http::header};
use serde_json::Value;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::{
        self, AllOfBuilder, Content, ContentBuilder, HeaderBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr,
        Response, ResponseBuilder, Type, example::ExampleBuilder, header::Header, schema::Object,
    },
};

use super::{
    access::Guarded, batch, bodies, catalogue::Kind, examples, history, outcome, pages, points, probes,
    problem, schema,
};

#[derive(OpenApi)]
#[openapi(
    info(
        description = "Users' points, added and subtracted through a queue: exactly once and in order.\n\n\
            A change is queued and answered with `202` as soon as it is safe. With `Prefer: wait` it is applied \
            before the answer. After a `503`, or an answer that never came, send it again with the same \
            `Idempotency-Key`: it counts once.\n\n\
            Where there is GET there is HEAD. Every error is a problem (RFC 9457); [/problems](/problems) explains \
            them all.",
    ),
    servers((url = "/", description = "This service.")),
    tags(
        (name = "Points", description = "Changes and balances."),
        (name = "Service", description = "What runs here, and whether it does."),
        (name = "Description", description = "The API's description, for programs and for people."),
    ),
    paths(
        points::add,
        points::subtract,
        batch::batch,
        points::balance,
        history::log,
        outcome::outcome,
        super::about,
        super::ping,
        probes::livez,
        probes::readyz,
        pages::description,
        pages::docs,
        pages::file,
        pages::problems,
        pages::problem,
    ),
    components(schemas(
        bodies::PendingResponse, bodies::EntryResponse, bodies::BalanceResponse, problem::ProblemResponse,
        probes::ReadinessResponse, probes::NodeResponse
    )),
    modifiers(&EveryOperation, &Guarded),
)]
struct Description;

/// The description as JSON.
pub(super) fn description() -> String {
    Description::openapi().to_json().expect("a description is JSON")
}

/// What every operation has.
struct EveryOperation;

impl Modify for EveryOperation {
    fn modify(&self, description: &mut openapi::OpenApi) {
        for path in description.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
                operation.responses.responses.append(&mut problems(&[Kind::MethodNotAllowed]));
            }
        }
    }
}

/// The answers that are these kinds of problem: one for each status, with an example of each kind.
pub(super) fn problems(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<Kind>>::new();
    for kind in kinds {
        by_status.entry(kind.about().status.as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds).into())).collect()
}

fn response(kinds: &[Kind]) -> Response {
    let meanings = kinds.iter().map(|kind| {
        let about = kind.about();
        format!("[{}]({}): {}", about.title, about.path(), about.meaning)
    });
    let types = kinds.iter().map(|kind| kind.about().path());
    let one_of_them = ObjectBuilder::new()
        .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(one_of_them);
    let examples = kinds.iter().map(|kind| {
        let example = serde_json::to_value(kind.example().problem()).expect("JSON");
        let about = kind.about();
        (about.slug, ExampleBuilder::new().summary(about.title).value(Some(example)).build())
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
                    response.header("WWW-Authenticate", header_of(challenge, "What is needed (RFC 6750 §3)."))
                }
                &header::LOCATION => {
                    let description =
                        "Where a change may count all the same: where to ask what became of it.";
                    response.header("Location", header_of(schema::location(), description))
                }
                &header::RETRY_AFTER => {
                    response.header("Retry-After", header_of(schema::seconds(), "How long to wait."))
                }
                unknown => unreachable!("{unknown} of {kind:?} is not described"),
            };
        }
    }
    response.build()
}

/// The kinds of problem that an operation may answer with, beside those that every operation has.
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
    /// Of what is named by its path.
    PathProblems: NotFound
}

problems! {
    /// Of a read.
    BalanceProblems: InvalidField, UnknownUser, DatabaseUnavailable, UserBlocked, Overloaded
}

problems! {
    /// Of the log and of the outcome of a request.
    LogProblems: InvalidField, DatabaseUnavailable, UserBlocked, Overloaded
}

problems! {
    /// Of a batch.
    BatchProblems: EmptyBody, MalformedBody, InvalidField, BodyTimeout, BodyTooLarge, UnsupportedMediaType,
        QueueUnavailable, Overloaded
}

problems! {
    /// Of a change.
    ChangeProblems: EmptyBody, MalformedBody, InvalidField, BodyTimeout, InsufficientPoints, BalanceLimit,
        BodyTooLarge, UnsupportedMediaType, KeyReused, Refused, QueueUnavailable, DatabaseUnavailable, UserBlocked,
        Overloaded
}

/// Every answer to a change.
pub(super) struct ChangeAnswers;

impl IntoResponses for ChangeAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = ChangeProblems::responses();
        let queued = ResponseBuilder::new()
            .description("The change is safe in the queue and will be decided in its turn.")
            .header("Location", header_of(schema::location(), "Where to ask what became of it."))
            .content("application/json", body("Pending", examples::pending()));
        responses.insert("202".to_owned(), queued.into());
        let decided = ResponseBuilder::new()
            .description("With `Prefer: wait`: the change is applied. This is its entry in the user's log.")
            .content("application/json", body("Entry", examples::entry()));
        responses.insert("200".to_owned(), decided.into());
        for decided in ["200", "409"] {
            if let Some(RefOr::T(response)) = responses.get_mut(decided) {
                let waited =
                    header_of(schema::constant("wait"), "The preference that was honoured (RFC 7240 §3).");
                let replayed = header_of(
                    schema::constant("true"),
                    "There where the Idempotency-Key was used before: this is the answer of then.",
                );
                response.headers.insert("Preference-Applied".to_owned(), waited.into());
                response.headers.insert("Idempotency-Replayed".to_owned(), replayed.into());
            }
        }
        responses
    }
}

/// Every answer to the question whether a node is ready.
pub(super) struct ReadinessAnswers;

impl IntoResponses for ReadinessAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = problems(&[Kind::NotReady]);
        let ready = ResponseBuilder::new()
            .description("It can: everything is up, or (`degraded`) queued changes are still taken.")
            .content("application/json", body("Readiness", examples::readiness()));
        responses.insert("200".to_owned(), ready.into());
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                let uncached =
                    header_of(schema::constant("no-store"), "It may be otherwise the next moment.");
                response.headers.insert("Cache-Control".to_owned(), uncached.into());
            }
        }
        responses
    }
}

/// Every answer to the question what became of a request.
pub(super) struct OutcomeAnswers;

impl IntoResponses for OutcomeAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = LogProblems::responses();
        let either =
            OneOfBuilder::new().item(Ref::from_schema_name("Entry")).item(Ref::from_schema_name("Pending"));
        let examples = [("decided", examples::entry()), ("pending", examples::pending())];
        let examples = examples.map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
        let known = ResponseBuilder::new()
            .description("The request's entry in the log, or that there is none yet.")
            .header("Retry-After", header_of(schema::seconds(), "Where it is pending: when to ask again."))
            .header(
                "Preference-Applied",
                header_of(Object::with_type(Type::String), "How long the answer would have waited."),
            )
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(either)).examples_from_iter(examples).build(),
            );
        responses.insert("200".to_owned(), known.build().into());
        responses
    }
}

fn body(schema: &str, example: Value) -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).example(Some(example)).build()
}

pub(super) fn header_of(schema: Object, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

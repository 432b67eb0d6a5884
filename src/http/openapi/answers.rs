//! The answers of endpoints that do more than one thing. Must not contain handlers.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, OneOfBuilder, RefOr, Response, ResponseBuilder, Type, example::ExampleBuilder,
        schema::Object,
    },
};

use super::{LogProblems, body, header_of, problems, reference};
use crate::http::{
    bodies::{EntryResponse, PendingResponse},
    catalogue::Kind,
    examples,
    probes::ReadinessResponse,
    schema,
};

/// The problems of a change.
const CHANGE: &[Kind] = &[
    Kind::EmptyBody,
    Kind::MalformedBody,
    Kind::InvalidField,
    Kind::BodyTimeout,
    Kind::InsufficientPoints,
    Kind::BalanceLimit,
    Kind::Expired,
    Kind::LotLimit,
    Kind::Rejected,
    Kind::BodyTooLarge,
    Kind::UnsupportedMediaType,
    Kind::KeyReused,
    Kind::Refused,
    Kind::QueueUnavailable,
    Kind::DatabaseUnavailable,
    Kind::UserBlocked,
    Kind::NewerVersion,
    Kind::Overloaded,
];

/// The additional problems of a reversal.
const REVERSAL: &[Kind] = &[Kind::UnknownRequest, Kind::NotReversible, Kind::AlreadyReversed];

/// The additional problem of a hold.
const HOLD: &[Kind] = &[Kind::HoldLimit];

/// The additional problems of what ends a hold, and of a capture.
const ENDING: &[Kind] = &[Kind::UnknownHold, Kind::HoldOver];
const CAPTURE: &[Kind] = &[Kind::HoldTooSmall];

/// Every answer to an add or a subtract.
pub(in crate::http) struct ChangeAnswers;

impl IntoResponses for ChangeAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        changed(CHANGE, examples::entry())
    }
}

/// Every answer to a reversal.
pub(in crate::http) struct ReversalAnswers;

impl IntoResponses for ReversalAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        changed(&[CHANGE, REVERSAL].concat(), examples::reversal())
    }
}

/// Every answer to a hold.
pub(in crate::http) struct HoldAnswers;

impl IntoResponses for HoldAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        changed(&[CHANGE, HOLD].concat(), examples::held())
    }
}

/// Every answer to a capture.
pub(in crate::http) struct CaptureAnswers;

impl IntoResponses for CaptureAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        changed(&[CHANGE, ENDING, CAPTURE].concat(), examples::captured())
    }
}

/// Every answer to a release.
pub(in crate::http) struct ReleaseAnswers;

impl IntoResponses for ReleaseAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        changed(&[CHANGE, ENDING].concat(), examples::released())
    }
}

/// Every answer to a change with these problems. `entry` is an example of an applied change.
fn changed(kinds: &[Kind], entry: Value) -> BTreeMap<String, RefOr<Response>> {
    let mut responses = problems(kinds);
    let queued = ResponseBuilder::new()
        .description("The change is safe in the queue. A worker decides it when its turn comes.")
        .header("Location", header_of(schema::location(), "The path of the outcome."))
        .content("application/json", body::<PendingResponse>(examples::pending()));
    responses.insert("202".to_owned(), queued.into());
    let decided = ResponseBuilder::new()
        .description(
            "With `Prefer: wait`, or if the Idempotency-Key is known: the change is applied. The body is its entry \
             in the user's log.",
        )
        .content("application/json", body::<EntryResponse>(entry));
    responses.insert("200".to_owned(), decided.into());
    for decided in ["200", "409"] {
        if let Some(RefOr::T(response)) = responses.get_mut(decided) {
            let waited = header_of(
                schema::constant("wait"),
                "The preference that the service honoured (RFC 7240 §3).",
            );
            let replayed = header_of(
                schema::constant("true"),
                "Present when the Idempotency-Key was used before; replays the original response.",
            );
            response.headers.insert("Preference-Applied".to_owned(), waited.into());
            response.headers.insert("Idempotency-Replayed".to_owned(), replayed.into());
        }
    }
    responses
}

/// Every answer of the readiness probe.
pub(in crate::http) struct ReadinessAnswers;

impl IntoResponses for ReadinessAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = problems(&[Kind::NotReady]);
        let ready = ResponseBuilder::new()
            .description(
                "The node can do its work. `degraded`: it can do part of its work, as `detail` says.",
            )
            .content("application/json", body::<ReadinessResponse>(examples::readiness()));
        responses.insert("200".to_owned(), ready.into());
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                let uncached = header_of(schema::constant("no-store"), "The state may change at any moment.");
                response.headers.insert("Cache-Control".to_owned(), uncached.into());
            }
        }
        responses
    }
}

/// Every answer to a question about the outcome of a request.
pub(in crate::http) struct OutcomeAnswers;

impl IntoResponses for OutcomeAnswers {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = LogProblems::responses();
        let either =
            OneOfBuilder::new().item(reference::<EntryResponse>()).item(reference::<PendingResponse>());
        let examples = [("decided", examples::entry()), ("pending", examples::pending())];
        let examples = examples.map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
        let known = ResponseBuilder::new()
            .description("The request's entry in the log, or `pending` while there is none.")
            .header(
                "Retry-After",
                header_of(schema::seconds(), "While pending: when to ask again, in seconds."),
            )
            .header(
                "Preference-Applied",
                header_of(Object::with_type(Type::String), "The wait that the service honoured."),
            )
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(either)).examples_from_iter(examples).build(),
            );
        responses.insert("200".to_owned(), known.build().into());
        responses
    }
}

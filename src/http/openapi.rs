//! The API's description: OpenAPI 3.1, made from the handlers and the catalogue of problems. To describe another
//! endpoint, annotate its handler and name it in [`Description`]; nothing here may answer a request.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use utoipa::{
    IntoParams, IntoResponses, Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        self, AllOfBuilder, Content, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Required,
        Response, ResponseBuilder, Schema, Type,
        example::ExampleBuilder,
        header::Header,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::Object,
    },
};

use actix_web::{ResponseError, http::header};

use super::{catalogue::Kind, pages, points, problem, schema};

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
        points::balance,
        super::about,
        super::ping,
        pages::description,
        pages::docs,
        pages::file,
        pages::problems,
        pages::problem,
    ),
    components(schemas(problem::ProblemResponse)),
    modifiers(&EveryOperation),
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
fn problems(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<Kind>>::new();
    for kind in kinds {
        by_status.entry(kind.about().status.as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds).into())).collect()
}

fn response(kinds: &[Kind]) -> Response {
    let list = |line: fn(&Kind) -> String| kinds.iter().map(line).collect::<Vec<_>>().join("\n");
    let types = kinds.iter().map(|kind| kind.about().path());
    let narrowed = ObjectBuilder::new()
        .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(narrowed);
    let examples = kinds.iter().map(|kind| {
        let example = serde_json::to_value(kind.example().problem()).expect("JSON");
        let about = kind.about();
        (about.slug, ExampleBuilder::new().summary(about.title).value(Some(example)))
    });
    let content: Content =
        ContentBuilder::new().schema(Some(Schema::from(schema))).examples_from_iter(examples).build();
    let mut response = ResponseBuilder::new()
        .description(list(|kind| {
            let about = kind.about();
            format!("- [{}]({}): {}", about.title, about.path(), about.meaning)
        }))
        .content(problem::MEDIA_TYPE, content);
    for kind in kinds {
        for (name, value) in kind.example().error_response().headers() {
            response = match name {
                &header::ALLOW => response.header("Allow", text_header("The methods that this path takes.", value)),
                &header::RETRY_AFTER => response.header("Retry-After", seconds_header()),
                _ => response,
            };
        }
    }
    response.build()
}

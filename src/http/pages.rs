//! The handlers of the pages for people: the problems and the interactive description. Must not contain links to other
//! servers.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentEncoding},
    web::Bytes,
};
use maud::{DOCTYPE, Markup, html};
use utoipa_swagger_ui::Config;

use super::{catalogue::Kind, error::ApiError, openapi, parameters};

/// Allows a page to load the files of this service only (CSP Level 3).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long a browser may keep a file. Files change only with the version.
const FILE_CACHING: &str = "max-age=3600";

/// The files that the pages need, by name.
pub(super) const FILES: [(&str, Source); 4] = [
    ("docs.js", Source::Ours { media_type: "text/javascript", text: include_str!("assets/docs.js") }),
    ("pages.css", Source::Ours { media_type: "text/css", text: include_str!("assets/pages.css") }),
    ("swagger-ui-bundle.js", Source::SwaggerUi),
    ("swagger-ui.css", Source::SwaggerUi),
];

/// Where a file comes from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Ours { media_type: &'static str, text: &'static str },
    SwaggerUi,
}

/// The API's description as OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Description",
    responses((
        status = 200,
        description = "This document.",
        content_type = "application/json",
        body = Object,
    )),
)]
pub(super) async fn description() -> HttpResponse {
    static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| openapi::description().into());
    HttpResponse::Ok().content_type("application/json").body(DESCRIPTION.clone())
}

/// The API's description, to read and to try.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "Description",
    responses((status = 200, description = "A page.", content_type = "text/html", body = String)),
)]
pub(super) async fn docs() -> HttpResponse {
    page(&html! {
        (head("point-system: the API", &["/docs/swagger-ui.css"]))
        body {
            main id="docs" {
                noscript { "This page needs JavaScript. The description itself is at " a href="/openapi.json" { "/openapi.json" } "." }
            }
            script src="/docs/swagger-ui-bundle.js" {}
            script src="/docs/docs.js" {}
        }
    })
}

/// A file that the pages need.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "Description",
    params(parameters::FilePath),
    responses(
        (status = 200, description = "The file. The files of Swagger UI are compressed.", content(
            (String = "text/css"), (String = "text/javascript"),
        ), headers(("Content-Encoding" = Option<String>, description = "`gzip` for the files of Swagger UI."))),
        openapi::PathProblems,
    ),
)]
pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let name = request.match_info().get("file").unwrap_or_default();
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, FILE_CACHING));
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    let (_, source) = FILES.iter().find(|(known, _)| *known == name).ok_or(ApiError::NotFound)?;
    match source {
        Source::Ours { media_type, text } => Ok(response.content_type(*media_type).body(*text)),
        Source::SwaggerUi => {
            let found = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten();
            let file = found.ok_or(ApiError::NotFound)?;
            if file.gzpipped {
                response.insert_header(ContentEncoding::Gzip);
            }
            let bytes = match file.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            Ok(response.content_type(file.content_type).body(bytes))
        }
    }
}

/// Lists every kind of problem.
#[utoipa::path(
    get,
    path = "/problems",
    tag = "Description",
    responses((status = 200, description = "A page.", content_type = "text/html", body = String)),
)]
pub(super) async fn problems() -> HttpResponse {
    page(&html! {
        (head("Problems", &["/docs/pages.css"]))
        body {
            (nav())
            main {
                h1 { "Problems" }
                p {
                    "Errors are " code { "application/problem+json" } " (RFC 9457). Match on the member "
                    code { "type" } ": it never changes. It is also the path of a page that says what the problem means "
                    "and what to do."
                }
                ul {
                    @for row in Kind::ALL.iter().map(|kind| kind.row()) {
                        li {
                            a href=(row.path()) { (row.title) } " "
                            span.status { (row.status.as_u16()) }
                            br;
                            (row.meaning)
                        }
                    }
                }
            }
        }
    })
}

/// Explains a kind of problem, and what to do about it.
#[utoipa::path(
    get,
    path = "/problems/{kind}",
    tag = "Description",
    params(parameters::KindPath),
    responses(
        (status = 200, description = "A page.", content_type = "text/html", body = String),
        openapi::PathProblems,
    ),
)]
pub(super) async fn problem(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let slug = request.match_info().get("kind").unwrap_or_default();
    let kind = Kind::from_slug(slug).ok_or(ApiError::NotFound)?;
    let row = kind.row();
    let example = serde_json::to_string_pretty(&kind.example().problem()).expect("JSON");
    Ok(page(&html! {
        (head(row.title, &["/docs/pages.css"]))
        body {
            (nav())
            main {
                h1 { (row.title) }
                p.status { (row.status) }
                h2 { "What it means" }
                p { (row.meaning) }
                h2 { "What to do" }
                p { (row.advice) }
                h2 { "Example" }
                pre { (example) }
            }
        }
    }))
}

fn nav() -> Markup {
    html! { nav { "point-system: " a href="/problems" { "problems" } ", " a href="/docs" { "the API" } } }
}

fn head(title: &str, styles: &[&str]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en";
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            link rel="icon" href="data:,";
            title { (title) }
            @for style in styles { link rel="stylesheet" href=(style); }
        }
    }
}

fn page(content: &Markup) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(content.0.clone())
}

//! Errors as pages, in words, and the headers of every answer of the console. Must not contain decisions.

use std::borrow::Cow;

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};
use maud::{Markup, html};

use super::{
    components::{Tone, capitalised, notice},
    door::{self, HX_REQUEST, Viewer},
    layout::{Page, fragment},
};
use crate::http::error::ApiError;

/// A page runs and loads only the files of this service, sends its forms and requests only there, and is in no frame
/// (CSP Level 3).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers of every answer. Each is set unless the answer has its own.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Where htmx puts an error (htmx 2 reference).
const PUT_IN_NOTICES: [(&str, &str); 2] = [("hx-retarget", "#notices"), ("hx-reswap", "innerHTML")];

/// Passes a request on, and turns an error into a page.
pub(super) fn explain<S, B>(
    request: ServiceRequest,
    next: &S,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let answering = next.call(request);
    async move {
        let answer = answering.await?.map_into_boxed_body();
        let error = answer.response().error().and_then(|error| error.as_error::<ApiError>());
        let explained = error.map(|error| explained(error, answer.request()));
        let mut answer = match explained {
            Some(response) => answer.into_response(response),
            None => answer,
        };
        protect(answer.headers_mut());
        Ok(answer)
    }
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// The page, or for htmx the notice, of an error.
fn explained(error: &ApiError, request: &HttpRequest) -> HttpResponse {
    let viewer = door::of(request);
    let (title, text) = words(error, viewer.as_ref());
    let status = error.status_code();
    let mut response = if request.headers().contains_key(&HX_REQUEST) {
        let mut response = fragment(status, &notice(Tone::Bad, html! { strong { (title) ". " } (text) }));
        for (name, value) in PUT_IN_NOTICES {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    } else {
        page(status, viewer.as_ref(), &title, &text)
    };
    // Such as `Retry-After`. The challenge of the API is not for browsers: they would ask for a password.
    for (name, value) in error.error_response().headers() {
        if *name == header::RETRY_AFTER {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}

/// The answer to a form that no page of this console sent.
pub(super) fn foreign_form() -> HttpResponse {
    let text = "Nothing was done: the form did not come from a page of this console. Open the console again, and \
         repeat what you did.";
    page(StatusCode::FORBIDDEN, None, "Form refused", &html! { (text) })
}

fn page(status: StatusCode, viewer: Option<&Viewer>, title: &str, text: &Markup) -> HttpResponse {
    let page = Page { title, viewer, place: None, scripts: &[] };
    page.answer(
        status,
        &html! {
            div.narrow {
                p.quiet { (status.as_u16()) }
                h1 { (title) }
                p { (text) }
                p { a href="/console" { "To the overview" } }
            }
        },
    )
}

/// An error in words: a title, and advice.
fn words(error: &ApiError, viewer: Option<&Viewer>) -> (Cow<'static, str>, Markup) {
    match error {
        ApiError::NotFound => ("There is nothing here".into(), html! { "Check the address." }),
        ApiError::InsufficientScope { scope } => {
            let has = viewer.and_then(|viewer| Some((viewer.actor()?, viewer.scope()?)));
            let text = html! {
                "This needs an API key with the scope " strong { (scope) } "."
                @if let Some((actor, scope)) = has {
                    " You are signed in as " strong { (actor) } ", whose key has the scope " strong { (scope.as_str()) } "."
                }
            };
            ("Your key does not allow this".into(), text)
        }
        ApiError::DatabaseUnavailable(_) => (
            "PostgreSQL can't be reached".into(),
            html! {
                "Changes are still accepted, and are applied once the database is back. Until then the console can't show \
                 balances, logs and keys. " a href="/console" { "The overview" } " says since when."
            },
        ),
        ApiError::QueueUnavailable(_) => (
            "RabbitMQ can't be reached".into(),
            html! { "The queue did not answer. " a href="/console" { "The overview" } " says since when." },
        ),
        ApiError::RateLimited { retry_after } => (
            "Too many requests".into(),
            html! { "The limit of your key or your address is reached. Try again in " (retry_after.as_secs()) " s." },
        ),
        other => (other.facts().0.row().title.into(), html! { (capitalised(&other.to_string())) "." }),
    }
}

//! The page that asks for an API key, and the end of a session. Must not contain scopes of pages.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use maud::{Markup, html};

use super::{
    HOME,
    components::{Tone, notice},
    fields::Fields,
    layout::Page,
    origin, session,
};
use crate::{
    access::Caller,
    http::{Api, admission, error::ApiError, loopback},
};

/// Where the page is.
pub(super) const PATH: &str = "/console/sign-in";

/// Where the page is that says that a form was not accepted.
pub(super) const PATH_AFTER_FORM: &str = "/console/sign-in?form=refused";

/// The field with the page that the viewer wanted to see.
const NEXT: &str = "next";

const NOT_VALID: &str = "This API key is not valid: it is misspelled, or it was revoked.";

const NEEDS_TLS: &str = "A browser keeps an API key only if it can send it over HTTPS. Open the console at an address \
     that begins with https://, or on the machine of the service at a loopback address such as http://127.0.0.1. Do not \
     use this key again: it went over the network in plain text.";

/// The path of the sign-in that then redirects to `target`.
pub(super) fn path_back_to(target: &str) -> String {
    if target == HOME {
        return PATH.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair(NEXT, target).finish();
    format!("{PATH}?{query}")
}

/// Asks for a key.
pub(super) async fn page(request: HttpRequest, fields: Fields, api: web::Data<Api>) -> HttpResponse {
    let key = session::key(request.headers());
    let is_over = key.is_some_and(|key| api.access.caller(Some(key)).is_err());
    let why = match (is_over, fields.get("form").is_some()) {
        (true, false) => Some("You are signed out: your API key is no longer valid."),
        (true, true) => Some(
            "Nothing was changed: your API key is no longer valid. Sign in, and fill in the form once more.",
        ),
        (false, true) => Some("Nothing was changed: sign in, and fill in the form once more."),
        (false, false) => None,
    };
    let mut response = form(StatusCode::OK, why, next(&fields));
    if is_over {
        // Without it, the viewer may be a caller who needs no key.
        let (name, value) = session::end();
        response.headers_mut().insert(name, value);
    }
    response
}

/// Signs in with the key of the form.
///
/// # Errors
/// The address has tried too often, or sent no key.
pub(super) async fn enter(
    request: HttpRequest,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    let next = next(&fields);
    let Some(key) = fields.get("key") else {
        return Ok(form(StatusCode::BAD_REQUEST, Some("Enter an API key."), next));
    };
    // A wrong key has no limit of its own, so it counts for the address. Staff behind one proxy share an address, so a
    // valid key does not.
    let caller = api.access.caller(Some(key.as_bytes()));
    admission::count(caller.as_ref().unwrap_or(&Caller::Anonymous), &request).1?;
    if caller.is_err() {
        return Ok(form(StatusCode::UNAUTHORIZED, Some(NOT_VALID), next));
    }
    let is_loopback = loopback::is_local(request.headers());
    if !is_loopback && origin::is_plain_http(&request) {
        return Ok(form(StatusCode::BAD_REQUEST, Some(NEEDS_TLS), next));
    }
    let mut response = HttpResponse::SeeOther();
    Ok(response.insert_header(session::begin(key, is_loopback)).insert_header(("Location", next)).finish())
}

/// Signs out.
pub(super) async fn leave() -> HttpResponse {
    HttpResponse::SeeOther().insert_header(session::end()).insert_header(("Location", PATH)).finish()
}

/// The page to redirect to. It must be a path of the console: a link to the sign-in must not lead to another site.
fn next(fields: &Fields) -> &str {
    fields.get(NEXT).filter(|target| is_of_console(target)).unwrap_or(HOME)
}

fn is_of_console(target: &str) -> bool {
    let inside =
        target.strip_prefix(HOME).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    inside && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && !target.starts_with(PATH)
}

fn form(status: StatusCode, problem: Option<&str>, next: &str) -> HttpResponse {
    Page { title: "Sign in", viewer: None, place: None, scripts: &[] }.answer(status, &body(problem, next))
}

fn body(problem: Option<&str>, next: &str) -> Markup {
    html! {
        div.narrow {
            h1 { "Sign in" }
            @if let Some(problem) = problem { (notice(Tone::Bad, problem)) }
            form.card.stack method="post" action=(PATH) {
                input type="hidden" name=(NEXT) value=(next);
                div.field {
                    label for="key" { "API key" }
                    input #key name="key" type="password" required autofocus autocomplete="current-password"
                        spellcheck="false" aria-describedby="key-hint";
                    p.hint #key-hint {
                        "A key begins with " code { "ps_" } ". What you may see and do depends on its scope."
                    }
                }
                button.primary type="submit" { "Sign in" }
            }
            p.hint {
                "An operator creates a key with " code { "point-system key create --name NAME --scope read" } "."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_in_leads_to_pages_of_the_console_and_nowhere_else() {
        for inside in ["/console", "/console/users", "/console?x=1", "/console/users/a%20b?status=rejected"] {
            assert!(is_of_console(inside), "{inside}");
        }
        for outside in [
            "",
            "/",
            "//evil.example",
            "https://evil.example/console",
            "/consoles",
            "/console\\evil",
            "/console/a\r\nb",
            "console",
            "/console/sign-in",
            "/console/\u{e9}",
        ] {
            assert!(!is_of_console(outside), "{outside:?}");
        }
    }
}

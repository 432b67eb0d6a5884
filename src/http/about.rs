//! The handlers that tell what runs here. Must not contain anything about points.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, Accept, Header, Quality},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{console, examples};
use crate::infra::build;

/// The name and the version of the service.
#[derive(Serialize, ToSchema)]
#[schema(as = About)]
struct AboutResponse {
    name: &'static str,
    version: &'static str,
}

/// Name and version of the service. Redirects a browser to the console.
#[utoipa::path(
    get,
    path = "/",
    tag = "Service",
    responses(
        (status = 200, description = "Name and version.", body = AboutResponse,
         headers(("Vary" = String, description = "`Accept`.")),
         example = json!(examples::about())),
        (status = 303, description = "The console, for a client that prefers `text/html` to `application/json`.",
         headers(
            ("Location" = String, description = "`/console`."),
            ("Vary" = String, description = "`Accept`."),
         )),
    ),
)]
pub(super) async fn about(request: HttpRequest) -> HttpResponse {
    let mut response = if prefers_a_page(&request) {
        HttpResponse::SeeOther().insert_header((header::LOCATION, console::HOME)).finish()
    } else {
        HttpResponse::Ok().json(AboutResponse { name: env!("CARGO_PKG_NAME"), version: build::VERSION })
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
    response
}

/// Whether the client prefers HTML to JSON (RFC 9110 §12.5.1). A client that takes anything gets JSON.
fn prefers_a_page(request: &HttpRequest) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let quality = |essence: &str| {
        let kind = essence.split('/').next().unwrap_or_default();
        // The most specific range decides, whichever comes first.
        let of = |range: &str| accept.iter().find(|item| item.item.essence_str() == range);
        let range = of(essence).or_else(|| of(&format!("{kind}/*"))).or_else(|| of("*/*"));
        range.map_or(Quality::ZERO, |item| item.quality)
    };
    quality("text/html") > quality("application/json")
}

/// Answers pong.
#[utoipa::path(
    get,
    path = "/ping",
    tag = "Service",
    responses((status = 200, description = "The service answers.", content_type = "text/plain", body = String, example = "pong")),
)]
pub(super) async fn ping() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("pong")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_browser_prefers_a_page_and_a_program_does_not() {
        let prefers = |accept: &str| {
            prefers_a_page(&TestRequest::get().insert_header((header::ACCEPT, accept)).to_http_request())
        };
        for browser in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "text/html, */*;q=0.1",
            "TEXT/HTML",
            "text/html;charset=utf-8",
            "text/*, application/json;q=0.5",
            "application/json;q=0.2, text/html;q=0.3",
        ] {
            assert!(prefers(browser), "{browser}");
        }
        for program in [
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "application/json, text/html",
            "text/html, application/json",
            "text/html;q=0",
            "text/html;q=0, */*",
            "text/plain",
            "text/html;q=0.3, */*",
            "",
            "nonsense",
        ] {
            assert!(!prefers(program), "{program:?}");
        }
        assert!(!prefers_a_page(&TestRequest::get().to_http_request()));
    }
}

//! The check that a form was sent by a page of this console. Must not contain API keys.
//!
//! `SameSite=Strict` keeps the cookie from the requests of other sites. This check refuses the rest: a page of the same
//! site at another origin, such as another subdomain or port; a sign-in that another site sends; and forms to a service
//! that needs no key. No page can forge `Sec-Fetch-Site` or `Origin`, and every browser sends one of them with a POST.

use actix_web::{
    HttpRequest,
    http::{
        Uri,
        header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN},
    },
};

/// Where a browser says that a request comes from (W3C Fetch Metadata §2.4). Browsers send it over HTTPS, and to this
/// machine.
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where a browser says whether it opens a page (W3C Fetch Metadata §2.2).
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a page of this console sent the form.
pub(super) fn is_own(headers: &HeaderMap) -> bool {
    match headers.get(&SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => origin(headers).is_some_and(|origin| {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let sender = origin.authority();
            sender.zip(host).is_some_and(|(sender, host)| sender.as_str().eq_ignore_ascii_case(host))
        }),
    }
}

/// Whether a link on another site's page led here.
pub(super) fn is_link_elsewhere(headers: &HeaderMap) -> bool {
    let says = |name, word: &str| headers.get(name).is_some_and(|value| value == word);
    says(&SEC_FETCH_SITE, "cross-site") && says(&SEC_FETCH_MODE, "navigate")
}

/// Whether the browser reaches this console over plain HTTP, regardless of proxies.
pub(super) fn is_plain_http(request: &HttpRequest) -> bool {
    origin(request.headers()).is_some_and(|origin| origin.scheme_str() == Some("http"))
}

fn origin(headers: &HeaderMap) -> Option<Uri> {
    headers.get(ORIGIN).map(HeaderValue::as_bytes).and_then(|origin| Uri::try_from(origin).ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_form_is_our_own_by_what_the_browser_says_and_by_nothing_else() {
        let own = |headers: &[(&'static str, &str)]| {
            let mut request = TestRequest::post().insert_header((HOST, "points.example:8443"));
            for header in headers {
                request = request.insert_header(*header);
            }
            is_own(request.to_http_request().headers())
        };
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("sec-fetch-site", "same-origin"), ("origin", "https://rewritten.example")]));
        assert!(own(&[("origin", "https://points.example:8443")]));
        assert!(own(&[("origin", "https://Points.example:8443")]));
        for foreign in ["cross-site", "same-site", "none", ""] {
            assert!(
                !own(&[("sec-fetch-site", foreign), ("origin", "https://points.example:8443")]),
                "{foreign}"
            );
        }
        for foreign in
            ["null", "https://points.example", "https://evil.example", "https://points.example:8443.evil", ""]
        {
            assert!(!own(&[("origin", foreign)]), "{foreign}");
        }
        assert!(!own(&[]), "every browser says where a POST comes from");
    }
}

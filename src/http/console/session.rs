//! The cookie that holds the API key of a signed-in viewer. No node has any other session state. Must not
//! contain the rules of admission.

use actix_web::{
    HttpResponseBuilder,
    http::header::{self, HeaderMap},
};

use super::HOME;

/// The name of the cookie.
const NAME: &str = "point_system_key";

/// The key that a browser sends.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == NAME).map(|(_, key)| key)
}

/// Makes the browser send `key` with the requests to the console, and with no other: no script can read it
/// (`HttpOnly`), no other site's page can send it (`SameSite=Strict`), and off this machine it needs TLS (`Secure`). It
/// is deleted when the browser closes.
pub(super) fn begin(response: &mut HttpResponseBuilder, key: &str, is_loopback: bool) {
    let secure = if is_loopback { "" } else { "; Secure" };
    let cookie = format!("{NAME}={key}; Path={HOME}; HttpOnly; SameSite=Strict{secure}");
    response.insert_header((header::SET_COOKIE, cookie));
}

/// Makes the browser forget the key.
pub(super) fn end(response: &mut HttpResponseBuilder) {
    let cookie = format!("{NAME}=; Path={HOME}; HttpOnly; SameSite=Strict; Max-Age=0");
    response.insert_header((header::SET_COOKIE, cookie));
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_key_is_found_among_other_cookies() {
        let key_of = |cookies: &[&str]| {
            let mut request = TestRequest::get();
            for cookie in cookies {
                request = request.append_header((header::COOKIE, *cookie));
            }
            key(request.to_http_request().headers()).map(str::to_owned)
        };
        assert_eq!(key_of(&[]), None);
        assert_eq!(key_of(&["a=b; other_point_system_key=x"]), None);
        assert_eq!(key_of(&["a=b; point_system_key=ps_1;c"]).as_deref(), Some("ps_1"));
        assert_eq!(key_of(&["a=b", "point_system_key=ps_2"]).as_deref(), Some("ps_2"));
    }
}

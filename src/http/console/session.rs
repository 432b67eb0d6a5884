//! The cookie that holds the API key of a signed-in viewer. No node has any other session state. Must not
//! contain the rules of admission.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::HOME;

/// The name of the cookie.
const NAME: &str = "point_system_key";

/// The key that a browser sends. The cookies of other services on this host may have any bytes.
pub(super) fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let cookies =
        headers.get_all(header::COOKIE).flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut ours = cookies.filter_map(|cookie| cookie.trim_ascii().strip_prefix(NAME.as_bytes()));
    ours.find_map(|rest| rest.strip_prefix(b"="))
}

/// The header that makes a browser send `key` with the requests to the console, and with no other: no script can read it
/// (`HttpOnly`), no other site's page can send it (`SameSite=Strict`), and off this machine it needs TLS (`Secure`). It
/// is deleted when the browser closes.
pub(super) fn begin(key: &str, is_loopback: bool) -> (HeaderName, HeaderValue) {
    let secure = if is_loopback { "" } else { "; Secure" };
    cookie(key, secure)
}

/// The header that makes a browser forget the key.
pub(super) fn end() -> (HeaderName, HeaderValue) {
    cookie("", "; Max-Age=0")
}

fn cookie(key: &str, more: &str) -> (HeaderName, HeaderValue) {
    let cookie = format!("{NAME}={key}; Path={HOME}; HttpOnly; SameSite=Strict{more}");
    (header::SET_COOKIE, HeaderValue::try_from(cookie).expect("a key is visible ASCII"))
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
                let cookie = HeaderValue::from_bytes(cookie.as_bytes()).expect("a value");
                request = request.append_header((header::COOKIE, cookie));
            }
            key(request.to_http_request().headers()).map(|key| String::from_utf8_lossy(key).into_owned())
        };
        assert_eq!(key_of(&[]), None);
        assert_eq!(key_of(&["a=b; other_point_system_key=x"]), None);
        assert_eq!(key_of(&["a=b; point_system_key=ps_1;c"]).as_deref(), Some("ps_1"));
        assert_eq!(key_of(&["a=b", "point_system_key=ps_2"]).as_deref(), Some("ps_2"));
        assert_eq!(key_of(&["a=caf\u{e9}; point_system_key=ps_3"]).as_deref(), Some("ps_3"));
        assert_eq!(key_of(&["point_system_key_2=x; point_system_key=ps_4"]).as_deref(), Some("ps_4"));
    }
}

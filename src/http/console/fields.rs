//! The fields of a form, or of the query of a page. Must not contain rules of a field.

use std::time::Duration;

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::Method, web};
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use crate::http::{
    error::ApiError,
    points::{BODY_MAX_BYTES, BODY_TIMEOUT_S},
};

/// The fields that a browser sends: those of the body of a POST, otherwise those of the query.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The text of a field without spaces around it, or `None` if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// As [`Fields::get`], for a field that the form requires.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::invalid(name, "is required"))
    }

    /// The texts of a field that may appear many times.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn parse(encoded: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(encoded).into_owned().collect())
    }
}

impl FromRequest for Fields {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if request.method() != Method::POST {
            let query = Self::parse(request.query_string().as_bytes());
            return Box::pin(async move { Ok(query) });
        }
        let body = web::Payload::from_request(request, payload);
        Box::pin(async move {
            let malformed = |why: String| ApiError::MalformedBody(why);
            let body = body.await.map_err(|error| malformed(error.to_string()))?;
            let read = body.to_bytes_limited(BODY_MAX_BYTES);
            let read = timeout(Duration::from_secs(BODY_TIMEOUT_S), read).await;
            let read = read.map_err(|_| ApiError::BodyTimeout { limit_s: BODY_TIMEOUT_S })?;
            let read = read.map_err(|_| ApiError::BodyTooLarge { limit_bytes: BODY_MAX_BYTES })?;
            Ok(Self::parse(&read.map_err(|error| malformed(error.to_string()))?))
        })
    }
}

//! The parameters of a query, read strictly: none that is unknown, none twice. No handler may enter.

use std::borrow::Cow;

use actix_web::HttpRequest;
use jiff::Timestamp;

use super::problem::ApiError;
use crate::domain::{UserId, whole_number};

/// What a time must be.
const TIME_RULE: &str =
    "must be a time of RFC 3339 such as 2026-11-01T00:00:00Z, where a + is written as %2B";

/// The parameters of a request, by name.
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the parameters of a request, which may have those of `names`, each once.
    pub(super) fn of(request: &'a HttpRequest, names: &[&'static str]) -> Result<Self, ApiError> {
        let mut found: Vec<(&'static str, _)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
            let Some(known) = names.iter().find(|known| **known == name) else {
                let rule = format!("is not a parameter of this request, which has {}", names.join(", "));
                return Err(ApiError::invalid(&name, rule));
            };
            if found.iter().any(|(earlier, _)| earlier == known) {
                return Err(ApiError::invalid(known, "must be sent once"));
            }
            found.push((*known, value));
        }
        Ok(Self(found))
    }

    /// The parameter `id`, which each request about a user has.
    pub(super) fn user_id(&self) -> Result<UserId, ApiError> {
        let id = self.get("id").ok_or_else(|| ApiError::invalid("id", "is required, once"))?;
        let id = whole_number(id).ok_or_else(|| ApiError::invalid("id", UserId::RULE))?;
        Ok(UserId::new("id", id)?)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(&self, name: &'static str, most: i64) -> Result<Option<i64>, ApiError> {
        self.parsed(name, &format!("must be a whole number from 1 to {most}"), |text| {
            whole_number(text).filter(|number| (1..=most).contains(number))
        })
    }

    /// A time. Years have four digits, so none is out of PostgreSQL's range.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
        self.parsed(name, TIME_RULE, |text| {
            text.parse().ok().filter(|_| text.starts_with(|first: char| first.is_ascii_digit()))
        })
    }

    /// What `parse` makes of a parameter that was sent.
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| ApiError::invalid(name, rule))
    }

    fn get(&self, name: &'static str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }
}

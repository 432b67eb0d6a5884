//! The strict reader of query parameters, which accepts no unknown parameter, and the link to the next page. Must not
//! contain handlers.

use std::{borrow::Cow, collections::HashSet};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
};
use jiff::Timestamp;

use super::error::ApiError;
use crate::domain::{PAGE_MAX, UserId, whole_number};

/// The length of a page if the client names no limit.
const PAGE_DEFAULT: i64 = 50;

/// The rule for times.
const TIME_RULE: &str = "must be an RFC 3339 time such as 2026-11-01T00:00:00Z, with + written as %2B";

/// The parameters of a request, by name.
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the parameters of a request. Each of `names` may appear once, and no other.
    pub(super) fn of(request: &'a HttpRequest, names: &[&'static str]) -> Result<Self, ApiError> {
        Self::with_many(request, names, None)
    }

    /// As [`Query::of`], but `many` may appear many times.
    pub(super) fn with_many(
        request: &'a HttpRequest,
        names: &[&'static str],
        many: Option<&'static str>,
    ) -> Result<Self, ApiError> {
        let mut found: Vec<(&'static str, _)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
            let Some(known) = names.iter().find(|known| **known == name) else {
                let rule = format!("is not a parameter of this request, which takes {}", names.join(", "));
                return Err(ApiError::invalid(&name, rule));
            };
            if many != Some(*known) && found.iter().any(|(earlier, _)| earlier == known) {
                return Err(ApiError::invalid(known, "must be sent only once"));
            }
            found.push((*known, value));
        }
        Ok(Self(found))
    }

    /// The user whom the parameter `id` names.
    pub(super) fn user_id(&self) -> Result<UserId, ApiError> {
        let id = self.get("id").ok_or_else(|| ApiError::invalid("id", "is required"))?;
        Ok(UserId::new("id", id)?)
    }

    /// The users whom the parameters `id` name, in order: up to `most`, and none twice.
    pub(super) fn user_ids(&self, most: usize) -> Result<Vec<UserId>, ApiError> {
        let ids = self.0.iter().filter(|(name, _)| *name == "id").map(|(_, id)| UserId::new("id", id));
        let ids: Vec<UserId> = ids.take(most + 1).collect::<Result<_, _>>()?;
        if ids.len() > most {
            return Err(ApiError::invalid("id", format!("must be sent at most {most} times")));
        }
        let mut seen = HashSet::new();
        match ids.iter().find(|id| !seen.insert(*id)) {
            Some(twice) => Err(ApiError::invalid("id", format!("must not name a user twice: {twice}"))),
            None => Ok(ids),
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(&self, name: &'static str, most: i64) -> Result<Option<i64>, ApiError> {
        self.parsed(name, &format!("must be a whole number from 1 to {most}"), |text| {
            whole_number(text).filter(|number| (1..=most).contains(number))
        })
    }

    /// The length of a page.
    pub(super) fn limit(&self) -> Result<u16, ApiError> {
        let limit = self.number("limit", PAGE_MAX.into())?.unwrap_or(PAGE_DEFAULT);
        Ok(u16::try_from(limit).expect("in its range"))
    }

    /// A time. Years have four digits, so every time is within PostgreSQL's range.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
        self.parsed(name, TIME_RULE, |text| {
            text.parse().ok().filter(|_| text.starts_with(|first: char| first.is_ascii_digit()))
        })
    }

    /// Parses a parameter, unless it is absent.
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| ApiError::invalid(name, rule))
    }

    /// The text of a parameter, unless it is absent.
    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }
}

/// The header that links the next page (RFC 8288): the same request with another value of one parameter.
pub(super) fn next_page(request: &HttpRequest, name: &str, value: &str) -> (HeaderName, String) {
    let parameters = url::form_urlencoded::parse(request.query_string().as_bytes());
    let next = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters.filter(|(other, _)| other != name))
        .append_pair(name, value)
        .finish();
    (header::LINK, format!("<{}?{next}>; rel=\"next\"", request.path()))
}

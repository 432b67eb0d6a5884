//! The response to an error, as `application/problem+json` (RFC 9457). Must not contain handlers.

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    batch::{Fault, OperationResponse},
    error::{ApiError, Facts},
    probes::NodeResponse,
    schema,
};

/// The media type of every problem (RFC 9457 §6.1).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// An error (RFC 9457). More members may be added.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemResponse<'a> {
    /// Identifies the kind of problem and never changes. It is also the path of the page that explains it.
    #[schema(format = "uri-reference", pattern = "^/problems/[a-z-]+$")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The status of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, for people.
    detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// The change that was rejected, or that may still take effect despite the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    request_id: Option<String>,
    /// The request that a rejected change is about: the one to reverse or to end or, if that was already done, the
    /// first that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    r#ref: Option<String>,
    /// The unchanged balance of a rejected change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, schema_with = schema::balance)]
    balance: Option<i64>,
    /// Every fault of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<&'a [Fault]>,
    /// What happened to each operation of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operations: Option<&'a [OperationResponse]>,
    /// The state of a node that is not ready.
    #[serde(flatten)]
    #[schema(ignore)]
    node: Option<&'a NodeResponse>,
}

impl ApiError {
    /// The body of the response.
    pub(super) fn problem(&self) -> ProblemResponse<'_> {
        let (kind, Facts { field, sent, rejected, faults, operations, node, .. }) = self.facts();
        let row = kind.row();
        let request_id = sent.map(|sent| sent.request_id).or(rejected.map(|entry| entry.request_id));
        ProblemResponse {
            r#type: row.path(),
            title: row.title,
            status: row.status.as_u16(),
            detail: self.to_string(),
            field,
            request_id: request_id.map(|id| id.to_string()),
            r#ref: rejected.and_then(|entry| entry.reference).map(|id| id.to_string()),
            balance: rejected.map(|entry| entry.balance),
            errors: faults,
            operations,
            node,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.facts().0.row().status
    }

    fn error_response(&self) -> HttpResponse {
        let (kind, Facts { allow, challenge, retry_after, sent, .. }) = self.facts();
        let mut response = HttpResponse::build(kind.row().status);
        if let Some(allow) = allow {
            response.insert_header((header::ALLOW, allow));
        }
        if let Some(challenge) = challenge {
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(sent) = sent {
            response.insert_header((header::LOCATION, sent.location()));
        }
        if let Some(retry_after) = retry_after {
            response.insert_header((header::RETRY_AFTER, retry_after.as_secs().to_string()));
        }
        let mut response = response.json(self.problem());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

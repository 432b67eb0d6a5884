//! Corrections of a balance: the form with its preview, and the change itself. It is the change that the API makes for
//! the same key with `Prefer: wait`. Must not contain rules of the ledger.

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode, web};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    super::{
        door::{Viewer, redirect},
        fields::Fields,
    },
    PATH, address,
    ask::Ask,
    user_id,
};
use crate::{
    domain::{Action, Actor, Change, Delta, IdempotencyKey, Points, Reason, RequestId, UserId, whole_number},
    http::{Api, Sent, error::ApiError, points::now, traffic},
};

/// Where the forms are.
pub(super) const CORRECT: &str = "/console/user/correct";

/// The corrections of a balance.
pub(super) fn links(user_id: &UserId, is_known: bool) -> Markup {
    let to = |action| address(CORRECT, &[("id", user_id.as_str()), ("action", action)]);
    html! {
        div.row {
            a.button href=(to("add")) { "Add points…" }
            @if is_known { a.button href=(to("subtract")) { "Subtract points…" } }
        }
    }
}

/// The path of a correction that is about a request.
pub(super) fn of_request(user_id: &UserId, action: &str, request: RequestId) -> String {
    address(CORRECT, &[("id", user_id.as_str()), ("action", action), ("request", &request.to_string())])
}

/// A correction, as far as its form is filled in.
pub(super) struct Wanted {
    pub(super) user_id: UserId,
    pub(super) action: Action,
    /// The request to reverse, or of the hold to release.
    pub(super) request: Option<RequestId>,
    pub(super) key: String,
    pub(super) point: String,
    pub(super) reason: String,
    pub(super) is_partial: bool,
}

impl Wanted {
    fn of(fields: &Fields) -> Result<Self, ApiError> {
        let text = |name| fields.get(name).unwrap_or_default().to_owned();
        let action = Action::new(fields.required("action")?)?;
        let request = match action {
            Action::Add | Action::Subtract => None,
            Action::Reverse | Action::Release => Some(request_id(fields.required("request")?)?),
            Action::Transfer | Action::Hold | Action::Capture | Action::Expire => {
                return Err(ApiError::invalid("action", "must be add, subtract, reverse or release"));
            }
        };
        Ok(Self {
            user_id: user_id(fields)?,
            action,
            request,
            // Each form has a key of its own, so sending it again counts once.
            key: fields.get("key").map_or_else(|| RequestId::random().to_string(), str::to_owned),
            point: text("point"),
            reason: text("reason"),
            is_partial: fields.get("partial").is_some_and(|partial| partial != "false"),
        })
    }

    /// Whether the viewer has filled anything in.
    fn is_begun(&self) -> bool {
        !self.point.is_empty() || !self.reason.is_empty()
    }

    fn change(&self) -> Result<Change, ApiError> {
        let point = || {
            let point = whole_number(&self.point).ok_or_else(|| ApiError::invalid("point", Points::RULE))?;
            Ok::<_, ApiError>(Points::new(point)?)
        };
        let request = self.request.ok_or_else(|| ApiError::invalid("request", "is required"));
        Ok(match self.action {
            Action::Subtract => Change::Subtract { point: point()?, partial: self.is_partial },
            Action::Reverse => Change::Reverse { request: request?, partial: self.is_partial },
            Action::Release => Change::Release { hold: request? },
            Action::Add | Action::Transfer | Action::Hold | Action::Capture | Action::Expire => {
                Change::Add { point: point()?, expires_at: None }
            }
        })
    }

    /// The change, with the actor that the API would give it.
    fn delta(&self, request: &HttpRequest, viewer: &Viewer) -> Result<Delta, ApiError> {
        let (change, actor) = (self.change()?, viewer.actor().cloned());
        let reason = match self.reason.as_str() {
            "" => None,
            reason => Some(Reason::new(reason.to_owned())?),
        };
        let key = IdempotencyKey::new(&self.key)?;
        Ok(Delta {
            request_id: RequestId::from_key(actor.as_ref(), &self.user_id, &key),
            user_id: self.user_id.clone(),
            change,
            actor,
            reason,
            metadata: None,
            requested_at: now(),
            traceparent: traffic::trace(request),
        })
    }

    fn reason_is_missing(&self) -> Option<ApiError> {
        self.reason
            .is_empty()
            .then(|| ApiError::invalid("reason", "is required: others will read it in the log"))
    }
}

fn request_id(text: &str) -> Result<RequestId, ApiError> {
    Uuid::try_parse(text).map(RequestId::from).map_err(|_| ApiError::invalid("request", "must be a UUID"))
}

/// Shows the form of a correction, and its preview. Nothing changes.
pub(in super::super) async fn page(
    request: HttpRequest,
    viewer: Viewer,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    if fields.get("id").is_none() {
        return Ok(redirect(super::search::PATH));
    }
    let wanted = Wanted::of(&fields)?;
    let balance = api.service.balance(wanted.user_id.clone()).await?;
    let mut ask = Ask { wanted: &wanted, viewer: &viewer, balance, preview: None, fault: None };
    if !wanted.is_begun() && wanted.request.is_none() {
        return Ok(ask.show(StatusCode::OK));
    }
    let missing = if wanted.is_begun() { wanted.reason_is_missing() } else { None };
    match wanted.delta(&request, &viewer) {
        Ok(delta) => ask.preview = Some(api.service.preview(delta).await?),
        Err(fault) => ask.fault = Some(fault),
    }
    ask.fault = ask.fault.or(missing);
    let status = ask.fault.as_ref().map_or(StatusCode::OK, ResponseError::status_code);
    Ok(ask.show(status))
}

/// Makes a correction, and redirects to the page of the user, which shows the outcome.
pub(in super::super) async fn apply(
    request: HttpRequest,
    viewer: Viewer,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    fields.required("key")?;
    let wanted = Wanted::of(&fields)?;
    if let Some(missing) = wanted.reason_is_missing() {
        return Err(missing);
    }
    // Another actor's request is another request, even with the same key: it would count again.
    if fields.get("actor") != viewer.actor().map(Actor::as_str) {
        let why = "has changed since the preview: look at the log, then begin again";
        return Err(ApiError::invalid("actor", why));
    }
    let delta = wanted.delta(&request, &viewer)?;
    traffic::identify(&request, &delta);
    let sent = Sent::from(&delta);
    match api.service.apply_delta(delta).await {
        Ok(outcome) => {
            let done = outcome.entry.request_id.to_string();
            Ok(redirect(&address(PATH, &[("id", wanted.user_id.as_str()), ("done", &done)])))
        }
        Err(error) => match sent.not_applied(error) {
            error if error.facts().1.sent.is_some() => {
                let ask = Ask { wanted: &wanted, viewer: &viewer, balance: None, preview: None, fault: None };
                Ok(ask.again(&error))
            }
            refused => Err(refused),
        },
    }
}

//! The door of the console: the signed-in viewer, the pages that the viewer may see, and the rate limit. Must not
//! contain pages.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, HttpResponse,
    dev::{Payload, Service, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderName},
    web,
};
use futures_util::future::Either;

use super::{HOME, errors, layout, origin, session, sign_in};
use crate::{
    access::{Caller, Scope, Stranger},
    domain::Actor,
    http::{Api, admission, endpoints::Method, error::ApiError},
};

/// The header that htmx sends with each request, and the header that redirects it (htmx 2 reference).
pub(super) static HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
static HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// A person who is admitted.
#[derive(Clone)]
pub(super) struct Viewer {
    caller: Caller,
    /// Whether the viewer is on this machine and no key was ever created. Only then does an administrator need none.
    is_first: bool,
}

impl Viewer {
    /// Whether the viewer has the scope `needed`.
    pub(super) fn may(&self, needed: Scope) -> bool {
        self.caller.may(needed) && (needed < Scope::Admin || self.is_first || self.actor().is_some())
    }

    /// Who the viewer is, or `None` without a key.
    pub(super) fn actor(&self) -> Option<&Actor> {
        self.caller.actor()
    }

    /// The scope of the viewer's key, or `None` without a key.
    pub(super) fn scope(&self) -> Option<Scope> {
        match self.caller {
            Caller::Key { scope, .. } => Some(scope),
            Caller::Anonymous | Caller::OnThisMachine => None,
        }
    }
}

/// The viewer of a page that has a scope.
impl FromRequest for Viewer {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(of(request).expect("the door admitted somebody: the page has a scope")))
    }
}

/// The admitted viewer, if the page requires one.
pub(super) fn of(request: &HttpRequest) -> Option<Viewer> {
    request.extensions().get().cloned()
}

/// Why nobody is admitted.
enum Refusal {
    /// There is no key, or it is no longer valid.
    SignIn(Stranger),
    /// The page of another site sent the form.
    ForeignForm,
    /// The error that the API would return.
    Api(ApiError),
}

/// Calls `service` if the viewer has the scope that the page needs. A page without a scope is open to everybody.
pub(super) fn admit<S>(
    method: Method,
    needed: Option<Scope>,
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    match judge(method, needed, &request) {
        Ok(()) => Either::Left(service.call(request)),
        // A service on this machine that needs no key refuses what the page of another site sends, but not its links.
        Err(Refusal::Api(ApiError::LoopbackOnly { header }))
            if header == "Sec-Fetch-Site" && origin::is_link_elsewhere(request.headers()) =>
        {
            let answer = layout::again(target(&request));
            Either::Right(ready(Ok(request.into_response(answer))))
        }
        Err(Refusal::Api(error)) => Either::Right(ready(Ok(request.error_response(error)))),
        Err(Refusal::ForeignForm) => Either::Right(ready(Ok(request.into_response(errors::foreign_form())))),
        Err(Refusal::SignIn(stranger)) => {
            let answer = ask_to_sign_in(method, stranger, &request);
            Either::Right(ready(Ok(request.into_response(answer))))
        }
    }
}

fn judge(method: Method, needed: Option<Scope>, request: &ServiceRequest) -> Result<(), Refusal> {
    if method == Method::Post && !origin::is_own(request.headers()) {
        return Err(Refusal::ForeignForm);
    }
    let Some(needed) = needed else { return Ok(()) };
    let api = request.app_data::<web::Data<Api>>().expect("set beside the routes");
    let key = session::key(request.headers());
    let caller = api.access.caller(key).map_err(Refusal::SignIn)?;
    let (_, admitted) = admission::judge_caller(&caller, needed, request);
    let is_first = caller == Caller::OnThisMachine && api.access.is_before_first_key();
    let viewer = Viewer { caller, is_first };
    let may = viewer.may(needed);
    request.extensions_mut().insert(viewer);
    admitted.map_err(Refusal::Api)?;
    // Only a caller without a key gets this far without the scope. A key that it created would outlive the flag that
    // serves it.
    if may { Ok(()) } else { Err(Refusal::SignIn(Stranger::NoKey)) }
}

/// Redirects to the sign-in, and from there back to the page.
fn ask_to_sign_in(method: Method, stranger: Stranger, request: &ServiceRequest) -> HttpResponse {
    let (headers, target) = (request.headers(), target(request));
    if headers.contains_key(&HX_REQUEST) {
        // htmx would put the form of the sign-in into the page. It sends no form: a browser does that itself.
        return HttpResponse::Unauthorized().insert_header((HX_REDIRECT.clone(), sign_in::PATH)).finish();
    }
    match method {
        Method::Get if headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream") => {
            HttpResponse::Unauthorized().finish()
        }
        // The browser does not send the cookie with the first request after a click on another site's link.
        Method::Get if stranger == Stranger::NoKey && origin::is_link_elsewhere(headers) => {
            layout::again(target)
        }
        Method::Get => redirect(&sign_in::path_back_to(target)),
        Method::Post => redirect(sign_in::PATH_AFTER_FORM),
    }
}

fn target(request: &ServiceRequest) -> &str {
    request.uri().path_and_query().map_or(HOME, |target| target.as_str())
}

/// Redirects the browser to a page, which it gets with `GET`.
pub(super) fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

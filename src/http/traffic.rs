//! The observation of requests: counts and times each one, and logs those that their callers trace. Must not contain
//! anything about their content.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Instant};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{Method, header::HeaderName},
};
use log::{Level, kv::Value};

use super::admission;
use crate::{
    domain::{Delta, RequestId, TraceParent, UserId},
    infra::{logging, metrics::RouteMetrics},
};

/// The label of requests without a route: a path that a client makes up must not become a label.
const UNMATCHED: &str = "unmatched";

/// The header of W3C Trace Context §3.2, parsed once instead of for each request.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The metrics of the routes seen so far. Each thread has its own, so no thread waits for another.
pub(super) struct Routes(RefCell<Seen>);

struct Seen {
    places: HashMap<String, usize>,
    routes: Vec<RouteMetrics>,
}

impl Routes {
    pub(super) fn new() -> Rc<Self> {
        let unmatched = RouteMetrics::new(UNMATCHED);
        Rc::new(Self(RefCell::new(Seen { places: HashMap::new(), routes: vec![unmatched] })))
    }

    /// The place of a request's route. The path alone finds it if the pattern has no parameter.
    fn place(&self, request: &ServiceRequest) -> usize {
        let seen = &mut *self.0.borrow_mut();
        if let Some(place) = seen.places.get(request.path()) {
            return *place;
        }
        let Some(pattern) = request.match_pattern() else { return 0 };
        let routes = &mut seen.routes;
        *seen.places.entry(pattern).or_insert_with_key(|pattern| {
            routes.push(RouteMetrics::new(pattern));
            routes.len() - 1
        })
    }
}

/// The change and the user that a request is about. Its handler stores them for the log.
struct Identity(RequestId, UserId);

/// Stores the ids of a change for the log line of its request, if that line will be written.
pub(super) fn identify(request: &HttpRequest, delta: &Delta) {
    if log::log_enabled!(level(delta.traceparent.as_ref())) {
        request.extensions_mut().insert(Identity(delta.request_id, delta.user_id.clone()));
    }
}

/// The trace of a request.
pub(super) fn trace(request: &HttpRequest) -> Option<TraceParent> {
    request.extensions().get().cloned()
}

/// Only requests whose caller records its trace get a line: there may be thousands of others a second.
fn level(trace: Option<&TraceParent>) -> Level {
    if trace.is_some_and(TraceParent::is_sampled) { Level::Info } else { Level::Debug }
}

/// Passes a request on, then counts and times its answer.
pub(super) fn observe<S, B>(
    routes: &Rc<Routes>,
    request: ServiceRequest,
    next: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    let (arrived, routes, place) = (Instant::now(), Rc::clone(routes), routes.place(&request));
    let trace = read_trace(&request);
    let level = level(trace.as_ref());
    let method = log::log_enabled!(level).then(|| request.method().clone());
    if let Some(trace) = trace {
        request.extensions_mut().insert(trace);
    }
    let answering = next.call(request);
    async move {
        let answer = answering.await;
        let status = match &answer {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let route = &mut routes.0.borrow_mut().routes[place];
        let took = arrived.elapsed();
        route.answered(status.as_u16(), took);
        if let Some(method) = method {
            let request = answer.as_ref().ok().map(ServiceResponse::request);
            let line =
                Line { method, route: route.route(), status: status.as_u16(), ms: took.as_secs_f64() * 1e3 };
            line.write(level, request);
        }
        answer
    }
}

/// Reads a valid `traceparent` that is sent once. The standard says to ignore any other.
fn read_trace(request: &ServiceRequest) -> Option<TraceParent> {
    let mut values = request.headers().get_all(&TRACEPARENT);
    let value = values.next().filter(|_| values.next().is_none())?;
    TraceParent::parse(value.to_str().ok()?)
}

struct Line<'a> {
    method: Method,
    route: &'a str,
    status: u16,
    ms: f64,
}

impl Line<'_> {
    fn write(&self, level: Level, request: Option<&HttpRequest>) {
        let extensions = request.map(HttpRequest::extensions);
        let identity = extensions.as_ref().and_then(|all| all.get::<Identity>());
        let trace = extensions.as_ref().and_then(|all| all.get::<TraceParent>());
        let mut pairs = vec![
            ("method", self.method.as_str().into()),
            ("route", self.route.into()),
            ("status", self.status.into()),
            ("duration_ms", ((self.ms * 1e3).round() / 1e3).into()),
        ];
        if let Some(Identity(request_id, user_id)) = identity {
            pairs.push(("request_id", Value::from_display(request_id)));
            pairs.push(("user_id", Value::from_display(user_id)));
        }
        let actor = request.and_then(admission::actor);
        pairs.extend(actor.as_ref().map(|actor| ("actor", Value::from_display(actor))));
        pairs.extend(trace.map(|trace| ("traceparent", Value::from_display(trace))));
        logging::write(level, module_path!(), format_args!("answered"), &pairs);
    }
}

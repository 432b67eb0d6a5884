//! The table of endpoints, from which the routes, the admission of requests, the API's description and the tests come.
//! Must not contain handlers.

use actix_web::{
    FromRequest, Handler, HttpResponse, Responder,
    dev::HttpServiceFactory,
    guard,
    web::{self, ServiceConfig},
};
use utoipa::{
    OpenApi,
    openapi::path::{Operation, PathItem},
};

use super::{
    about, admission, balances, batch, error::ApiError, holds, outcome, pages, points, probes, user_log,
};
use crate::access::Scope;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The method of its requests.
    pub method: Method,
    /// Its path, with its parameters in braces.
    pub path: &'static str,
    /// The scope that a caller needs. Without one, the endpoint is open to everybody and is not rate limited.
    pub scope: Option<Scope>,
}

/// The methods that endpoints have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 9110 §9.3")]
pub enum Method {
    Get,
    Post,
}

const OPEN: Option<Scope> = None;
const READ: Option<Scope> = Some(Scope::Read);
const WRITE: Option<Scope> = Some(Scope::Write);

/// Makes the table: `ENDPOINTS`, a function that registers each group's routes, and the description of every handler.
macro_rules! endpoints {
    ($($(#[$doc:meta])* $group:ident { $($method:ident $path:literal $scope:ident $($handler:ident)::+;)* })*) => {
        /// Every endpoint that the API's description has.
        pub const ENDPOINTS: &[Endpoint] = &[$($(
            Endpoint { method: Method::$method, path: $path, scope: $scope },
        )*)*];

        $(
            $(#[$doc])*
            pub(super) fn $group(config: &mut ServiceConfig) {
                $(
                    let endpoint = Endpoint { method: Method::$method, path: $path, scope: $scope };
                    config.service(resource(endpoint, $($handler)::+));
                )*
            }
        )*

        #[derive(OpenApi)]
        #[openapi(paths($($($($handler)::+),*),*))]
        pub(super) struct Handlers;
    };
}

// To add an endpoint, add its row and a handler whose `utoipa::path` repeats the method and the path. A test fails if
// they differ.
endpoints! {
    /// Registers the endpoints of the API, which only `serve` has.
    api {
        Post "/v1/point/add"                  WRITE points::add;
        Post "/v1/point/subtract"             WRITE points::subtract;
        Post "/v1/point/reverse"              WRITE points::reverse;
        Post "/v1/point/transfer"             WRITE points::transfer;
        Post "/v1/point/hold"                 WRITE holds::hold;
        Post "/v1/point/capture"              WRITE holds::capture;
        Post "/v1/point/release"              WRITE holds::release;
        Post "/v1/point/batch"                WRITE batch::batch;
        Get  "/v1/point"                      READ  points::balance;
        Get  "/v1/point/holds"                READ  holds::holds;
        Get  "/v1/points"                     READ  balances::balances;
        Get  "/v1/point/log"                  READ  user_log::log;
        Get  "/v1/point/request/{request_id}" READ  outcome::outcome;
        Get  "/"                              OPEN  about::about;
        Get  "/ping"                          OPEN  about::ping;
        Get  "/openapi.json"                  OPEN  pages::description;
        Get  "/docs"                          OPEN  pages::docs;
        Get  "/docs/{file}"                   OPEN  pages::file;
        Get  "/problems"                      OPEN  pages::problems;
        Get  "/problems/{kind}"               OPEN  pages::problem;
    }

    /// Registers the probes, which the metrics listener has too.
    probes {
        Get  "/livez"                         OPEN  probes::livez;
        Get  "/readyz"                        OPEN  probes::readyz;
    }
}

/// Registers the endpoints of the metrics listener: the probes, and the metrics, which are not part of the API.
pub(super) fn metrics(config: &mut ServiceConfig) {
    let metrics = Endpoint { method: Method::Get, path: "/metrics", scope: OPEN };
    config.configure(probes).service(resource(metrics, probes::exposition));
}

impl Method {
    /// The value of `Allow`. RFC 9110 §9.1 requires HEAD wherever there is GET.
    #[must_use]
    pub fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

impl Endpoint {
    /// Finds the endpoint's operation in the item of its path.
    pub(super) fn operation(self, item: &mut PathItem) -> Option<&mut Operation> {
        match self.method {
            Method::Get => item.get.as_mut(),
            Method::Post => item.post.as_mut(),
        }
    }
}

/// Routes an endpoint to its handler. Requests with another method get the list of those that it takes.
fn resource<A: FromRequest + 'static>(
    Endpoint { method, path, scope }: Endpoint,
    handler: impl Handler<A, Output: Responder + 'static>,
) -> impl HttpServiceFactory {
    let route = match method {
        // The server leaves out the body of an answer to HEAD.
        Method::Get => web::route().guard(guard::Any(guard::Get()).or(guard::Head())),
        Method::Post => web::post(),
    };
    let refuse =
        move || async move { Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allow: method.allow() }) };
    web::resource(path)
        .route(route.to(handler))
        .default_service(web::to(refuse))
        .wrap_fn(move |request, service| admission::admit(scope, request, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The handlers of the rows, in their order, from the text of the table.
    fn handlers() -> Vec<String> {
        let table = include_str!("endpoints.rs").split("\nendpoints! {").nth(1).expect("the table");
        let table = table.split("\n}").next().expect("its end");
        let rows = table.lines().filter_map(|line| line.trim().strip_suffix(';'));
        rows.map(|row| row.rsplit("::").next().expect("a name").to_owned()).collect()
    }

    #[test]
    fn every_handler_is_annotated_with_the_method_and_the_path_of_its_row() {
        let mut description = Handlers::openapi();
        assert_eq!(description.paths.paths.len(), ENDPOINTS.len(), "a path has one row");
        assert_eq!(handlers().len(), ENDPOINTS.len());
        for (endpoint, handler) in ENDPOINTS.iter().zip(handlers()) {
            let item = description.paths.paths.get_mut(endpoint.path);
            let operation = item.and_then(|item| endpoint.operation(item));
            let id = operation.and_then(|operation| operation.operation_id.clone());
            assert_eq!(id.as_deref(), Some(handler.as_str()), "{endpoint:?}");
        }
    }
}

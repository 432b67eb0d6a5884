//! The console, for people: its table of pages, and the modules that all of them share. Must not contain a page.

use actix_web::{
    FromRequest, Handler, HttpResponse, Responder, Scope as Room,
    dev::HttpServiceFactory,
    guard,
    web::{self, ServiceConfig},
};

use super::{
    endpoints::{Endpoint, Method},
    error::ApiError,
};
use crate::access::Scope;

mod door;
mod session;
mod origin;
mod layout;
mod components;
mod errors;
mod fields;
mod assets;
mod sign_in;
mod sparklines;
mod overview;
mod help;
mod troubles;
mod live;
mod user;
mod request;
mod dead_letters;
mod keys;

/// Where the console is.
pub(super) const HOME: &str = "/console";

const OPEN: Option<Scope> = None;
const READ: Option<Scope> = Some(Scope::Read);
const WRITE: Option<Scope> = Some(Scope::Write);
const ADMIN: Option<Scope> = Some(Scope::Admin);

/// Makes the table: `PAGES`, and the function that registers the routes.
macro_rules! pages {
    ($($method:ident $path:literal $scope:ident $($handler:ident)::+;)*) => {
        /// Every page and form of the console.
        pub const PAGES: &[Endpoint] = &[$(
            Endpoint { method: Method::$method, path: concat!("/console", $path), scope: $scope },
        )*];

        fn pages(room: Room) -> Room {
            room$(.service(page(Method::$method, $path, $scope, $($handler)::+)))*
        }
    };
}

// A page is one file and its rows here. Forms post to their pages: no `Get` changes anything.
pages! {
    Get  ""                         READ  overview::page;
    Get  "/live"                    READ  live::events;
    Get  "/users"                   READ  user::search::page;
    Get  "/user"                    READ  user::page;
    Get  "/user/correct"            WRITE user::correct::page;
    Post "/user/correct"            WRITE user::correct::apply;
    Get  "/request"                 READ  request::page;
    Get  "/dead-letters"            ADMIN dead_letters::page;
    Post "/dead-letters"            ADMIN dead_letters::settle;
    Get  "/keys"                    ADMIN keys::page;
    Post "/keys"                    ADMIN keys::create;
    Post "/keys/revoke"             ADMIN keys::revoke;
    Get  "/help"                    READ  help::index;
    Get  "/help/{document}"         READ  help::document;
    Get  "/sign-in"                 OPEN  sign_in::page;
    Post "/sign-in"                 OPEN  sign_in::enter;
    Post "/sign-out"                OPEN  sign_in::leave;
    Get  "/assets/{version}/{file}" OPEN  assets::file;
}

/// Registers the console.
pub(super) fn console(config: &mut ServiceConfig) {
    let room = pages(web::scope(HOME)).default_service(web::to(nothing_here)).wrap_fn(errors::explain);
    config.service(room);
}

/// Routes the requests of one method on a path to a handler, through the door.
fn page<A: FromRequest + 'static>(
    method: Method,
    path: &'static str,
    scope: Option<Scope>,
    handler: impl Handler<A, Output: Responder + 'static>,
) -> impl HttpServiceFactory {
    let resource = web::resource(path);
    let resource = match method {
        Method::Get => resource.guard(guard::Any(guard::Get()).or(guard::Head())),
        Method::Post => resource.guard(guard::Post()),
    };
    resource.to(handler).wrap_fn(move |request, service| door::admit(method, scope, request, service))
}

async fn nothing_here() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NotFound)
}

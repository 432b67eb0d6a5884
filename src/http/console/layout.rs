//! The frame around the content of every page: the head, the bar with the menu, and the footer. Must not contain
//! content.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use maud::{DOCTYPE, Markup, html};

use super::{assets, door::Viewer, sign_in};
use crate::{access::Scope, infra::build};

/// Turns off the features of htmx that the content security policy forbids, and shows the responses to errors: each is
/// a notice (`errors.rs`).
const HTMX_CONFIG: &str = r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"historyCacheSize":0,"refreshOnHistoryMiss":true,"responseHandling":[{"code":"204","swap":false},{"code":"...","swap":true}]}"#;

/// An entry of the menu.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Users,
    Request,
    DeadLetters,
    Keys,
}

impl Place {
    const ALL: [Self; 5] = [Self::Overview, Self::Users, Self::Request, Self::DeadLetters, Self::Keys];

    /// The name in the menu, the path, and the scope that a viewer needs.
    fn row(self) -> (&'static str, &'static str, Scope) {
        match self {
            Self::Overview => ("Overview", "/console", Scope::Read),
            Self::Users => ("Users", "/console/users", Scope::Read),
            Self::Request => ("Request", "/console/request", Scope::Read),
            Self::DeadLetters => ("Dead letters", "/console/dead-letters", Scope::Admin),
            Self::Keys => ("Keys", "/console/keys", Scope::Admin),
        }
    }
}

/// A page, without its content.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// The viewer. `None` on pages that are open to everybody: they have no menu.
    pub(super) viewer: Option<&'a Viewer>,
    /// The entry of the menu that it belongs to.
    pub(super) place: Option<Place>,
    /// The scripts that only this page needs, by the names in `assets.rs`.
    pub(super) scripts: &'a [&'a str],
}

impl Page<'_> {
    /// The page as an answer.
    pub(super) fn show(&self, content: &Markup) -> HttpResponse {
        self.answer(StatusCode::OK, content)
    }

    /// As [`Page::show`], with another status.
    pub(super) fn answer(&self, status: StatusCode, content: &Markup) -> HttpResponse {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    (meta(self.title))
                    meta name="htmx-config" content=(HTMX_CONFIG);
                    @if self.scripts.contains(&"uplot.js") {
                        link rel="stylesheet" href=(assets::path("uplot.css"));
                    }
                    script src=(assets::path("htmx.min.js")) defer {}
                    script src=(assets::path("console.js")) defer {}
                    @for script in self.scripts { script src=(assets::path(script)) defer {} }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    (self.bar())
                    main #main tabindex="-1" {
                        div #notices aria-live="polite" {}
                        (content)
                    }
                    footer.foot {
                        span { "point-system " (build::VERSION) }
                        a href="/console/help" { "Help" }
                        a href="/docs" { "API" }
                        a href="/problems" { "Problems" }
                    }
                }
            }
        };
        fragment(status, &page)
    }

    fn bar(&self) -> Markup {
        html! {
            header.bar {
                a.brand href="/console" { (logo()) "point-system" }
                @if let Some(viewer) = self.viewer {
                    nav.menu aria-label="Main" { ul {
                        @for place in Place::ALL {
                            @let (name, path, scope) = place.row();
                            @if viewer.may(scope) {
                                li { a href=(path) aria-current=[(self.place == Some(place)).then_some("page")] { (name) } }
                            }
                        }
                    } }
                    (who(viewer))
                }
            }
        }
    }
}

/// The name of the viewer, and the button to sign out.
fn who(viewer: &Viewer) -> Markup {
    html! {
        div.who {
            @if let (Some(actor), Some(scope)) = (viewer.actor(), viewer.scope()) {
                span.actor title="The name of your API key, and its scope" {
                    (actor) " " span.badge { (scope.as_str()) }
                }
                form method="post" action="/console/sign-out" { button.plain type="submit" { "Sign out" } }
            } @else {
                span.actor title="This service answers without an API key" { "No key" }
                a href=(sign_in::PATH) { "Sign in" }
            }
        }
    }
}

/// A page that redirects to `target` immediately. The browser sends the cookie with that request, because it comes from
/// a page of this console.
pub(super) fn again(target: &str) -> HttpResponse {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (meta("One moment"))
                meta http-equiv="refresh" content={ "0; url=" (target) };
            }
            body { main #main { p { a href=(target) { "Continue to the console" } } } }
        }
    };
    fragment(StatusCode::OK, &page)
}

/// Part of a page, for htmx.
pub(super) fn fragment(status: StatusCode, content: &Markup) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::VARY, "Cookie, HX-Request"))
        .body(content.0.clone())
}

fn meta(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        meta name="robots" content="noindex";
        title { (title) " · point-system" }
        link rel="icon" type="image/svg+xml" href=(assets::path("icon.svg"));
        link rel="stylesheet" href=(assets::path("console.css"));
    }
}

/// The mark of the product: three coins in a stack.
fn logo() -> Markup {
    html! {
        svg.logo viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false" {
            path d="M4 16.5c0 1.9 3.6 3.5 8 3.5s8-1.6 8-3.5v-1.6c-1.7 1.4-4.700 2.300-8 2.300s-6.300-.9-8-2.300z" {}
            path d="M4 12c0 1.900 3.600 3.500 8 3.500s8-1.600 8-3.500v-1.600c-1.700 1.400-4.700 2.300-8 2.300s-6.300-.9-8-2.300z" {}
            ellipse cx="12" cy="7.500" rx="8" ry="3.500" {}
        }
    }
}

//! The files that the pages need: our own, and third-party files, which `assets/vendor.sh` takes from their packages.
//! Must not contain pages.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse, http::header};
use xxhash_rust::xxh3::Xxh3;

use crate::http::error::ApiError;

/// The files, by name: media type and text.
const FILES: [(&str, &str, &str); 8] = [
    ("console.css", "text/css; charset=utf-8", include_str!("../assets/console/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("../assets/console/console.js")),
    ("overview.js", "text/javascript; charset=utf-8", include_str!("../assets/console/overview.js")),
    ("user.js", "text/javascript; charset=utf-8", include_str!("../assets/console/user.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/console/icon.svg")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_str!("../assets/vendor/htmx.org/htmx.min.js")),
    ("uplot.js", "text/javascript; charset=utf-8", include_str!("../assets/vendor/uplot/uPlot.iife.min.js")),
    ("uplot.css", "text/css; charset=utf-8", include_str!("../assets/vendor/uplot/uPlot.min.css")),
];

/// A file of this version never changes: a browser keeps it, and never asks for it again.
const KEPT: &str = "public, max-age=31536000, immutable";

/// Names the texts of all files. It is part of their paths, so a page always gets the files of its own version.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Xxh3::new();
    for (_, _, text) in FILES {
        hash.update(text.as_bytes());
    }
    format!("{:016x}", hash.digest())
});

/// The path of a file.
pub(super) fn path(name: &str) -> String {
    debug_assert!(FILES.iter().any(|(known, ..)| *known == name), "{name}");
    format!("/console/assets/{}/{name}", *VERSION)
}

/// A file. While nodes of two versions serve, a node may be asked for a file of the other version: it answers with its
/// own, which the browser must not keep.
pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let part = |name| request.match_info().get(name).unwrap_or_default();
    let found = FILES.iter().find(|(name, ..)| *name == part("file"));
    let (_, media_type, text) = found.ok_or(ApiError::NotFound)?;
    let caching = if part("version") == *VERSION { KEPT } else { "no-store" };
    Ok(HttpResponse::Ok()
        .content_type(*media_type)
        .insert_header((header::CACHE_CONTROL, caching))
        .body(*text))
}

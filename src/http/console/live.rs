//! The stream of server-sent events that keeps the overview up to date. Must not contain what the page shows.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header, web};
use futures_util::stream;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{door::Viewer, overview};
use crate::{http::Api, ops::overview::Picture};

/// The pause after which a comment shows both ends that the other one is still there.
const KEEP_ALIVE_S: u64 = 2;

/// How long a browser waits before it connects again.
const RETRY_MS: u64 = 3_000;

type Pictures = watch::Receiver<Option<Arc<Picture>>>;

/// Sends each picture of the installation, until the viewer leaves or the node stops.
pub(super) async fn events(
    _: Viewer,
    api: web::Data<Api>,
    stop: web::Data<CancellationToken>,
) -> HttpResponse {
    let mut pictures = api.overview.watch();
    // The viewer's page has the current picture, if there is one.
    pictures.mark_unchanged();
    let begin = (pictures, stop.get_ref().clone(), Some(format!("retry: {RETRY_MS}\n\n")));
    let events = stream::unfold(begin, |(mut pictures, stop, first)| async move {
        let event = match first {
            Some(first) => first,
            None => stop.run_until_cancelled(next(&mut pictures)).await?,
        };
        Some((Ok::<_, actix_web::Error>(web::Bytes::from(event)), (pictures, stop, None)))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        // nginx would collect the events.
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events)
}

/// The next picture as an event, or a comment if that takes long.
async fn next(pictures: &mut Pictures) -> String {
    let changed = timeout(Duration::from_secs(KEEP_ALIVE_S), pictures.changed()).await;
    let picture = changed.is_ok().then(|| pictures.borrow_and_update().clone()).flatten();
    match picture {
        // JSON has no line ends, so it is one line of data (HTML, server-sent events).
        Some(picture) => format!("data: {}\n\n", picture.shown(overview::event)),
        None => ":\n\n".to_owned(),
    }
}

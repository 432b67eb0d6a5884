//! The stream of server-sent events that keeps the overview up to date. Must not contain what the page shows.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web,
};
use futures_util::stream;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{door::Viewer, overview, session};
use crate::{http::Api, ops::overview::Picture};

/// The pause after which a comment shows each end that the other is still there.
const KEEP_ALIVE_S: u64 = 2;

/// How long a browser waits before it connects again.
const RETRY_MS: u64 = 3_000;

/// A viewer's stream.
struct Stream {
    pictures: watch::Receiver<Option<Arc<Picture>>>,
    api: web::Data<Api>,
    key: Option<Vec<u8>>,
    stop: CancellationToken,
    /// Whether the browser knows when to connect again.
    has_begun: bool,
}

/// Sends each picture of the installation, until the viewer leaves, the key is revoked, or the node stops.
pub(super) async fn events(
    _: Viewer,
    request: HttpRequest,
    api: web::Data<Api>,
    stop: web::Data<CancellationToken>,
) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        // Otherwise nginx would buffer the events.
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header((header::CACHE_CONTROL, "no-store"));
    // Nothing would be written to the client, so nothing would show that it has left.
    if request.method() == Method::HEAD {
        return response.finish();
    }
    let mut pictures = api.overview.watch();
    // The viewer's page has the current picture, if there is one.
    pictures.mark_unchanged();
    let key = session::key(request.headers()).map(<[u8]>::to_owned);
    let begin = Stream { pictures, api, key, stop: stop.get_ref().clone(), has_begun: false };
    let events = stream::unfold(begin, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, actix_web::Error>(web::Bytes::from(event)), stream))
    });
    response.streaming(events)
}

impl Stream {
    /// The next picture as an event, or a comment if there is none for a while. `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if !self.has_begun {
            self.has_begun = true;
            return Some(format!("retry: {RETRY_MS}\n\n"));
        }
        let changed = timeout(Duration::from_secs(KEEP_ALIVE_S), self.pictures.changed());
        let changed = self.stop.run_until_cancelled(changed).await?;
        self.api.access.caller(self.key.as_deref()).ok()?;
        let picture = changed.is_ok().then(|| self.pictures.borrow_and_update().clone()).flatten();
        Some(match picture {
            // JSON has no line ends, so it is one line of data (HTML, server-sent events).
            Some(picture) => format!("data: {}\n\n", picture.shown(overview::event)),
            None => ":\n\n".to_owned(),
        })
    }
}

//! The body of an answer, in pieces. Must not contain anything about content.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

/// The most bytes of a piece. The server takes pieces until 32 KiB wait for the client (`h1_write_buffer_size` of
/// actix-http). Without pieces, it would copy a large answer as a whole, for every client that does not read.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// A body that hands out its content in pieces.
pub(super) struct Pieces {
    body: BoxBody,
    rest: Bytes,
}

impl Pieces {
    pub(super) fn new(body: BoxBody) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl MessageBody for Pieces {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let Self { body, rest } = self.get_mut();
        if rest.is_empty() {
            match ready!(Pin::new(body).poll_next(context)) {
                Some(Ok(bytes)) => *rest = bytes,
                end => return Poll::Ready(end),
            }
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
        Poll::Ready(Some(Ok(piece)))
    }
}

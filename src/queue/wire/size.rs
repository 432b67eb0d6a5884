//! How large a delta may be in a message. Must not contain the format.

use crate::domain::{Delta, TraceParent};

/// The largest size of a delta without its texts: the names of all members, two UUIDs and a time of 30 characters,
/// with room to spare.
const DELTA_OVERHEAD_BYTES: usize = 256;

/// The size of a trace with its name: `,"traceparent":"…"`.
const TRACE_BYTES: usize = 17 + TraceParent::BYTES;

/// The largest size of `delta` in a message, in bytes. User ids and a reason have no control characters, so JSON escapes
/// each of their bytes into at most two.
pub(in crate::queue) fn max_bytes(delta: &Delta) -> usize {
    DELTA_OVERHEAD_BYTES
        + 2 * delta.user_id.as_str().len()
        + 2 * delta.change.to().map_or(0, |to| to.as_str().len())
        + delta.actor.as_ref().map_or(0, |actor| actor.as_str().len())
        + 2 * delta.reason.as_ref().map_or(0, |reason| reason.as_str().len())
        + delta.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
        + delta.traceparent.as_ref().map_or(0, |_| TRACE_BYTES)
}

//! A client's connection: its slot in the limit of its listener, and how long the client may be silent. Must not
//! contain anything about requests.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::infra::metrics::ConnectionMetrics;

/// The pause between two log lines about connections over the limit.
const LOG_PAUSE_S: u64 = 10;

/// How long a client may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// From the start of the connection, or the first byte of a request, until the head of the request is complete.
    pub(super) head: Duration,
    /// From an answer until the first byte of the next request.
    pub(super) keep_alive: Duration,
}

/// The slots of a listener: one for each open connection, up to its limit.
pub(super) struct Slots {
    listener: &'static str,
    limit: usize,
    taken: AtomicUsize,
    metrics: ConnectionMetrics,
    told: Mutex<Option<Instant>>,
}

impl Slots {
    pub(super) fn new(listener: &'static str, limit: usize) -> Arc<Self> {
        let metrics = ConnectionMetrics::new(listener, limit);
        Arc::new(Self { listener, limit, taken: AtomicUsize::new(0), metrics, told: Mutex::new(None) })
    }

    /// Takes a slot unless all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Slot> {
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit {
            self.metrics.open.inc();
            return Some(Slot(Arc::clone(self)));
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.metrics.refused.inc();
        self.tell();
        None
    }

    /// When three quarters of the slots are taken, idle connections end sooner.
    fn is_crowded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit - self.limit / 4
    }

    fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(LOG_PAUSE_S)) {
            *told = Some(Instant::now());
            let Self { listener, limit, .. } = self;
            log::warn!(
                "{limit} connections are open on the {listener} listener, its limit: new ones are closed immediately"
            );
        }
    }
}

/// The slot of an open connection, until it is dropped.
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.open.dec();
    }
}

/// What a connection waits for.
#[derive(Clone, Copy)]
enum Phase {
    /// The rest of the head of a request that began at this time.
    Head(Instant),
    /// Our own answer.
    Answer,
    /// The next request, since this time.
    Request(Instant),
}

/// The phase of a connection, shared with its requests.
pub(super) struct Activity(Cell<Phase>);

impl Activity {
    /// Notes that a head is complete. The caller drops the returned guard when the answer is ready.
    pub(super) fn answering(self: &Rc<Self>) -> Answering {
        self.0.set(Phase::Answer);
        Answering(Rc::clone(self))
    }

    fn received(&self) {
        if let Phase::Request(_) = self.0.get() {
            self.0.set(Phase::Head(Instant::now()));
        }
    }

    /// A client that reads its answer is not silent.
    fn sent(&self) {
        match self.0.get() {
            Phase::Head(_) => self.0.set(Phase::Head(Instant::now())),
            Phase::Request(_) => self.0.set(Phase::Request(Instant::now())),
            Phase::Answer => {}
        }
    }
}

/// Marks a request as in progress until it is dropped.
pub(super) struct Answering(Rc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.set(Phase::Request(Instant::now()));
    }
}

/// A connection that ends when its client is silent for too long: then a read finds the end of the stream, and a write
/// that has to wait fails.
pub(super) struct Connection {
    stream: TcpStream,
    activity: Rc<Activity>,
    silence: Silence,
    /// Fires at the deadline or earlier, and is then reset. No request has to set it.
    timer: Pin<Box<Sleep>>,
    is_over: bool,
    slot: Slot,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, slot: Slot, silence: Silence) -> Self {
        let activity = Rc::new(Activity(Cell::new(Phase::Head(Instant::now()))));
        let timer = Box::pin(sleep(silence.head.min(silence.keep_alive)));
        Self { stream, activity, silence, timer, is_over: false, slot }
    }

    pub(super) fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    fn deadline(&self) -> Option<Instant> {
        let Silence { head, keep_alive } = self.silence;
        match self.activity.0.get() {
            Phase::Head(since) => Some(since + head),
            Phase::Answer => None,
            Phase::Request(since) if self.slot.0.is_crowded() => Some(since + keep_alive.min(head)),
            Phase::Request(since) => Some(since + keep_alive),
        }
    }

    /// Ready when the client has been silent for too long.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.is_over {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            // The shortest limit of any later phase.
            let next = now + self.silence.head.min(self.silence.keep_alive);
            match self.deadline() {
                Some(deadline) if deadline <= now => self.is_over = true,
                deadline => self.timer.as_mut().reset(deadline.map_or(next, |deadline| deadline.min(next))),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let before = buffer.filled().len();
        // Check the deadline first: otherwise a client that never stops sending would never be closed.
        if connection.is_over || connection.poll_deadline(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut connection.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            connection.activity.received();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        let written = Pin::new(&mut connection.stream).poll_write(context, bytes);
        match &written {
            Poll::Ready(_) => connection.activity.sent(),
            Poll::Pending => {
                ready!(connection.poll_deadline(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

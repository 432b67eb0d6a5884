//! The server of a listener: its limit of connections, their deadlines, and its shutdown. Must not contain routes.

use std::{
    future::ready, io, net::TcpListener, num::NonZero, rc::Rc, thread::available_parallelism, time::Duration,
};

use actix_http::{
    Extensions, HttpService, KeepAlive, Request, Response, body::MessageBody, error::DispatchError,
};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, Service, ServiceFactory};
use tokio::net::TcpStream;

use super::{
    connection::{Activity, Connection, Silence, Slots},
    pieces::Pieces,
};

/// The time limit for a client to send the head of a request, the same for every request of a connection.
const REQUEST_HEAD_TIMEOUT_S: u64 = 10;

/// The time limit for a client to close a connection that the server has closed.
const DISCONNECT_TIMEOUT_S: u64 = 1;

/// How long a connection may be idle by default: longer than load balancers keep idle connections.
pub const KEEP_ALIVE_S: u64 = 75;

/// The most connections of API clients. An idle one takes about 20 KiB.
const CONNECTIONS_MAX: usize = 10_000;

/// The fewest connections that make a useful server.
const CONNECTIONS_MIN: usize = 64;

/// The most connections of the metrics listener.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// The descriptors that a process needs beside its clients' connections: at most 43 connections to PostgreSQL, those to
/// RabbitMQ, the metrics listener with its connections, and files.
const OWN_DESCRIPTORS: usize = 96 + METRICS_CONNECTIONS_MAX;

/// The descriptors of a server thread, including its connections over the limit.
const THREAD_DESCRIPTORS: usize = 4 + CLOSING_PER_THREAD;

/// The connections over the limit that a thread accepts at a time. It closes them before it accepts more.
const CLOSING_PER_THREAD: usize = 4;

/// The most threads of a server.
const THREADS_MAX: usize = 512;

/// How a listener treats its connections.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    name: &'static str,
    connections: usize,
    threads: usize,
    keep_alive: Duration,
}

impl HttpLimits {
    /// The limits of the API. Raises the process's limit of open files as far as needed and allowed, and reserves the
    /// descriptors that the process needs itself.
    ///
    /// # Errors
    /// The process may not open enough files.
    pub fn for_api(keep_alive: Duration) -> io::Result<Self> {
        let threads = available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
        let own = OWN_DESCRIPTORS + threads * THREAD_DESCRIPTORS;
        let descriptors = rlimit::increase_nofile_limit((own + CONNECTIONS_MAX) as u64)?;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let connections = descriptors.saturating_sub(own).min(CONNECTIONS_MAX);
        if connections < CONNECTIONS_MIN {
            let needed = own + CONNECTIONS_MIN;
            let why =
                format!("the limit of open files (ulimit -n) is {descriptors}; at least {needed} are needed");
            return Err(io::Error::other(why));
        }
        log::debug!("up to {connections} connections: {descriptors} files may be open");
        Ok(Self { name: "api", connections, threads, keep_alive })
    }

    /// The limits of the metrics listener.
    pub(super) fn for_metrics() -> Self {
        let keep_alive = Duration::from_secs(KEEP_ALIVE_S);
        Self { name: "metrics", connections: METRICS_CONNECTIONS_MAX, threads: 1, keep_alive }
    }
}

/// Starts to serve `app` on `listener`. A server that stops lets current requests finish within `drain`.
///
/// # Errors
/// The listener can't be used.
pub(super) fn start<F, I, S, B>(
    listener: TcpListener,
    limits: HttpLimits,
    drain: Duration,
    app: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Error = actix_web::Error, InitError = ()> + 'static,
    S::Response: Into<Response<B>> + 'static,
    S::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let HttpLimits { name, connections, threads, keep_alive } = limits;
    let silence = Silence { head: Duration::from_secs(REQUEST_HEAD_TIMEOUT_S), keep_alive };
    let slots = Slots::new(name, connections);
    let address = listener.local_addr()?;
    let builder = Server::build();
    let stopping = builder.graceful_shutdown_signal();
    let server = builder
        .workers(threads)
        // Connections over the limit are closed, a few at a time: the accept loop never runs out of descriptors.
        .max_concurrent_connections(connections / threads + CLOSING_PER_THREAD)
        .shutdown_timeout(drain.as_secs() + u64::from(drain.subsec_nanos() > 0))
        .disable_signals()
        .listen(name, listener, move || {
            let (slots, stopping) = (slots.clone(), stopping.clone());
            let app = app().into_factory().map_err(|error| error.error_response());
            let app = map_config(app, |()| AppConfig::default());
            let app = apply_fn_factory(app, |request: Request, app: &_| {
                let answering = request.conn_data::<Rc<Activity>>().map(Activity::answering);
                let answer = Service::call(app, request);
                async move {
                    let answer = answer.await;
                    drop(answering);
                    answer.map(|answer| {
                        let answer: Response<B> = answer.into();
                        answer.map_body(|_, body| Pieces::new(body.boxed()))
                    })
                }
            });
            let http = HttpService::build()
                // Connections have their own deadlines: those of the dispatcher apply to the first request only,
                // and end with a body that is not read.
                .keep_alive(KeepAlive::Os)
                .client_request_timeout(Duration::ZERO)
                .client_disconnect_timeout(Duration::from_secs(DISCONNECT_TIMEOUT_S))
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .local_addr(address)
                .on_connect_ext(|connection: &Connection, data: &mut Extensions| {
                    data.insert(connection.activity());
                })
                .h1(app);
            fn_service(move |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                let slot = slots.take().ok_or(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
                ready(slot.map(|slot| (Connection::new(stream, slot, silence), peer)))
            })
            .and_then(http)
        })?
        .run();
    Ok(server)
}

//! The HTTP endpoints. They are read-only, and nobody can use them up.
//!
//! | path | aliases | answer |
//! |---|---|---|
//! | `/` | | a page that links to the others |
//! | `/metrics` | | text exposition for Prometheus, never touches the database |
//! | `/livez` | `/healthz`, `/-/healthy` | 200 while every loop makes progress, else 503 with `reasons`; never touches the database |
//! | `/readyz` | `/-/ready` | 200 when listening and swept, else 503 with `reasons` |
//! | `/status` | | the fleet as JSON, 503 with `error` when it cannot be had |
//!
//! Other paths are 404, methods other than GET and HEAD are 405 with `Allow`. No endpoint takes a parameter.
//!
//! A client has 5 s for a request head of at most 16 KiB (431), and a connection lives 30 s. At most 64 are open.
//! When all places are taken, the newcomer gets that of the oldest connection which is not being answered; if all
//! are, it waits up to 1 s for one. So idle and slow clients cost a scrape nothing, however many there are.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use places::{Place, Places};

mod places;
mod routes;
#[cfg(test)]
mod tests;

/// The largest request head; Prometheus and browsers send less than 1 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// accept fails when descriptors run out: wait until some are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A lasting failure to accept is one line in this time.
const ACCEPT_LOG_PAUSE: Duration = Duration::from_secs(10);

/// What the endpoints show. The server knows nothing else of the daemon.
pub trait Endpoints: Send + Sync + 'static {
    /// The text exposition. It must not wait for the database.
    fn metrics(&self) -> String;
    /// Whether every loop makes progress.
    ///
    /// # Errors
    /// The reasons why not.
    fn live(&self) -> Result<(), Vec<String>>;
    /// Whether events arrive and the fleet is known.
    ///
    /// # Errors
    /// The reasons why not.
    fn ready(&self) -> Result<(), Vec<String>>;
    /// The fleet as JSON.
    fn status(&self) -> BoxFuture<'_, Result<serde_json::Value, String>>;
}

/// How long clients may take and how many there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// From accept, or from the last answer, to the end of the next request head.
    head: Duration,
    /// From accept to the last request.
    life: Duration,
    /// From the end of that life, or from shutdown, to the end of an answer.
    grace: Duration,
    /// For [`Endpoints::status`].
    status: Duration,
    connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            life: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            status: Duration::from_secs(20),
            connections: 64,
        }
    }
}

/// Answers requests until `shutdown`, then finishes those in flight within 2 s.
pub async fn serve(
    listener: TcpListener,
    endpoints: Arc<dyn Endpoints>,
    shutdown: CancellationToken,
) {
    if let Ok(address) = listener.local_addr()
        && !address.ip().is_loopback()
    {
        warn!(
            "http.listen = {address} is open to others, and the endpoints ask for no password: keep it on 127.0.0.1 or behind a proxy"
        );
    }
    serve_within(Limits::default(), listener, endpoints, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    endpoints: Arc<dyn Endpoints>,
    shutdown: CancellationToken,
) {
    let places = Places::new(limits.connections);
    let connections = TaskTracker::new();
    let accept_all = async {
        let mut logged = None;
        loop {
            let stream = accept(&listener, &mut logged).await;
            let place = places.take().await;
            let (endpoints, shutdown) = (Arc::clone(&endpoints), shutdown.clone());
            connections.spawn(serve_one(limits, stream, place, endpoints, shutdown));
        }
    };
    shutdown.run_until_cancelled(accept_all).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next client. Failing to get one is never the end of the server.
async fn accept(listener: &TcpListener, logged: &mut Option<Instant>) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() > ACCEPT_LOG_PAUSE) {
                    warn!(%error, "accept an http connection failed, trying again");
                    *logged = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(
    limits: Limits,
    stream: TcpStream,
    place: Arc<Place>,
    endpoints: Arc<dyn Endpoints>,
    shutdown: CancellationToken,
) {
    let service = service_fn(async |request: Request<Incoming>| {
        let _answering = place.answering();
        let (method, path) = (request.method(), request.uri().path());
        Ok::<_, Infallible>(routes::answer(&*endpoints, limits.status, method, path).await)
    });
    // Without a timer hyper ignores its timeout for the head.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        result = connection.as_mut() => {
            if let Err(error) = result {
                debug!(%error, "http connection ended");
            }
            return;
        }
        () = place.evicted() => return,
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(limits.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    if tokio::time::timeout(limits.grace, connection)
        .await
        .is_err()
    {
        debug!("http connection cut after its grace period");
    }
}

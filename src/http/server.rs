//! The server: actix-web on a thread of its own, with a bound on everything that comes in.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, guard};
use tokio::sync::oneshot;

use super::exposition::{self, Scrape};
use super::{LogLevel, NodeStatus};
use crate::metrics::Metrics;

/// Connections at a time. A few scrapers and probes need a handful; more wait until one closes.
pub const MAX_CONNECTIONS: usize = 64;
/// A request must be complete within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes nothing of its response for this long is cut off, by the kernel.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept for its next request: a little more than Prometheus' shortest usual interval.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The longest directives that `PUT /log-level` takes.
const MAX_BODY_BYTES: usize = 1 << 10;

const TEXT: &str = "text/plain; charset=utf-8";
const PATHS: &str = "there is /metrics, /live, /ready and /log-level here\n";

/// What the server tells of.
#[derive(Clone)]
pub struct HttpSettings {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How things stand.
    pub status: Arc<dyn NodeStatus>,
    /// What is logged; `None` in a process whose log is not the node's.
    pub log: Option<Arc<dyn LogLevel>>,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Serves on `listener`, which is bound already. Returns at once: the server comes up beside the node.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(listener: TcpListener, settings: HttpSettings) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopping) = oneshot::channel();
        let serve = move || {
            let ended = actix_web::rt::System::new().block_on(serve(listener, settings, stopping));
            if let Err(error) = ended {
                tracing::error!(%error, "the HTTP listener failed: there are no metrics and probes until a restart");
            }
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // The server may have failed, and said so.
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, settings: HttpSettings, stopping: oneshot::Receiver<()>) -> std::io::Result<()> {
    let metrics = Arc::clone(&settings.metrics);
    let server = actix_web::HttpServer::new(move || App::new().configure(|app| routes(app, settings.clone())))
        .on_connect(move |socket, connection| admit(socket, connection, &metrics))
        .workers(1)
        .max_connections(MAX_CONNECTIONS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .client_disconnect_timeout(REQUEST_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        // Either way there is nobody left to serve for.
        let _ = stopping.await;
        handle.stop(false).await;
    });
    server.await
}

fn routes(app: &mut web::ServiceConfig, settings: HttpSettings) {
    let read = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    let other = || web::to(|| async { plain(HttpResponse::MethodNotAllowed(), "this path takes GET\n") });
    app.app_data(Data::new(settings))
        .service(web::resource("/metrics").route(read().to(metrics)).default_service(other()))
        .service(web::resource("/live").route(read().to(live)).default_service(other()))
        .service(web::resource("/ready").route(read().to(ready)).default_service(other()))
        .service(
            web::resource("/log-level")
                .route(read().to(log_level))
                .route(web::put().to(set_log_level))
                .default_service(web::to(|| async {
                    plain(HttpResponse::MethodNotAllowed(), "this path takes GET and PUT\n")
                })),
        )
        .default_service(web::to(|| async { plain(HttpResponse::NotFound(), PATHS) }));
}

/// A connection as long as it is open.
struct Counted(Arc<Metrics>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.http.open.decrease();
    }
}

fn admit(socket: &dyn std::any::Any, connection: &mut Extensions, metrics: &Arc<Metrics>) {
    metrics.http.accepted.add(1);
    metrics.http.open.increase();
    connection.insert(Counted(Arc::clone(metrics)));
    let Some(socket) = socket.downcast_ref::<TcpStream>() else { return };
    // The server itself waits for ever for a client that does not read, and there are few places.
    let timeout = u32::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(socket, timeout) {
        tracing::debug!(%error, "a client that does not read is not cut off");
    }
}

fn plain(mut response: actix_web::HttpResponseBuilder, text: impl Into<String>) -> HttpResponse {
    response.insert_header((CONTENT_TYPE, TEXT)).body(text.into())
}

async fn metrics(settings: Data<HttpSettings>) -> HttpResponse {
    let scrape = Scrape::begin(&settings.metrics, settings.status.as_ref());
    HttpResponse::Ok().insert_header((CONTENT_TYPE, exposition::CONTENT_TYPE)).streaming(scrape)
}

/// A process that answers lives: a panic anywhere ends it.
async fn live() -> HttpResponse {
    plain(HttpResponse::Ok(), "live\n")
}

async fn ready(settings: Data<HttpSettings>) -> HttpResponse {
    let reasons = settings.status.not_ready();
    if reasons.is_empty() {
        return plain(HttpResponse::Ok(), "ready\n");
    }
    plain(HttpResponse::ServiceUnavailable(), reasons.join("\n") + "\n")
}

/// The control of the log, if `request` may have it; else what to answer.
fn log_of<'a>(
    request: &HttpRequest,
    settings: &'a HttpSettings,
) -> Result<&'a dyn LogLevel, (StatusCode, &'static str)> {
    if !request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return Err((StatusCode::FORBIDDEN, "the log level is shown to and changed by this machine only\n"));
    }
    let none = "this process keeps its own log, which the node does not set up\n";
    settings.log.as_deref().ok_or((StatusCode::NOT_FOUND, none))
}

async fn log_level(request: HttpRequest, settings: Data<HttpSettings>) -> HttpResponse {
    match log_of(&request, &settings) {
        Ok(log) => plain(HttpResponse::Ok(), log.get() + "\n"),
        Err((status, why)) => plain(HttpResponse::build(status), why),
    }
}

async fn set_log_level(request: HttpRequest, body: Payload, settings: Data<HttpSettings>) -> HttpResponse {
    let log = match log_of(&request, &settings) {
        Ok(log) => log,
        Err((status, why)) => return plain(HttpResponse::build(status), why),
    };
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, body.to_bytes_limited(MAX_BODY_BYTES)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(error))) => return plain(HttpResponse::BadRequest(), format!("{error}\n")),
        Ok(Err(_)) => return plain(HttpResponse::PayloadTooLarge(), format!("more than {MAX_BODY_BYTES} bytes\n")),
        Err(_) => return plain(HttpResponse::RequestTimeout(), "the directives did not arrive in time\n"),
    };
    match log.set(String::from_utf8_lossy(&body).trim()) {
        Ok(()) => {
            let peer = request.peer_addr().map(tracing::field::display);
            tracing::info!(directives = %log.get(), peer, "the log level was changed");
            plain(HttpResponse::Ok(), log.get() + "\n")
        }
        Err(error) => plain(HttpResponse::BadRequest(), error + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Mutex;

    use actix_web::test::{TestRequest, call_service, init_service};

    use super::*;
    use crate::http::NodeSample;

    /// A node of which only the log matters.
    struct Quiet;

    impl NodeStatus for Quiet {
        fn not_ready(&self) -> Vec<String> {
            Vec::new()
        }

        fn sample(&self) -> NodeSample {
            NodeSample::default()
        }
    }

    struct Directives(Mutex<String>);

    impl LogLevel for Directives {
        fn get(&self) -> String {
            self.0.lock().expect("nobody panics").clone()
        }

        fn set(&self, directives: &str) -> Result<(), String> {
            directives.clone_into(&mut self.0.lock().expect("nobody panics"));
            Ok(())
        }
    }

    /// What a node that logs at `info` answers to `PUT trace` from `peer`, and the level afterwards.
    fn put_log_level(peer: &str) -> (StatusCode, String) {
        let log = Arc::new(Directives(Mutex::new("info".to_owned())));
        let settings = HttpSettings {
            metrics: Arc::new(Metrics::default()),
            status: Arc::new(Quiet),
            log: Some(Arc::clone(&log) as Arc<dyn LogLevel>),
        };
        let peer = SocketAddr::new(peer.parse::<IpAddr>().expect("an address"), 40_000);
        let status = actix_web::rt::System::new().block_on(async {
            let app = init_service(App::new().configure(|app| routes(app, settings))).await;
            let put = TestRequest::put().uri("/log-level").peer_addr(peer).set_payload("trace");
            call_service(&app, put.to_request()).await.status()
        });
        (status, log.get())
    }

    #[test]
    fn only_this_machine_changes_the_log_level() {
        for peer in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(put_log_level(peer), (StatusCode::OK, "trace".to_owned()), "{peer}");
        }
        for peer in ["192.0.2.7", "10.0.0.1", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.7"] {
            assert_eq!(put_log_level(peer), (StatusCode::FORBIDDEN, "info".to_owned()), "{peer}");
        }
    }
}

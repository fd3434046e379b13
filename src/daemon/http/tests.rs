//! Every route over a real socket.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

mod limits;

const GENEROUS: Duration = Duration::from_secs(10);

/// Endpoints whose answers the test chooses; `/status` waits for `go` when `hold` is set.
#[derive(Default)]
struct Stub {
    ill: AtomicBool,
    hold: AtomicBool,
    asked: Notify,
    go: Notify,
}

impl Stub {
    fn probe(&self, reason: &str) -> Result<(), Vec<String>> {
        let ill = self.ill.load(Ordering::Relaxed);
        if ill {
            Err(vec![reason.to_owned()])
        } else {
            Ok(())
        }
    }
}

impl Endpoints for Stub {
    fn metrics(&self) -> String {
        assert!(!self.ill.load(Ordering::Relaxed), "metrics panic");
        "tenantd_tenants 3\n".to_owned()
    }
    fn live(&self) -> Result<(), Vec<String>> {
        self.probe("sweeper stuck")
    }
    fn ready(&self) -> Result<(), Vec<String>> {
        self.probe("not listening")
    }
    fn status(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        Box::pin(async {
            if self.hold.load(Ordering::Relaxed) {
                self.asked.notify_one();
                self.go.notified().await;
            }
            self.probe("database is down")
                .map_err(|reasons| reasons.concat())?;
            Ok(json!({"schema_version": 1}))
        })
    }
}

struct Server {
    port: u16,
    stub: Arc<Stub>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (stub, shutdown) = (Arc::new(Stub::default()), CancellationToken::new());
        let task = tokio::spawn(serve_within(
            limits,
            listener,
            stub.clone(),
            shutdown.clone(),
        ));
        Self {
            port,
            stub,
            shutdown,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("connect")
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.expect("write");
        stream
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        rest(self.send(&request).await).await
    }
}

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(GENEROUS, stream.read_to_end(&mut text)).await;
    // A reset after the answer still is the end.
    let _ = read.expect("the server closes the connection");
    String::from_utf8(text).expect("utf-8")
}

fn assert_answer(answer: &str, code: u16, parts: &[&str]) {
    let start = format!("HTTP/1.1 {code} ");
    assert!(answer.starts_with(&start), "{code}: {answer}");
    for part in parts.iter().chain(&[
        "x-content-type-options: nosniff\r\n",
        "cache-control: no-store\r\n",
    ]) {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[tokio::test]
async fn every_route_answers() {
    let server = Server::start(Limits::default()).await;
    let metrics = server.ask("GET", "/metrics?x=/status").await;
    let content_type = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert_answer(
        &metrics,
        200,
        &[content_type, "\r\n\r\ntenantd_tenants 3\n"],
    );
    for path in ["/livez", "/healthz", "/-/healthy", "/readyz", "/-/ready"] {
        assert_answer(
            &server.ask("GET", path).await,
            200,
            &["application/json", "{\"status\":\"ok\"}"],
        );
    }
    assert_answer(
        &server.ask("GET", "/status").await,
        200,
        &["{\"schema_version\":1}"],
    );
    assert_answer(&server.ask("GET", "/nothing").await, 404, &["{\"error\":"]);
    let page = server.ask("GET", "/").await;
    assert_answer(
        &page,
        200,
        &[
            "content-security-policy: default-src 'none'",
            "href=\"readyz\"",
        ],
    );
    assert!(!page.contains("<script"));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_503() {
    let server = Server::start(Limits::default()).await;
    server.stub.ill.store(true, Ordering::Relaxed);
    assert_answer(
        &server.ask("GET", "/livez").await,
        503,
        &["\"reasons\":[\"sweeper stuck\"]"],
    );
    assert_answer(
        &server.ask("GET", "/readyz").await,
        503,
        &["\"reasons\":[\"not listening\"]"],
    );
    assert_answer(
        &server.ask("GET", "/status").await,
        503,
        &["{\"error\":\"database is down\"}"],
    );
}

#[tokio::test]
async fn a_panic_in_an_endpoint_ends_one_connection_only() {
    let server = Server::start(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    server.stub.ill.store(true, Ordering::Relaxed);
    assert_eq!(server.ask("GET", "/metrics").await, "");
    server.stub.ill.store(false, Ordering::Relaxed);
    assert_answer(&server.ask("GET", "/metrics").await, 200, &[]);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(Limits::default()).await;
    for path in ["/", "/metrics", "/livez", "/readyz", "/status", "/nothing"] {
        let head = server.ask("HEAD", path).await;
        let get = server.ask("GET", path).await;
        let headers = |answer: &str| {
            let lines = answer.split("\r\n").take_while(|line| !line.is_empty());
            lines
                .filter(|line| !line.starts_with("date"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(headers(&head), headers(&get));
        assert!(
            head.ends_with("\r\n\r\n") && !get.ends_with("\r\n\r\n"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let server = Server::start(Limits::default()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/metrics", "/status", "/nothing"] {
            assert_answer(
                &server.ask(method, path).await,
                405,
                &["allow: GET, HEAD\r\n"],
            );
        }
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let server = Server::start(Limits::default()).await;
    let first = "GET /livez HTTP/1.1\r\nHost: t\r\n\r\n";
    let both = rest(
        server
            .send(&format!(
                "{first}GET /status HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
            ))
            .await,
    )
    .await;
    assert_answer(
        &both,
        200,
        &["{\"status\":\"ok\"}", "{\"schema_version\":1}"],
    );
}

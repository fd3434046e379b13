//! From method and path to an answer.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Endpoints;

/// The encoder's own constant lacks the charset, which Prometheus 3 expects.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

const PAGE: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>tenantd</title></head>\n<body>\n",
    "<h1>tenantd ",
    env!("CARGO_PKG_VERSION"),
    "</h1>\n",
    "<p>Keeps every tenant schema of a PostgreSQL application at head.</p>\n<ul>\n",
    "<li><a href=\"status\">status</a>: the fleet as JSON</li>\n",
    "<li><a href=\"metrics\">metrics</a>: for Prometheus</li>\n",
    "<li><a href=\"livez\">livez</a>: whether the process works</li>\n",
    "<li><a href=\"readyz\">readyz</a>: whether events arrive</li>\n",
    "</ul>\n</body>\n</html>\n",
);

pub(super) type Answer = Response<Full<Bytes>>;

/// Answers one request. hyper takes the body off the answer to a HEAD.
pub(super) async fn answer(
    endpoints: &dyn Endpoints,
    limit: Duration,
    method: &Method,
    path: &str,
) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = json(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"error": "only GET and HEAD"}),
        );
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/" => page(),
        "/metrics" => response(StatusCode::OK, EXPOSITION, endpoints.metrics()),
        "/livez" | "/healthz" | "/-/healthy" => probe(endpoints.live()),
        "/readyz" | "/-/ready" => probe(endpoints.ready()),
        "/status" => status(endpoints, limit).await,
        _ => json(StatusCode::NOT_FOUND, &json!({"error": "no such page"})),
    }
}

fn page() -> Answer {
    let mut answer = response(StatusCode::OK, HTML, PAGE);
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer
}

fn probe(result: Result<(), Vec<String>>) -> Answer {
    match result {
        Ok(()) => json(StatusCode::OK, &json!({"status": "ok"})),
        Err(reasons) => json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "unavailable", "reasons": reasons}),
        ),
    }
}

async fn status(endpoints: &dyn Endpoints, limit: Duration) -> Answer {
    let result = tokio::time::timeout(limit, endpoints.status()).await;
    match result.unwrap_or_else(|_| Err(format!("status took longer than {limit:?}"))) {
        Ok(status) => json(StatusCode::OK, &status),
        Err(error) => json(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": error})),
    }
}

fn json(code: StatusCode, value: &Value) -> Answer {
    response(code, JSON, format!("{value}\n"))
}

fn response(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

//! Clients that take too much, and the end.

use super::*;

#[tokio::test]
async fn a_large_head_is_refused() {
    let server = Server::start(Limits::default()).await;
    let fits = format!(
        "GET /livez HTTP/1.1\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(15 * 1024)
    );
    assert_answer(&rest(server.send(&fits).await).await, 200, &[]);
    let large = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    let answer = rest(server.send(&large).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
    let answer = rest(server.send(&many).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let head = Duration::from_millis(300);
    let server = Server::start(Limits {
        head,
        ..Limits::default()
    })
    .await;
    let (silent, mut trickling) = (
        server.connect().await,
        server.send("GET /livez HTTP/1.1\r\n").await,
    );
    let start = Instant::now();
    while trickling.write_all(b"X: y\r\n").await.is_ok() {
        assert!(start.elapsed() < GENEROUS, "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() >= head);
    assert!(!rest(silent).await.contains("200"));
    let used = server.send("GET /livez HTTP/1.1\r\n\r\n").await;
    assert_answer(&rest(used).await, 200, &[]);
}

#[tokio::test]
async fn a_connection_does_not_live_for_ever() {
    let server = Server::start(Limits {
        life: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut stream = server.connect().await;
    let start = Instant::now();
    while stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .is_ok()
    {
        assert!(start.elapsed() < GENEROUS, "still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn slow_and_idle_clients_do_not_stop_a_scrape() {
    let server = Server::start(Limits::default()).await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let text = if number % 2 == 0 {
            ""
        } else {
            "GET /metrics HTTP/1.1\r\nX: "
        };
        idle.push(server.send(text).await);
    }
    let start = Instant::now();
    assert_answer(&server.ask("GET", "/metrics").await, 200, &[]);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(idle);
}

#[tokio::test]
async fn a_newcomer_waits_while_everybody_is_being_answered() {
    let server = Server::start(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    server.stub.hold.store(true, Ordering::Relaxed);
    let request = "GET /status HTTP/1.1\r\nConnection: close\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(server.send(request).await);
        server.stub.asked.notified().await;
    }
    let newcomer = server.ask("GET", "/livez");
    let mut newcomer = pin!(newcomer);
    let early = tokio::time::timeout(Duration::from_millis(200), newcomer.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    server.stub.go.notify_waiters();
    assert_answer(&newcomer.await, 200, &[]);
    for stream in held {
        assert_answer(&rest(stream).await, 200, &[]);
    }
}

#[tokio::test]
async fn answers_that_hang_do_not_stop_a_scrape() {
    let server = Server::start(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    server.stub.hold.store(true, Ordering::Relaxed);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(server.send("GET /status HTTP/1.1\r\n\r\n").await);
        server.stub.asked.notified().await;
    }
    assert_answer(&server.ask("GET", "/metrics").await, 200, &[]);
}

#[tokio::test]
async fn a_status_that_hangs_is_given_up() {
    let status = Duration::from_millis(100);
    let server = Server::start(Limits {
        status,
        ..Limits::default()
    })
    .await;
    server.stub.hold.store(true, Ordering::Relaxed);
    let answer = server.ask("GET", "/status").await;
    assert_answer(
        &answer,
        503,
        &["{\"error\":\"status took longer than 100ms\"}"],
    );
}

#[tokio::test]
async fn shutdown_finishes_the_answer_in_flight() {
    let server = Server::start(Limits::default()).await;
    server.stub.hold.store(true, Ordering::Relaxed);
    let stream = server.send("GET /status HTTP/1.1\r\n\r\n").await;
    server.stub.asked.notified().await;
    server.shutdown.cancel();
    while TcpStream::connect(("127.0.0.1", server.port)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stub.go.notify_waiters();
    assert_answer(&rest(stream).await, 200, &["{\"schema_version\":1}"]);
    tokio::time::timeout(GENEROUS, server.task)
        .await
        .expect("ends")
        .expect("no panic");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_stuck_answer() {
    let server = Server::start(Limits {
        grace: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    server.stub.hold.store(true, Ordering::Relaxed);
    let _stuck = server.send("GET /status HTTP/1.1\r\n\r\n").await;
    server.stub.asked.notified().await;
    server.shutdown.cancel();
    tokio::time::timeout(GENEROUS, server.task)
        .await
        .expect("ends")
        .expect("no panic");
}

//! Clients of the HTTP endpoints and servers that mean harm.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tenantd::config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::CANARY;
use crate::support::{App, Ran, more::address, until};

/// Seconds from a request to its whole answer.
async fn scrape(address: &str) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    start.elapsed()
}

/// Reads until the server closes; how long that took.
async fn closed(mut stream: TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest))
        .await
        .expect("the server closes it");
    since.elapsed()
}

#[tokio::test]
async fn five_hundred_slow_clients_a_huge_head_and_idle_ones_cost_a_scrape_nothing() {
    let app = App::new("slow clients").await;
    let daemon = app.daemon().await;
    let address = address(&daemon.log()).unwrap();
    let start = Instant::now();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await;
        slow.push(stream);
    }
    let mut took = Vec::new();
    for _ in 0..100 {
        took.push(scrape(&address).await);
    }
    took.sort();
    assert!(
        // How long it takes by itself is for the benchmark to say.
        took[98] <= Duration::from_secs(1),
        "99th percentile of a scrape: {:?}",
        took[98]
    );
    let mut huge = TcpStream::connect(&address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = huge.write_all(head.as_bytes()).await;
    let mut answer = [0; 13];
    // The server answers before it has read everything, and the rest may reset the connection.
    if huge.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431 ");
    }
    slow.push(idle);
    for stream in slow {
        let took = closed(stream, start).await;
        assert!(took <= Duration::from_secs(10), "reaped after {took:?}");
    }
    assert_eq!(daemon.get("/livez").await.0, 200);
}

/// A server that shakes hands as told, then answers every message with these bytes.
async fn impostor(hello: Vec<u8>, answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (hello, answer) = (hello.clone(), answer.clone());
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                let mut say = &hello;
                while matches!(stream.read(&mut heard).await, Ok(1..))
                    && stream.write_all(say).await.is_ok()
                {
                    say = &answer;
                }
            });
        }
    });
    port
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn a_hostile_server_costs_an_error_and_no_memory() {
    let app = App::bare("hostile server").await;
    let welcome = [
        message(b'R', &[0, 0, 0, 0]),
        message(b'K', &[0; 8]),
        message(b'Z', b"I"),
    ]
    .concat();
    let sasl = message(b'R', &[&[0, 0, 0, 10][..], b"SCRAM-SHA-256\0\0"].concat());
    // It cannot know the client's nonce; any prefix will do where the count is looked at first.
    let scram = message(
        b'R',
        &[&[0, 0, 0, 11][..], b"r=x,s=QSXCR+Q6sek8bf92,i=1000000000"].concat(),
    );
    let giant = [&[b'D'][..], &0x4000_0000_u32.to_be_bytes()].concat();
    let columns = [
        &[0, 1][..],
        b"x\0",
        &[0; 6],
        &23_u32.to_be_bytes(),
        &[0, 4, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let short_row = [
        message(b'T', &columns),
        message(b'D', &[0, 9, 0, 0]),
        message(b'Z', b"I"),
    ]
    .concat();
    for (what, hello, answer) in [
        ("a row that is cut short", welcome.clone(), short_row),
        ("a message of 1 GB", giant.clone(), giant),
        ("10^9 iterations of SCRAM", sasl, scram),
        (
            "a negative length",
            message(b'R', &[0, 0, 0, 0]),
            vec![b'D', 0xff, 0xff, 0xff, 0xff],
        ),
        ("noise", vec![0x80; 64], vec![0x80; 64]),
    ] {
        let port = impostor(hello, answer).await;
        let url =
            format!("host=127.0.0.1 port={port} user=a dbname=a password={CANARY} sslmode=disable");
        // An allocation of 1 GB would end it with a signal.
        let mut shell = std::process::Command::new("sh");
        shell.args([
            "-c",
            "ulimit -v 900000; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_tenantd"),
        ]);
        shell
            .arg("--config")
            .arg(app.config())
            .args(["status", "-d", &url]);
        let start = Instant::now();
        let child = shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ran: Ran = crate::support::more::finish(child).await;
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(
            start.elapsed() < Duration::from_secs(7),
            "{what}: {:?}",
            start.elapsed()
        );
        assert!(
            !ran.stderr.contains("panicked") && !ran.stderr.contains(CANARY),
            "{what}: {ran:?}"
        );
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_warned_about_and_the_default_is_not_one() {
    let default = config::Config::default().http.listen.unwrap();
    assert!(default.ip().is_loopback(), "{default}");
    let app = App::new("open address").await;
    for (listen, warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let daemon = app.start_with(&["--set", &format!("http.listen={listen}")]);
        until("the daemon to listen", async || {
            (daemon.log().contains("listening on"), daemon.log())
        })
        .await;
        assert_eq!(
            daemon.log().contains("is open to others"),
            warned,
            "{}",
            daemon.log()
        );
    }
}

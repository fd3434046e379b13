//! The server is started, restarted, refused and removed.
#![allow(
    dead_code,
    unused_imports,
    reason = "a benchmark without the test harness compiles this file too"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// How long a killed process may leave its server behind.
const LIMIT: Duration = Duration::from_secs(10);
const TOLD: &str = "server: ";

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_dropped_server_leaves_nothing_behind() {
    let started = Instant::now();
    let server = Server::start(Options {
        tcp: true,
        ..Options::default()
    })
    .await
    .expect("start");
    println!("started in {:?}", started.elapsed());
    let (pid, directory) = (server.pid(), server.socket_dir().to_owned());
    let tcp = server.tcp_conninfo("postgres");
    let tcp = tokio_postgres::connect(&tcp, tokio_postgres::NoTls).await;
    let (client, connection) = tcp.expect("connect over TCP");
    tokio::spawn(connection);
    let row = client
        .query_one("SHOW max_connections", &[])
        .await
        .expect("query");
    assert_eq!(row.get::<_, &str>(0), "200");

    let dropped = Instant::now();
    drop(server);
    println!("removed in {:?}", dropped.elapsed());
    assert!(!exists(pid) && !directory.exists());
}

#[tokio::test]
async fn a_durable_server_keeps_its_rows_over_a_crash() {
    let options = Options {
        durable: true,
        settings: vec![("work_mem".into(), "5MB".into())],
        ..Options::default()
    };
    let server = Server::start(options).await.expect("start");
    let client = server.connect("postgres").await;
    client
        .batch_execute("CREATE TABLE kept AS SELECT current_setting('work_mem')")
        .await
        .expect("create");
    let first = server.pid();
    server.stop_immediate().await.expect("stop");
    assert!(!exists(first) && server.try_connect("postgres").await.is_err());
    server.start_again().await.expect("start again");
    let row = server
        .connect("postgres")
        .await
        .query_one("SELECT * FROM kept", &[])
        .await
        .expect("query");
    assert_eq!(row.get::<_, &str>(0), "5MB");
    assert_ne!(server.pid(), first);
}

#[tokio::test]
async fn a_server_without_binaries_or_with_a_bad_setting_says_why() {
    let missing = Options {
        bin_dir: Some(PathBuf::from("/nonexistent")),
        ..Options::default()
    };
    let error = Server::start(missing).await.err().expect("no binaries");
    assert!(error.contains("/nonexistent"), "{error}");
    let wrong = Options {
        settings: vec![("work_mem".into(), "lots".into())],
        ..Options::default()
    };
    let error = Server::start(wrong).await.err().expect("bad setting");
    assert!(
        error.contains("work_mem") && error.contains("has ended"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "run by the test below, which kills it"]
async fn a_process_that_will_be_killed() {
    let server = Server::start(Options::default()).await.expect("start");
    println!("\n{TOLD}{} {}", server.pid(), server.socket_dir().display());
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let module = module_path!().split_once("::").expect("a path").1;
    let mut process = Command::new(std::env::current_exe().expect("current_exe"))
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            &format!("{module}::a_process_that_will_be_killed"),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let output = std::io::BufReader::new(process.stdout.take().expect("stdout"));
    let lines = std::io::BufRead::lines(output).map_while(Result::ok);
    let told = lines
        .filter_map(|line| line.strip_prefix(TOLD).map(str::to_owned))
        .next();
    process.kill().expect("kill -9");
    process.wait().expect("wait");

    let told = told.expect("the child started a server");
    let (pid, directory) = told.split_once(' ').expect("pid and directory");
    let killed = Instant::now();
    while exists(pid.parse().expect("pid")) || Path::new(directory).exists() {
        assert!(killed.elapsed() < LIMIT, "{told} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("removed {:?} after the kill", killed.elapsed());
}

//! A TCP proxy between tenantd and PostgreSQL that breaks the link when the test says so.
//!
//! It understands as much of the protocol as it needs to tell one message from the next: requests that it
//! answers itself, notifications that it swallows. What an open connection does and what a new one will do
//! are set separately, and both may change at any time.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    Pass,
    /// Both ends are closed; a new connection at once.
    Cut,
    /// The client's end is reset.
    Reset,
    /// The server's end is closed; the client's stays open and silent.
    HalfOpen,
    /// The client's end is closed; the server's stays open and silent.
    Orphan,
    /// Nothing is forwarded and nothing is closed: a black hole.
    Stall,
    /// Each message is late by this much.
    Delay(Duration),
    /// A request to cancel, which is a connection of its own, is late by this much.
    LateCancel(Duration),
    /// A request that holds this text is answered with an error of this SQLSTATE.
    Refuse(&'static str, &'static str),
    /// No notification comes through.
    Deaf,
}

type Open = Arc<Mutex<Vec<watch::Sender<Link>>>>;

/// Listens on a port of its own until dropped.
pub struct Proxy {
    port: u16,
    server: Arc<AtomicU16>,
    new: Arc<Mutex<Link>>,
    open: Open,
    stop: Arc<tokio::sync::Notify>,
}

impl Proxy {
    /// A proxy to this port of 127.0.0.1 that passes everything on.
    pub fn to(server: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let new = Arc::new(Mutex::new(Link::Pass));
        let open = Open::default();
        let server = Arc::new(AtomicU16::new(server));
        let stop = Arc::new(tokio::sync::Notify::new());
        aside({
            let (new, open) = (Arc::clone(&new), Arc::clone(&open));
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let client = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap().0,
                        () = stop.notified() => return,
                    };
                    // Under the lock, so that `set` finds it here or is heard by it.
                    let mut open = open.lock().unwrap();
                    let (sender, link) = watch::channel(new.lock().unwrap().clone());
                    open.push(sender);
                    drop(open);
                    tokio::spawn(carry(client, server.load(Ordering::Relaxed), link));
                }
            }
        });
        Self {
            port,
            server,
            new,
            open,
            stop,
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::Relaxed);
    }

    /// What new connections do from now on.
    pub fn set_new(&self, link: Link) {
        *self.new.lock().unwrap() = link;
    }

    /// What the connections that are open do from now on.
    pub fn set_open(&self, link: Link) {
        for sender in &*self.open.lock().unwrap() {
            sender.send_replace(link.clone());
        }
    }

    /// Both.
    pub fn set(&self, link: Link) {
        self.set_new(link.clone());
        self.set_open(link);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        let mut open = self.open.lock().unwrap();
        open.retain(|sender| !sender.is_closed());
        open.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Runs something on a thread of its own: a test that waits for a command blocks its own runtime.
pub fn aside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work)
    })
}

/// Bytes from one end, cut into messages. The first ones of a client have no type byte.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    typed: bool,
}

impl Frames {
    fn next(&mut self) -> Option<Vec<u8>> {
        let at = usize::from(self.typed);
        let length = self.buffer.get(at..at + 4)?;
        let length = at + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        (self.buffer.len() >= length).then(|| self.buffer.drain(..length).collect())
    }
}

/// One connection, from its first byte to its end. An error is an end like any other.
async fn carry(mut client: TcpStream, server: u16, mut link: watch::Receiver<Link>) {
    let mut server = match TcpStream::connect(("127.0.0.1", server)).await {
        Ok(server) => Some(server),
        Err(_) => return,
    };
    let _ = client.set_nodelay(true);
    if let Some(server) = &server {
        let _ = server.set_nodelay(true);
    }
    let mut silent = None;
    let (mut asked, mut answered) = (Frames::default(), Frames::default());
    // The answer to a request for encryption is one byte.
    let mut bytes = 0;
    answered.typed = true;
    loop {
        let now = link.borrow_and_update().clone();
        match now {
            Link::Cut => return,
            Link::Reset => {
                let _ = client.set_zero_linger();
                return;
            }
            Link::HalfOpen => drop(server.take()),
            Link::Orphan => silent = Some(()),
            _ => {}
        }
        if silent.is_some() {
            drop(client);
            while link.changed().await.is_ok() && *link.borrow() != Link::Cut {}
            return;
        }
        let Some(upstream) = server.as_mut().filter(|_| now != Link::Stall) else {
            // Dropping the proxy ends it.
            if link.changed().await.is_err() {
                return;
            }
            continue;
        };
        let late = if let Link::Delay(by) = now {
            by
        } else {
            Duration::ZERO
        };
        tokio::select! {
            // What the link is to be is looked at first: a message sent after a change meets that change.
            biased;
            changed = link.changed() => if changed.is_err() { return },
            read = client.read_buf(&mut asked.buffer) => {
                if !matches!(read, Ok(1..)) { return }
                while let Some(message) = asked.next() {
                    tokio::time::sleep(late).await;
                    let code = message.get(4..8).filter(|_| !asked.typed);
                    if let (Link::LateCancel(by), Some([4, 210, 22, 46])) = (&now, code) {
                        tokio::time::sleep(*by).await;
                    }
                    // SSLRequest and GSSENCRequest; the start-up message comes after them.
                    if code == Some(&[4, 210, 22, 47]) || code == Some(&[4, 210, 22, 48]) {
                        bytes += 1;
                    } else {
                        asked.typed = true;
                    }
                    if let Link::Refuse(text, sqlstate) = now
                        && message.windows(text.len()).any(|part| part == text.as_bytes())
                    {
                        if client.write_all(&refusal(sqlstate)).await.is_err() { return }
                    } else if upstream.write_all(&message).await.is_err() {
                        return;
                    }
                }
            }
            read = upstream.read_buf(&mut answered.buffer) => {
                if !matches!(read, Ok(1..)) { return }
                while bytes > 0 && !answered.buffer.is_empty() {
                    bytes -= 1;
                    let byte = answered.buffer.remove(0);
                    if client.write_all(&[byte]).await.is_err() { return }
                    if byte == b'S' {
                        // Encrypted from here: nothing to understand.
                        let mut both = pin!(tokio::io::copy_bidirectional(&mut client, upstream));
                        tokio::select! { _ = &mut both => {}, _ = link.changed() => {} }
                        return;
                    }
                }
                while let Some(message) = answered.next() {
                    tokio::time::sleep(late).await;
                    if message[0] == b'A' && now == Link::Deaf { continue }
                    if client.write_all(&message).await.is_err() { return }
                }
            }
        }
    }
}

/// ErrorResponse and ReadyForQuery, as after a simple query outside a transaction.
fn refusal(sqlstate: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{sqlstate}\0Mrefused by the proxy\0\0");
    let mut message = vec![b'E'];
    message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    message.extend(fields.as_bytes());
    message.extend(b"Z\0\0\0\x05I");
    message
}

#[tokio::test]
async fn a_link_is_broken_and_mended_at_will() {
    let server = super::database::shared().await;
    let proxy = Proxy::to(server.port());
    let url = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        proxy.port()
    );
    let connect = async || {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    // Whether it is answered well, if an answer is due; silence is waited for as long as it takes to believe it.
    let answers = async |client: &tokio_postgres::Client, expected: Result<bool, ()>| {
        let patience = Duration::from_millis(if expected.is_ok() { 30_000 } else { 300 });
        let asked = tokio::time::timeout(patience, client.batch_execute("SELECT 1")).await;
        asked.map(|result| result.is_ok()).map_err(drop) == expected
    };
    let client = connect().await.unwrap();
    assert!(answers(&client, Ok(true)).await);
    for (link, expected) in [
        (Link::Stall, Err(())),
        (Link::Pass, Ok(true)),
        (Link::Refuse("SELECT", "58P01"), Ok(false)),
        (Link::Delay(Duration::from_millis(10)), Ok(true)),
        (Link::Cut, Ok(false)),
    ] {
        proxy.set_open(link.clone());
        assert!(answers(&client, expected).await, "{link:?}");
    }
    for (link, expected) in [
        (Link::HalfOpen, Err(())),
        (Link::Orphan, Ok(false)),
        (Link::Reset, Ok(false)),
    ] {
        let client = connect().await.unwrap();
        proxy.set_open(link.clone());
        assert!(answers(&client, expected).await, "{link:?}");
    }
    let mut heard = super::Heard::new(&url, "kit").await;
    assert!(heard.so_far().await.is_empty());
    proxy.set_new(Link::Cut);
    assert!(connect().await.is_err());
    proxy.set_new(Link::Deaf);
    let client = connect().await.unwrap();
    assert!(answers(&client, Ok(true)).await);
    assert!(proxy.connections() >= 2);
}

#[tokio::test]
async fn a_message_sent_after_a_change_meets_that_change() {
    let server = super::database::shared().await;
    let proxy = Proxy::to(server.port());
    let url = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres",
        proxy.port()
    );
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    for round in 0..200 {
        proxy.set_open(Link::Refuse("SELECT", "58P01"));
        assert!(client.batch_execute("SELECT 1").await.is_err(), "{round}");
        proxy.set_open(Link::Pass);
        assert!(client.batch_execute("SELECT 1").await.is_ok(), "{round}");
    }
}

//! The pool of working connections. Every wait on it is bounded.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, PoolError, QueueMode, RecyclingMethod,
    Runtime, TimeoutType, Timeouts,
};
use tokio::{
    sync,
    time::{sleep, timeout},
};
use tokio_postgres::error::SqlState;

use super::{
    cancel::Cancel,
    connect::Opener,
    conninfo::Target,
    primary::{self, Seen},
    session::{Options, Session},
    tls::Tls,
};
use crate::error::{Error, Result, asks_for_password, explain};

const WAIT: Duration = Duration::from_secs(10);
/// For the look at a new connection's server.
const LOOK: Duration = Duration::from_secs(5);
const RECYCLE: Duration = Duration::from_secs(5);
/// A connection at rest for longer is asked whether it still leads anywhere: a route that lost its
/// state, or a proxy that lost its other end, tells nobody.
const TRUSTED: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
/// After the server said that it is full, we live with the connections we have for so long.
const FULL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// A refused password is not tried again for so long: some servers lock an account.
const REFUSED: Duration = Duration::from_secs(20);

/// A connection on loan; it goes back when dropped.
pub type Connection = Object;

/// Connections to one database.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool_postgres::Pool,
    target: String,
    tls: Tls,
    seen: Arc<Seen>,
    size: usize,
    /// How long making a connection may take.
    patience: Duration,
    told: Arc<Mutex<Told>>,
    /// What its connections lead to, as the newest of them was told.
    session: Arc<Mutex<Option<Session>>>,
    /// Held by who makes a connection while nobody knows whether that works.
    first: Arc<sync::Mutex<()>>,
    /// Another way to the same server, past a transaction pooler.
    direct: Option<Box<Pool>>,
}

/// What the server told us of late.
#[derive(Default)]
struct Told {
    /// When it had no connection for us, and how many we had.
    full: Option<(Instant, usize)>,
    /// When it refused our password, and its words.
    refused: Option<(Instant, String)>,
    /// When it let us in.
    let_in: Option<Instant>,
}

impl Pool {
    /// A pool of at most `size` connections that name themselves `<application_name>/<role>`.
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn new<'a>(
        target: &Target,
        role: &str,
        settings: impl IntoIterator<Item = (&'a String, &'a String)>,
        size: usize,
    ) -> Result<Self> {
        Self::build(target, role, settings, size, Arc::default())
    }

    /// The same with a second way to the server, past a transaction pooler, for what needs a session of its
    /// own. What the connections of one see of the server, those of the other know.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn with_direct<'a>(
        mut self,
        target: &Target,
        role: &str,
        settings: impl IntoIterator<Item = (&'a String, &'a String)>,
        size: usize,
    ) -> Result<Self> {
        let direct = Self::build(target, role, settings, size, Arc::clone(&self.seen))?;
        self.direct = Some(Box::new(direct));
        Ok(self)
    }

    fn build<'a>(
        target: &Target,
        role: &str,
        settings: impl IntoIterator<Item = (&'a String, &'a String)>,
        size: usize,
        seen: Arc<Seen>,
    ) -> Result<Self> {
        let mut config = target.config.clone();
        let name = config
            .get_application_name()
            .unwrap_or("tenantd")
            .to_owned();
        config.application_name(format!("{name}/{role}"));
        let options = Options::new(config.get_options(), settings);
        let bare = (!options.needed).then(|| config.clone());
        config.options(options.text);
        let manager = Manager::from_connect(
            config,
            Opener {
                target: target.clone(),
                bare,
            },
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let inner = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            // The one used last has the warmest caches in the server; the others stay small.
            .queue_mode(QueueMode::Lifo)
            .post_create(looks_at_the_server(Arc::clone(&seen), target.to_string()))
            .pre_recycle(answers())
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(WAIT),
                create: Some(target.patience()),
                recycle: Some(RECYCLE),
            })
            .build()
            .map_err(|error| Error::Pool {
                operation: "build the connection pool".into(),
                message: error.to_string(),
            })?;
        Ok(Self {
            inner,
            target: target.to_string(),
            tls: target.tls.clone(),
            seen,
            size,
            patience: target.patience(),
            told: Arc::default(),
            session: Arc::default(),
            first: Arc::default(),
            direct: None,
        })
    }

    /// A connection, new or used before.
    ///
    /// # Errors
    /// When none becomes free or can be made within the bounds.
    pub async fn get(&self) -> Result<Connection> {
        let operation = format!("connect to {}", self.target);
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            self.refused(&operation)?;
            let status = self.inner.status();
            if self.full().is_some() && status.size > 0 && status.available == 0 {
                sleep(PAUSE).await;
                continue;
            }
            let _first = self.first(&operation).await?;
            let source = match self.inner.get().await {
                Ok(connection) => {
                    if Object::metrics(&connection).recycle_count == 0 {
                        self.told().let_in = Some(Instant::now());
                    }
                    return Ok(connection);
                }
                Err(
                    PoolError::Backend(source)
                    | PoolError::PostCreateHook(HookError::Backend(source)),
                ) => source,
                Err(PoolError::PostCreateHook(HookError::Message(why))) => {
                    return Err(Error::WrongServer(why.into_owned()));
                }
                Err(PoolError::Timeout(TimeoutType::Wait)) => break,
                Err(PoolError::Timeout(_)) => return Err(took_too_long(&operation)),
                Err(other) => {
                    return Err(Error::Pool {
                        operation,
                        message: other.to_string(),
                    });
                }
            };
            let held = self.inner.status().size;
            if source.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) && held > 0 {
                self.told().full = Some((Instant::now(), held));
                continue;
            }
            if is_about_the_password(&source) {
                self.told().refused = Some((Instant::now(), explain(&source)));
            }
            return Err(Error::Postgres { operation, source });
        }
        Err(Error::Busy { operation })
    }

    /// Where a connection has to be made and none was made just now, one caller tries: the others hear first what
    /// became of that, so that a refused password is not tried by each of them.
    async fn first(&self, operation: &str) -> Result<Option<sync::MutexGuard<'_, ()>>> {
        let lost = self.inner.retain(|client, _| !client.is_closed()).removed;
        if !lost.is_empty() {
            self.told().let_in = None;
        }
        let known = || {
            let status = self.inner.status();
            let at = self.told().let_in;
            status.available > 0
                || status.size == status.max_size
                || at.is_some_and(|at| at.elapsed() < TRUSTED)
        };
        let deadline = Instant::now() + self.patience;
        while !known() {
            if let Ok(first) = timeout(PAUSE, self.first.lock()).await {
                self.refused(operation)?;
                return Ok((!known()).then_some(first));
            }
            // One that was in use may have come back meanwhile.
            if Instant::now() > deadline {
                return Err(took_too_long(operation));
            }
        }
        Ok(None)
    }

    /// How many connections we can have: fewer than configured while the server is full.
    pub fn room(&self) -> usize {
        self.full().unwrap_or(self.size)
    }

    /// Closes a connection, so that one may be made elsewhere.
    pub async fn give_way(&self) {
        if let Ok(connection) = self.get().await {
            discard(connection);
            let held = self.inner.status().size;
            self.told().full = Some((Instant::now(), held.max(1)));
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told
            .lock()
            .expect("no code panics while it holds this lock")
    }

    fn full(&self) -> Option<usize> {
        let full = self.told().full;
        full.filter(|(at, _)| at.elapsed() < FULL)
            .map(|(_, held)| held)
    }

    fn refused(&self, operation: &str) -> Result<()> {
        match &self.told().refused {
            Some((at, text)) if at.elapsed() < REFUSED => Err(Error::Password {
                operation: operation.to_owned(),
                text: text.clone(),
                wait: REFUSED - at.elapsed(),
            }),
            _ => Ok(()),
        }
    }

    /// Where it connects to, without secrets.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The way past a transaction pooler, if there is another.
    pub fn direct(&self) -> Option<&Self> {
        self.direct.as_deref()
    }

    /// What cancels the work of one of its connections.
    pub fn cancel(&self, connection: &Connection) -> Cancel {
        Cancel::new(connection.cancel_token(), self.tls.clone())
    }

    /// What is to be known of this connection's session: asked once a connection, because the next may lead elsewhere.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn session(&self, connection: &Connection) -> Result<Session> {
        let known = || {
            self.session
                .lock()
                .expect("no code panics while it holds this lock")
        };
        let before = known().filter(|_| !is_fresh(connection));
        if let Some(session) = before {
            return Ok(session);
        }
        let session = Session::of(connection).await?;
        *known() = Some(session);
        Ok(session)
    }

    /// The server that its connections have seen.
    pub fn server(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Closes the connections at rest: after a failover, new ones find the new primary.
    pub fn forget_idle(&self) {
        self.inner.retain(|_, _| false);
        self.direct.iter().for_each(|direct| direct.forget_idle());
    }

    /// Takes no more connections and closes those at rest.
    pub fn close(&self) {
        self.inner.close();
        self.direct.iter().for_each(|direct| direct.close());
    }
}

/// Whether this is the first loan of a connection: its server process has read no catalog yet.
pub fn is_fresh(connection: &Connection) -> bool {
    Connection::metrics(connection).recycle_count == 0
}

fn took_too_long(operation: &str) -> Error {
    Error::Pool {
        operation: operation.to_owned(),
        message: "no connection within the time allowed".into(),
    }
}

/// Keeps connections to a server that must not be worked on out of the pool.
fn looks_at_the_server(seen: Arc<Seen>, target: String) -> Hook {
    Hook::async_fn(move |client, _| {
        let (seen, target) = (Arc::clone(&seen), target.clone());
        Box::pin(async move {
            let looked = timeout(LOOK, primary::look(client)).await.map_err(|_| {
                HookError::message(format!(
                    "connect to {target}: it accepted the connection and then gave no answer within {LOOK:?}"
                ))
            })?;
            let look = looked.map_err(HookError::Backend)?;
            seen.admit(&target, look)
                .map_err(|error| HookError::message(error.to_string()))
        })
    })
}

/// Asks a connection that was at rest. When one gives no answer, the others that are as old are closed
/// unasked: whoever waits for a connection waits once.
fn answers() -> Hook {
    let lost = Arc::new(Mutex::new(None::<Instant>));
    Hook::async_fn(move |client, metrics| {
        let lost = Arc::clone(&lost);
        let used = metrics.recycled.unwrap_or(metrics.created);
        Box::pin(async move {
            let at = || {
                lost.lock()
                    .expect("no code panics while it holds this lock")
            };
            if at().is_some_and(|at| used < at) {
                return Err(HookError::message("as old as one that gave no answer"));
            }
            if used.elapsed() < TRUSTED {
                return Ok(());
            }
            match timeout(ANSWER, client.simple_query("")).await {
                Ok(answer) => answer.map(drop).map_err(HookError::Backend),
                Err(_) => {
                    *at() = Some(Instant::now());
                    Err(HookError::message("no answer"))
                }
            }
        })
    })
}

/// A connection that may be in the middle of a transaction. Dropped, by a panic or with a run that is
/// cut short, it is closed: its next user would work in that transaction.
pub struct Held(Option<Connection>);

impl Held {
    /// Keeps it from the pool.
    pub fn new(connection: Connection) -> Self {
        Self(Some(connection))
    }

    /// It is out of every transaction.
    pub fn release(mut self) -> Connection {
        self.0.take().expect("it is there until it is released")
    }
}

impl Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect("it is there until it is released")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_mut().expect("it is there until it is released")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            discard(connection);
        }
    }
}

/// Whether the server refused our password, or wants one that we do not have.
pub fn is_about_the_password(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    ) || asks_for_password(error)
}

/// Takes a connection out of its pool for good: it is closed, not used again.
pub fn discard(connection: Connection) {
    drop(Object::take(connection));
}

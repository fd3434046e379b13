//! Spares: a new tenant is given a schema that was filled ahead of need. A claim is one round trip; whatever stands in
//! its way, the tenant's schema is built as usual.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Instant,
};

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{
    reconciler::{Loaded, Outcome, Reconciler, bring},
    work::Envelope,
};
use crate::{
    error::{Error, Result},
    failpoint,
    fleet::{
        Tenant,
        claim::Claims,
        spare::{self, Spare, Stock},
    },
    metrics::ReconcileOutcome,
    migrations::{MigrationSet, Step, keeps_name},
    pg::{Connection, pool::Held, session::Session},
};

/// The spares as far as this daemon knows.
#[derive(Debug, Default)]
pub struct Spares {
    ready: AtomicUsize,
    claimed: AtomicU64,
    complained: AtomicBool,
    changed: Notify,
}

impl Spares {
    /// How many there were when last looked, without those that were claimed here since.
    pub fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub fn set_ready(&self, ready: usize) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// How many were claimed since this was asked last.
    pub fn take_claimed(&self) -> u64 {
        self.claimed.swap(0, Ordering::Relaxed)
    }

    /// Something changed that the keeper should look at.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for that.
    pub async fn wait(&self) {
        self.changed.notified().await;
    }

    fn claimed(&self) {
        let less = |ready: usize| ready.checked_sub(1);
        let _ = self
            .ready
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.claimed.fetch_add(1, Ordering::Relaxed);
        self.complained.store(false, Ordering::Relaxed);
        self.changed();
    }
}

/// What a look at the spares led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tended {
    /// Something was done; files that were applied. There may be more to do.
    Did(usize),
    /// There is nothing to do now.
    Nothing,
    /// Tenants go first, or a version is stopped.
    Later,
    /// There are none, and none are wanted.
    Never,
    /// The set has no spares, for this reason.
    Refused(String),
}

/// The next thing to do about the spares.
#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    /// It is gone, or of no use.
    Remove(&'a Spare),
    /// It lacks files.
    Migrate(&'a Spare),
    /// It is at head, and its name may be in it.
    Check(&'a Spare),
    Build,
}

impl Reconciler {
    /// Gives a tenant that is new a spare, if there is one and nothing speaks against it.
    pub(super) async fn claim(
        &self,
        connection: &Connection,
        loaded: &Loaded,
        id: &str,
        start: Instant,
    ) -> Result<Option<Outcome>> {
        if self.spares().ready() == 0 {
            return Ok(None);
        }
        failpoint::pass("spare.claiming").await?;
        let head = loaded.release.head();
        let claims = self.claims(loaded, connection).await?;
        match claims.claim(Some(id), &self.runner().made()).await {
            Ok(Some(spare)) => {
                failpoint::pass("spare.claimed").await?;
                self.spares().claimed();
                let ms = start.elapsed().as_secs_f64() * 1000.0;
                info!(
                    tenant.id = id,
                    migration.version = head.version,
                    duration_ms = ms,
                    spare,
                    "tenant {id} was given a spare, at {}",
                    head.version
                );
                let version = Some(head.version.clone());
                Ok(Some(Outcome {
                    kind: ReconcileOutcome::Applied,
                    version,
                    ..Outcome::without_tenant(start)
                }))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                let passes = error
                    .code()
                    .is_none_or(|code| ["22", "23", "40", "55"].contains(&&code.code()[..2]));
                if passes || self.spares().complained.swap(true, Ordering::Relaxed) {
                    debug!(tenant.id = id, "no spare was claimed: {error}");
                } else {
                    warn!(
                        tenant.id = id,
                        "a spare could not be given to tenant {id}, its schema is built instead: {}",
                        crate::error::explain(&error)
                    );
                }
                Ok(None)
            }
        }
    }

    async fn claims<'a>(
        &self,
        loaded: &'a Loaded,
        connection: &'a Connection,
    ) -> Result<Claims<'a>> {
        Ok(Claims {
            connection,
            prepared: self.pool().session(connection).await?.own,
            registry: loaded.census.registry(),
            digest: &loaded.release.head().digest,
        })
    }

    /// Without it the next claim only takes longer.
    async fn rehearse(&self, loaded: &Loaded, connection: &Connection) {
        let rehearsed = match self.claims(loaded, connection).await {
            Ok(claims) => claims.rehearse().await,
            Err(error) => Err(error),
        };
        if let Err(error) = rehearsed {
            debug!("a claim of a spare was not rehearsed: {error}");
        }
    }

    /// Does one thing about the spares: `keep` of them are wanted. `tend`: not only look.
    ///
    /// # Errors
    /// When the database does not answer, or refuses what a spare needs.
    pub async fn tend_spares(
        &self,
        keep: usize,
        search_path: &[String],
        tend: bool,
    ) -> Result<Tended> {
        let loaded = self.loaded();
        let made = self.runner().made();
        let stock = {
            let client = self.pool().get().await?;
            spare::stock(&client, &loaded.release, &made).await?
        };
        let Stock {
            spares,
            refused,
            later,
        } = &stock;
        let ready = stock.ready(&loaded.release);
        if ready != self.spares().ready() {
            debug!(spares = ready, "{ready} spares are ready");
        }
        self.spares().set_ready(ready);
        if keep == 0 && spares.is_empty() {
            return Ok(Tended::Never);
        }
        if let Some(why) = refused {
            return Ok(Tended::Refused(why.clone()));
        }
        if !tend {
            return Ok(Tended::Nothing);
        }
        if *later {
            return Ok(Tended::Later);
        }
        if keep > 0
            && let Some(why) = reads_its_name(&loaded.release.set, &loaded)
        {
            spare::refuse(&*self.pool().get().await?, &loaded.release, &why).await?;
            return Ok(Tended::Refused(why));
        }
        let head = loaded.release.head;
        let Some(piece) = next(spares, head, keep) else {
            self.rehearse(&loaded, &self.pool().get().await?).await;
            return Ok(Tended::Nothing);
        };
        match piece {
            Piece::Remove(spare) => {
                let done = spare::remove(&*self.pool().get().await?, &spare.schema).await?;
                info!("{done}");
                Ok(Tended::Did(0))
            }
            Piece::Check(spare) => self.check(&loaded, spare, search_path).await,
            Piece::Migrate(spare) => self.fill(&loaded, Some(spare)).await,
            Piece::Build => self.fill(&loaded, None).await,
        }
    }

    async fn check(
        &self,
        loaded: &Loaded,
        spare: &Spare,
        search_path: &[String],
    ) -> Result<Tended> {
        let mut connection = self.pool().get().await?;
        let Some(what) = spare::check(&mut connection, spare, search_path).await? else {
            // Whoever claims next may come before the next look.
            self.rehearse(loaded, &connection).await;
            let spares = self.spares().ready.fetch_add(1, Ordering::Relaxed) + 1;
            debug!(spares, "spare {} is ready", spare.schema);
            return Ok(Tended::Did(0));
        };
        let why = format!("the files keep the schema's name as text: {what}");
        spare::refuse(&connection, &loaded.release, &why).await?;
        Ok(Tended::Refused(why))
    }

    /// Builds a spare, or brings one to head.
    async fn fill(&self, loaded: &Loaded, spare: Option<&Spare>) -> Result<Tended> {
        failpoint::pass("spare.building").await?;
        let release = &loaded.release;
        let schema = spare.map_or_else(spare::new_name, |it| it.schema.clone());
        let tenant = Tenant::spare(schema, spare);
        let plan = self.runner().plan(release, &tenant);
        let way = self.pool().direct().unwrap_or(self.pool());
        let connection = Held::new(way.get().await?);
        if plan.steps.iter().any(Step::is_outside) && !Session::of(&connection).await?.own {
            return Err(Error::Refused(
                "a spare takes several transactions in one session, and a pooler is in between: set \
                 database.listen_url to an address past it"
                    .into(),
            ));
        }
        let running = self.enter(&tenant.schema, way.cancel(&connection));
        let envelope = Envelope {
            lock_timeout: self.lock_timeout(),
            notify: false,
            asynchronous: false,
            spare: true,
        };
        let applied = self
            .runner()
            .apply(&connection, release, &tenant, &plan, envelope)
            .await;
        drop(running);
        if let Err(error) = applied {
            let place = error.place.map_or_else(String::new, |(ordinal, line)| {
                format!(", {} line {line}", release.set.files()[ordinal - 1].file)
            });
            return Err(Error::Postgres {
                operation: format!("fill spare {}{place}", tenant.schema),
                source: error.source,
            });
        }
        failpoint::pass("spare.built").await?;
        bring::give_back(connection.release(), false);
        let files = release.head - tenant.ordinal.unwrap_or(0);
        debug!(
            files,
            "spare {} is at {}",
            tenant.schema,
            release.head().version
        );
        Ok(Tended::Did(files))
    }
}

/// What is to be done: pure.
fn next(spares: &[Spare], head: usize, keep: usize) -> Option<Piece<'_>> {
    let of_no_use = |it: &&Spare| !it.exists || !it.made || it.ordinal.is_none();
    if let Some(spare) = spares.iter().find(of_no_use) {
        return Some(Piece::Remove(spare));
    }
    let lacks = |it: &&Spare| it.ordinal.is_some_and(|ordinal| ordinal < head);
    if let Some(spare) = spares.iter().find(lacks) {
        return Some(Piece::Migrate(spare));
    }
    if let Some(spare) = spares.iter().find(|it| !it.checked) {
        return Some(Piece::Check(spare));
    }
    (spares.len() < keep).then_some(Piece::Build)
}

/// Why a schema of this set may depend on its name, as far as the files' texts tell.
fn reads_its_name(set: &MigrationSet, loaded: &Loaded) -> Option<String> {
    let table = loaded.census.registry().table();
    keeps_name::find(set, table.schema.as_deref(), &table.name)
        .map(|found| format!("the schema's name would matter: {found}"))
}

//! A fleet at head, made fast: tenantd builds the first tenant, the others get the same text by bare SQL over several
//! connections and a copy of the first one's ledger rows and stamp. `status` then has to count them all as current.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_postgres::Client;

use crate::{Outcome, postgres::Server, program::Tenantd, sets};

/// Connections that work on a fleet, tenantd's default too.
pub(crate) const CONNECTIONS: usize = 4;
/// What autovacuum would come for while we measure.
const CATALOGS: &str = "VACUUM ANALYZE pg_class, pg_attribute, pg_attrdef, pg_constraint, pg_depend, pg_description, \
    pg_index, pg_namespace, pg_shdepend, pg_type, public.tenants, tenantd.tenant, tenantd.applied";

/// A database of its own with tenants 1 to `size`, all current.
pub(crate) struct Fleet {
    pub(crate) size: usize,
    pub(crate) conninfo: String,
    pub(crate) tenantd: Tenantd,
    /// A connection of the application's.
    pub(crate) app: Client,
    /// Warm connections for bare SQL.
    pub(crate) bare: Vec<Client>,
    name: String,
    /// Files added to the set so far.
    pub(crate) added: usize,
}

impl Fleet {
    pub(crate) async fn build(server: &Server, size: usize, set: &[sets::File]) -> Outcome<Self> {
        let name = format!("fleet_{size}");
        let mut fleet = Self::empty(server, &name, set).await?;
        fleet.size = size;
        let start = Instant::now();
        fleet.without_fsync().await?;
        let current = fleet.tenantd.in_state("current")?;
        if current != size {
            return Err(format!("{current} of {size} tenants are current after loading").into());
        }
        println!(
            "\nfleet of {size} tenants made in {:.1} s",
            start.elapsed().as_secs_f64()
        );
        Ok(fleet)
    }

    /// A database without tenants.
    pub(crate) async fn empty(server: &Server, name: &str, set: &[sets::File]) -> Outcome<Self> {
        server.create_database(name).await;
        let app = server.connect(name).await;
        app.batch_execute(
            "CREATE TABLE public.tenants (id bigint PRIMARY KEY, name text);
             CREATE TABLE public.logins (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id bigint NOT NULL,
                                         at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
        let conninfo = server.conninfo(name);
        let tenantd = Tenantd::install(&conninfo, set)?;
        let mut bare = Vec::new();
        for _ in 0..CONNECTIONS {
            bare.push(server.connect(name).await);
        }
        Ok(Self {
            size: 0,
            conninfo,
            tenantd,
            app,
            bare,
            name: name.to_owned(),
            added: 0,
        })
    }

    /// Loading is not measured: it may forget. All of it is on the disk before anything is timed.
    async fn without_fsync(&self) -> Outcome<()> {
        let reload = "SELECT pg_reload_conf()";
        self.app
            .batch_execute("ALTER SYSTEM SET fsync = off")
            .await?;
        self.app.batch_execute(reload).await?;
        self.fill().await?;
        self.app.batch_execute(CATALOGS).await?;
        self.app.batch_execute("CHECKPOINT").await?;
        self.app.batch_execute("ALTER SYSTEM RESET fsync").await?;
        self.app.batch_execute(reload).await?;
        std::process::Command::new("sync").status()?;
        let again = async || self.app.query_one("SHOW fsync", &[]).await;
        while again().await?.get::<_, &str>(0) != "on" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn fill(&self) -> Outcome<()> {
        self.app
            .batch_execute("INSERT INTO public.tenants VALUES (1, 'tenant 1')")
            .await?;
        self.tenantd.run(&["migrate", "--all"])?;
        let stamp: String = self
            .app
            .query_one(
                "SELECT obj_description('tenant_1'::regnamespace, 'pg_namespace')",
                &[],
            )
            .await?
            .get(0);
        let text = self.tenantd.text()?;
        self.commit_mode("off").await?;
        self.each(2..self.size + 1, 1, |id| {
            format!(
                "BEGIN; CREATE SCHEMA tenant_{id}; SET LOCAL search_path = tenant_{id}, public; {text};
                 COMMENT ON SCHEMA tenant_{id} IS '{stamp}'; COMMIT"
            )
        })
        .await?;
        self.commit_mode("on").await?;
        self.app
            .batch_execute(&format!(include_str!("fleet.sql"), size = self.size))
            .await?;
        Ok(())
    }

    /// `synchronous_commit` of the bare connections.
    pub(crate) async fn commit_mode(&self, mode: &str) -> Outcome<()> {
        for client in &self.bare {
            client
                .batch_execute(&format!("SET synchronous_commit = {mode}"))
                .await?;
        }
        Ok(())
    }

    /// Sends one message a tenant over all bare connections, `depth` of them on their way at once on each.
    pub(crate) async fn each(
        &self,
        ids: Range<usize>,
        depth: usize,
        message: impl Fn(usize) -> String,
    ) -> Outcome<Duration> {
        let start = Instant::now();
        let next = std::sync::Mutex::new(ids);
        let works = self.bare.iter().map(|client| {
            let ids = stream::iter(std::iter::from_fn(|| {
                next.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .next()
            }));
            let message = &message;
            ids.map(Ok).try_for_each_concurrent(depth, move |id| {
                let sql = message(id);
                async move { client.batch_execute(&sql).await }
            })
        });
        futures::future::try_join_all(works).await?;
        Ok(start.elapsed())
    }

    /// Adds a file to the set.
    pub(crate) fn file(&mut self, sql: &str) -> Outcome<()> {
        self.added += 1;
        self.tenantd
            .add(&format!("{:04}_added", 100 + self.added), sql)
    }

    /// Removes the database and all files.
    pub(crate) async fn drop(self, server: &Server) -> Outcome<()> {
        let name = self.name.clone();
        std::mem::drop(self);
        let sql = format!("DROP DATABASE {name} WITH (FORCE)");
        server.connect("postgres").await.batch_execute(&sql).await?;
        Ok(())
    }
}

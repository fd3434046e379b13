//! The tools people use today, as `scripts/bench-peers` installs them, with the same files.
//!
//! sqlx-cli and dbmate are one process a tenant, which is how they are used; django-tenants is a Python process that is
//! running already, as an application is that signs somebody up.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tokio_postgres::Client;

use crate::{
    Outcome,
    postgres::Server,
    report::Report,
    sets,
    stats::{Samples, count, ms},
};
use commands::Tool;
use django::Django;

mod commands;
mod django;

pub(crate) const PEERS: [&str; 3] = ["sqlx-cli", "django-tenants", "dbmate"];
const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers");
/// Tenants that a tool's command runs for.
const SAMPLE: usize = 20;

/// One tool with a directory of migrations and tenants of its own.
pub(crate) struct Peer {
    name: &'static str,
    dir: PathBuf,
    kind: Kind,
    client: Client,
    schemas: Vec<String>,
}

enum Kind {
    Tool(Tool),
    Django(Django),
}

/// Where a tool works.
struct Place {
    /// What was installed.
    home: PathBuf,
    /// Its migrations.
    dir: PathBuf,
    socket: String,
    port: u16,
    database: String,
}

/// Those that are there, each ready to work in this database; the others are named.
pub(crate) async fn installed(
    server: &Server,
    report: &mut Report,
    database: &str,
    set: &[sets::File],
) -> Outcome<Vec<Peer>> {
    server.create_database(database).await;
    let mut peers = Vec::new();
    for name in PEERS {
        if Path::new(HOME).join(name).join("version").exists() {
            peers.push(Peer::open(name, server, database, set).await?);
        } else {
            report.skip(format!("{name}: not installed (make bench-peers)"));
        }
    }
    Ok(peers)
}

/// Nothing to do, and one `ADD COLUMN`, over a sample of tenants, in turns; told as time a tenant.
pub(crate) async fn measure(server: &Server, report: &mut Report, rounds: usize) -> Outcome<()> {
    let set = sets::fleet(sets::FLEET_TABLES);
    let mut peers = installed(server, report, "peers_fleet", &set).await?;
    for peer in &mut peers {
        for id in 0..SAMPLE {
            peer.create(id).await?;
        }
    }
    let mut times: Vec<_> = peers
        .iter()
        .map(|_| [Samples::default(), Samples::default()])
        .collect();
    for round in 0..rounds {
        let name = format!("{:04}_added", 101 + round);
        let table = sets::table(round);
        let sql = format!("ALTER TABLE {table} ADD COLUMN added_{round} integer;\n");
        for (peer, [nothing, rollout]) in peers.iter_mut().zip(&mut times) {
            nothing.0.push(peer.migrate()? / count(SAMPLE));
            peer.add(&name, &sql)?;
            rollout.0.push(peer.migrate()? / count(SAMPLE));
        }
    }
    for (peer, [nothing, rollout]) in peers.iter().zip(&times) {
        peer.has_columns(rounds).await?;
        report.add("nothing to do a tenant", peer.name, 0, "ms", nothing);
        report.add("ADD COLUMN a tenant", peer.name, 0, "ms", rollout);
    }
    Ok(())
}

impl Peer {
    async fn open(
        name: &'static str,
        server: &Server,
        database: &str,
        set: &[sets::File],
    ) -> Outcome<Self> {
        let dir = format!("tenantd-bench-{}-{database}-{name}", std::process::id());
        let place = Place {
            home: Path::new(HOME).join(name),
            dir: std::env::temp_dir().join(dir),
            socket: server.socket_dir().display().to_string(),
            port: server.port(),
            database: database.to_owned(),
        };
        fs::create_dir_all(&place.dir)?;
        let kind = match name {
            "sqlx-cli" => Kind::Tool(Tool::sqlx(&place)),
            "dbmate" => Kind::Tool(Tool::dbmate(&place)?),
            _ => Kind::Django(Django::start(&place)?),
        };
        let client = server.connect(database).await;
        let peer = Self {
            name,
            dir: place.dir,
            kind,
            client,
            schemas: Vec::new(),
        };
        for (file, sql) in set {
            peer.add(file, sql)?;
        }
        Ok(peer)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The schema of the tenant with this number.
    pub(crate) fn schema(&self, id: usize) -> String {
        format!("{}_{id}", self.name.replace('-', "_"))
    }

    /// A further migration, in the form this tool wants.
    fn add(&self, name: &str, sql: &str) -> Outcome<()> {
        match &self.kind {
            Kind::Tool(tool) => tool.add(&self.dir, name, sql),
            Kind::Django(_) => django::add(&self.dir, name, sql),
        }
    }

    /// A new tenant, in milliseconds.
    pub(crate) async fn create(&mut self, id: usize) -> Outcome<f64> {
        let schema = self.schema(id);
        let start = Instant::now();
        let took = match &mut self.kind {
            Kind::Django(django) => django.ask(&format!("new {schema}"))?,
            Kind::Tool(tool) => {
                self.client
                    .batch_execute(&format!("CREATE SCHEMA {schema}"))
                    .await?;
                tool.migrate(&self.dir, &schema)?;
                ms(start.elapsed())
            }
        };
        self.schemas.push(schema);
        Ok(took)
    }

    /// Brings all its tenants to head, in milliseconds.
    fn migrate(&mut self) -> Outcome<f64> {
        let start = Instant::now();
        match &mut self.kind {
            Kind::Django(django) => django.ask("migrate"),
            Kind::Tool(tool) => {
                for schema in &self.schemas {
                    tool.migrate(&self.dir, schema)?;
                }
                Ok(ms(start.elapsed()))
            }
        }
    }

    /// Each tenant must have what was added.
    async fn has_columns(&self, rounds: usize) -> Outcome<()> {
        let sql = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = ANY ($1) AND a.attname LIKE 'added%'";
        let added: i64 = self.client.query_one(sql, &[&self.schemas]).await?.get(0);
        if usize::try_from(added)? != rounds * self.schemas.len() {
            return Err(format!("{} has added {added} columns", self.name).into());
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

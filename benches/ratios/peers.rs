//! The tools people use today, as `scripts/bench-peers` installs them, with the same files.
//!
//! sqlx-cli and dbmate are one process a tenant, which is how they are used; django-tenants is a Python process that is
//! running already, as an application is that signs somebody up.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
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

pub(crate) const PEERS: [&str; 3] = ["sqlx-cli", "django-tenants", "dbmate"];
const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers");
const SAMPLE: usize = 20;

/// One tool with a directory of migrations and a database.
pub(crate) struct Peer {
    name: &'static str,
    dir: PathBuf,
    kind: Kind,
    client: Client,
    schemas: Vec<String>,
}

enum Kind {
    /// A command a tenant; makes its arguments from directory and schema.
    Command {
        program: PathBuf,
        arguments: Box<dyn Fn(&Path, &str) -> Vec<String> + Send>,
    },
    Django(Django),
}

struct Django {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
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

/// Nothing to do, and one `ADD COLUMN`, over a sample of tenants; told as time a tenant.
pub(crate) async fn measure(server: &Server, report: &mut Report, rounds: usize) -> Outcome<()> {
    let set = sets::fleet(sets::FLEET_TABLES);
    for mut peer in installed(server, report, "peers_fleet", &set).await? {
        for id in 0..SAMPLE {
            peer.create(&format!("{}_{id}", peer.name.replace('-', "_")))
                .await?;
        }
        let (mut nothing, mut rollout) = (Samples::default(), Samples::default());
        for round in 0..rounds {
            nothing.0.push(peer.migrate()? / count(SAMPLE));
            let table = sets::table(round);
            peer.add(
                &format!("{:04}_added", 101 + round),
                &format!("ALTER TABLE {table} ADD COLUMN added_{round} integer;\n"),
            )?;
            rollout.0.push(peer.migrate()? / count(SAMPLE));
        }
        peer.has_columns(rounds).await?;
        report.add("nothing to do a tenant", peer.name, 0, "ms", &nothing);
        report.add("ADD COLUMN a tenant", peer.name, 0, "ms", &rollout);
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
        let dir = std::env::temp_dir().join(format!(
            "tenantd-bench-{}-{database}-{name}",
            std::process::id()
        ));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let home = Path::new(HOME).join(name);
        let socket = server.socket_dir().display().to_string();
        let (port, database) = (server.port(), database.to_owned());
        let client = server.connect(&database).await;
        let kind = match name {
            "sqlx-cli" => sqlx(&home, &socket, port, &database),
            "dbmate" => dbmate(&home, &socket, port, &database)?,
            _ => {
                project(&dir, set)?;
                Kind::Django(Django::start(&home, &dir, &socket, port, &database)?)
            }
        };
        let peer = Self {
            name,
            dir,
            kind,
            client,
            schemas: Vec::new(),
        };
        if !matches!(peer.kind, Kind::Django(_)) {
            for (file, sql) in set {
                peer.add(file, sql)?;
            }
        }
        Ok(peer)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A further migration, in the form this tool wants.
    fn add(&self, name: &str, sql: &str) -> Outcome<()> {
        let (file, text) = match self.name {
            "sqlx-cli" => (self.dir.join(format!("{name}.sql")), sql.to_owned()),
            "dbmate" => (
                self.dir.join(format!("{name}.sql")),
                format!("-- migrate:up\n{sql}-- migrate:down\n"),
            ),
            _ => return migration(&self.dir, name, sql),
        };
        Ok(fs::write(file, text)?)
    }

    /// A new tenant, in milliseconds.
    pub(crate) async fn create(&mut self, schema: &str) -> Outcome<f64> {
        self.schemas.push(schema.to_owned());
        let start = Instant::now();
        match &mut self.kind {
            Kind::Django(django) => django.ask(&format!("new {schema}")),
            Kind::Command { program, arguments } => {
                self.client
                    .batch_execute(&format!("CREATE SCHEMA {schema}"))
                    .await?;
                command(program, &arguments(&self.dir, schema))?;
                Ok(ms(start.elapsed()))
            }
        }
    }

    /// Brings all its tenants to head, in milliseconds.
    fn migrate(&mut self) -> Outcome<f64> {
        let start = Instant::now();
        match &mut self.kind {
            Kind::Django(django) => django.ask("migrate"),
            Kind::Command { program, arguments } => {
                for schema in &self.schemas {
                    command(program, &arguments(&self.dir, schema))?;
                }
                Ok(ms(start.elapsed()))
            }
        }
    }

    /// Each tenant must have what was added.
    async fn has_columns(&self, rounds: usize) -> Outcome<()> {
        let row = self.client.query_one(
            "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY ($1) AND a.attname LIKE 'added%'",
            &[&self.schemas])
            .await?;
        let added: i64 = row.get(0);
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

fn sqlx(home: &Path, socket: &str, port: u16, database: &str) -> Kind {
    let url = format!(
        "postgres://postgres@{}:{port}/{database}",
        socket.replace('/', "%2F")
    );
    Kind::Command {
        program: home.join("bin/sqlx"),
        arguments: Box::new(move |dir, schema| {
            let url = format!("{url}?options=-c%20search_path%3D{schema}");
            let source = dir.display().to_string();
            [
                "migrate",
                "run",
                "--no-dotenv",
                "--source",
                &source,
                "--database-url",
                &url,
            ]
            .map(str::to_owned)
            .into()
        }),
    }
}

/// The program itself: npm's wrapper would start a Node first.
fn dbmate(home: &Path, socket: &str, port: u16, database: &str) -> Outcome<Kind> {
    let packages = fs::read_dir(home.join("node_modules/@dbmate"))?;
    let mut programs = packages.filter_map(|it| Some(it.ok()?.path().join("bin/dbmate")));
    let program = programs
        .find(|it| it.exists())
        .ok_or("dbmate's package holds no program")?;
    let url =
        format!("postgres://postgres@/{database}?socket={socket}&port={port}&sslmode=disable");
    Ok(Kind::Command {
        program,
        arguments: Box::new(move |dir, schema| {
            let url = format!("{url}&search_path={schema}");
            let source = dir.display().to_string();
            [
                "--url",
                &url,
                "--migrations-dir",
                &source,
                "--no-dump-schema",
                "migrate",
            ]
            .map(str::to_owned)
            .into()
        }),
    })
}

fn command(program: &Path, arguments: &[String]) -> Outcome<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&said)).into())
}

/// A Django project whose application `shop` has these migrations.
fn project(dir: &Path, set: &[sets::File]) -> Outcome<()> {
    for app in [
        "customers",
        "customers/migrations",
        "shop",
        "shop/migrations",
    ] {
        fs::create_dir_all(dir.join(app))?;
        fs::write(dir.join(app).join("__init__.py"), "")?;
    }
    fs::write(dir.join("bench.py"), include_str!("django/bench.py"))?;
    fs::write(dir.join("settings.py"), include_str!("django/settings.py"))?;
    fs::write(
        dir.join("customers/models.py"),
        include_str!("django/models.py"),
    )?;
    for (name, sql) in set {
        migration(dir, name, sql)?;
    }
    Ok(())
}

/// Each migration depends on the one before it by name.
fn migration(dir: &Path, name: &str, sql: &str) -> Outcome<()> {
    let migrations = dir.join("shop/migrations");
    let names = fs::read_dir(&migrations)?.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let names = names.filter_map(|it| it.strip_suffix(".py").map(str::to_owned));
    let before = names.filter(|it| it.starts_with('0')).max();
    let before = before.map_or_else(String::new, |it| format!("(\"shop\", \"{it}\")"));
    let text = format!(
        "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n    dependencies = [{before}]\n    \
         operations = [migrations.RunSQL('''{sql}''')]\n"
    );
    Ok(fs::write(migrations.join(format!("{name}.py")), text)?)
}

impl Django {
    fn start(home: &Path, dir: &Path, socket: &str, port: u16, database: &str) -> Outcome<Self> {
        let mut child = Command::new(home.join("bin/python"))
            .arg("bench.py")
            .current_dir(dir)
            .env("DJANGO_SETTINGS_MODULE", "settings")
            .env("BENCH_DATABASE", database)
            .env("BENCH_HOST", socket)
            .env("BENCH_PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut django = Self {
            child,
            input,
            output,
        };
        match django.answer()?.as_str() {
            "ready" => Ok(django),
            other => Err(format!("django-tenants said {other:?}").into()),
        }
    }

    fn ask(&mut self, what: &str) -> Outcome<f64> {
        writeln!(self.input, "{what}")?;
        let answer = self.answer()?;
        answer
            .parse()
            .map_err(|_| format!("django-tenants said {answer:?} to {what:?}").into())
    }

    fn answer(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

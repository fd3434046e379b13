//! The stage: a cluster, an application's tables, the daemon as a process, and a pair of eyes.

use std::{
    fs,
    future::poll_fn,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::postgres::{Options, Server};

const LIMIT: Duration = Duration::from_secs(20);
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/tenant");

/// Everything the steps act on.
pub(crate) struct Stage {
    server: Server,
    /// The application's connection: not tenantd's.
    sql: Client,
    heard: mpsc::UnboundedReceiver<String>,
    daemon: Child,
    address: String,
    program: PathBuf,
    /// Name and id of each tenant, in order of sign-up.
    pub(crate) tenants: Vec<(&'static str, String)>,
    steps: u32,
}

impl Stage {
    /// Starts the cluster and the daemon.
    pub(crate) async fn set() -> Result<Self, String> {
        let program = std::env::current_exe()
            .ok()
            .and_then(|path| Some(path.parent()?.parent()?.join("tenantd")))
            .filter(|path| path.exists())
            .ok_or("build the program first: cargo build --release (make demo does)")?;
        println!("A throw-away PostgreSQL is started; nothing of it stays behind.");
        let start = Instant::now();
        let server = Server::start(Options::default()).await?;
        let sql = server
            .try_connect("postgres")
            .await
            .map_err(|error| error.to_string())?;
        let heard = listen(&server).await?;
        println!("It took {}. An application's tables:", millis(start));
        let tables = "CREATE TABLE tenants (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL);
    CREATE TABLE logins (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid, at timestamptz DEFAULT now());";
        println!("\n    {tables}");
        sql.batch_execute(tables)
            .await
            .map_err(|error| error.to_string())?;
        let directory = server.socket_dir().join("demo");
        for made in [directory.clone(), directory.join("migrations")] {
            // The cluster's own user removes them in the end; nobody else may write what the daemon runs.
            fs::create_dir(&made)
                .and_then(|()| fs::metadata(server.socket_dir()))
                .and_then(|above| chown(&made, Some(above.uid()), Some(above.gid())))
                .map_err(|error| format!("{}: {error}", made.display()))?;
        }
        let config = format!(
            "[database]\nurl = \"{}\"\n\n[registry]\ntable = \"public.tenants\"\nname_column = \"name\"\n\n\
             [logins]\ntable = \"public.logins\"\ntenant_column = \"tenant_id\"\n\n\
             [migrations]\ndir = \"{}\"\n\n[spares]\nkeep = 2\n\n[http]\nlisten = \"127.0.0.1:0\"\n",
            server.conninfo("postgres"),
            directory.join("migrations").display()
        );
        println!(
            "\ntenantd's configuration:\n\n    {}",
            config.trim().replace('\n', "\n    ")
        );
        fs::write(directory.join("tenantd.toml"), config).map_err(|error| error.to_string())?;
        for file in fs::read_dir(SAMPLE)
            .map_err(|error| format!("{SAMPLE}: {error}"))?
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sql") && name.as_str() < "0015" {
                fs::copy(file.path(), directory.join("migrations").join(name))
                    .map_err(|error| error.to_string())?;
            }
        }
        println!("\n$ tenantd install");
        let mut install = Command::new(&program);
        install
            .arg("--config")
            .arg(directory.join("tenantd.toml"))
            .arg("install");
        show(&mut install).await?;
        println!("\n$ tenantd run &");
        let (daemon, address) = start_daemon(&program, &directory).await?;
        Ok(Self {
            server,
            sql,
            heard,
            daemon,
            address,
            program,
            tenants: Vec::new(),
            steps: 0,
        })
    }

    /// Announces a step.
    pub(crate) fn step(&mut self, what: &str) {
        self.steps += 1;
        println!("\n{}. {what}", self.steps);
    }

    /// One line of the story.
    pub(crate) fn say(&self, text: &str) {
        println!("   {text}");
    }

    /// Where the demo's files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.server.socket_dir().join("demo")
    }

    /// Inserts a tenant; its id.
    pub(crate) async fn insert(&self, name: &str) -> Result<String, String> {
        self.ask(&format!(
            "INSERT INTO tenants (name) VALUES ('{name}') RETURNING id"
        ))
        .await
    }

    /// Waits until tenantd tells that this tenant is ready.
    pub(crate) async fn ready(&mut self, id: &str) -> Result<(), String> {
        let wait = async {
            loop {
                match self.heard.recv().await {
                    Some(heard) if heard == id => return Ok(()),
                    Some(_) => {}
                    None => return Err("the listening connection was lost".to_owned()),
                }
            }
        };
        timeout(LIMIT, wait)
            .await
            .map_err(|_| format!("tenant {id} did not become ready"))?
    }

    /// Runs statements as the application.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), String> {
        self.sql
            .batch_execute(sql)
            .await
            .map_err(|error| format!("{sql}: {error}"))
    }

    /// The first value of the answer.
    pub(crate) async fn ask(&self, sql: &str) -> Result<String, String> {
        let messages = self
            .sql
            .simple_query(sql)
            .await
            .map_err(|error| format!("{sql}: {error}"))?;
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    }

    /// Demands this answer now.
    pub(crate) async fn expect(&self, sql: &str, expected: &str) -> Result<(), String> {
        let found = self.ask(sql).await?;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{sql}: {found}, expected {expected}"))
        }
    }

    /// Waits for this answer.
    pub(crate) async fn until(&self, sql: &str, expected: &str) -> Result<(), String> {
        let start = Instant::now();
        while self.ask(sql).await? != expected {
            if start.elapsed() > LIMIT {
                return self.expect(sql, expected).await;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until the metrics have this line; all of them.
    pub(crate) async fn shows(&self, line: &str) -> Result<String, String> {
        let start = Instant::now();
        loop {
            let metrics = self.get("/metrics").await?;
            if metrics.lines().any(|found| found == line) {
                return Ok(metrics);
            }
            if start.elapsed() > LIMIT {
                return Err(format!("the metrics never showed {line}:\n{metrics}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Puts a file of the sample set into place and tells the daemon.
    pub(crate) fn release(&self, file: &str) -> Result<(), String> {
        let to = self.directory().join("migrations").join(file);
        fs::copy(Path::new(SAMPLE).join(file), to).map_err(|error| format!("{file}: {error}"))?;
        self.signal("HUP")
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let pid = self.daemon.id().ok_or("the daemon has ended")?;
        let sent = std::process::Command::new("kill")
            .args([format!("-{name}"), pid.to_string()])
            .status();
        sent.map_err(|error| error.to_string()).map(drop)
    }

    /// Shows a command and its output.
    pub(crate) async fn tenantd(&self, arguments: &[&str]) -> Result<(), String> {
        println!("\n   $ tenantd {}", arguments.join(" "));
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.directory().join("tenantd.toml"))
            .args(arguments);
        show(&mut command).await
    }

    /// The body of a GET.
    pub(crate) async fn get(&self, path: &str) -> Result<String, String> {
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(&self.address).await?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.address
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = ask.await.map_err(|error| format!("GET {path}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.contains(" 200 ") {
            Ok(body.to_owned())
        } else {
            Err(format!("GET {path}: {head}"))
        }
    }

    /// Tells how to look around.
    pub(crate) fn invite(&self) {
        let directory = self.directory();
        println!("\nIt all stays up until Ctrl-C. In another terminal:");
        println!(
            "    psql -h {} -U postgres",
            self.server.socket_dir().display()
        );
        println!("    INSERT INTO tenants (name) VALUES ('Yours');");
        println!(
            "    {} --config {}/tenantd.toml status --all",
            self.program.display(),
            directory.display()
        );
        for path in ["", "metrics", "status", "livez", "readyz"] {
            println!("    http://{}/{path}", self.address);
        }
        let _ = std::io::stdout().flush();
    }

    /// Stops the daemon and demands a clean end; the cluster goes with it.
    pub(crate) async fn strike(mut self) -> Result<(), String> {
        self.signal("TERM")?;
        let status = timeout(LIMIT, self.daemon.wait())
            .await
            .map_err(|_| "the daemon did not stop")?;
        let status = status.map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the daemon ended with {status}"))
        }
    }
}

async fn start_daemon(program: &Path, directory: &Path) -> Result<(Child, String), String> {
    // The kernel stops it should this process be killed. It watches the thread that starts the daemon:
    // the main one, which lives as long as the demo.
    let mut daemon = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(program)
        .arg("--config")
        .arg(directory.join("tenantd.toml"))
        .arg("run")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("start the daemon: {error}"))?;
    let log = daemon.stderr.take().ok_or("the daemon has no log")?;
    let mut lines = BufReader::new(log).lines();
    let mut address = None;
    let heard = timeout(LIMIT, async {
        while let Ok(Some(line)) = lines.next_line().await {
            println!("    {line}");
            if let Some((_, rest)) = line.split_once("serving http://") {
                address = rest.split('/').next().map(ToOwned::to_owned);
            }
            if line.contains("listening on") {
                return true;
            }
        }
        false
    });
    if !heard.await.unwrap_or(false) {
        return Err("the daemon did not start".into());
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("WARN") || line.contains("ERROR") {
                println!("    {line}");
            }
        }
    });
    Ok((daemon, address.ok_or("the daemon serves no endpoints")?))
}

/// Listens for `tenant_ready` on a connection of its own.
async fn listen(server: &Server) -> Result<mpsc::UnboundedReceiver<String>, String> {
    let (client, mut connection) = tokio_postgres::connect(&server.conninfo("postgres"), NoTls)
        .await
        .map_err(|error| error.to_string())?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client
        .batch_execute("LISTEN tenant_ready")
        .await
        .map_err(|error| error.to_string())?;
    // The connection lives as long as its client does.
    tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// Runs a command and shows what it prints; its exit code must be 0.
async fn show(command: &mut Command) -> Result<(), String> {
    let output = command.output().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("    {}", text.trim_end().replace('\n', "\n    "));
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("it ended with {}", output.status))
    }
}

/// Time since, in milliseconds.
pub(crate) fn millis(start: Instant) -> String {
    format!("{:.1} ms", start.elapsed().as_secs_f64() * 1000.0)
}

//! sqlx-cli and dbmate: a process a tenant.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Place;
use crate::Outcome;

/// A program and how it is called.
pub(super) struct Tool {
    program: PathBuf,
    /// Connection string, up to the schema's name.
    url: String,
    dialect: Dialect,
}

#[derive(Clone, Copy)]
enum Dialect {
    Sqlx,
    Dbmate,
}

impl Tool {
    pub(super) fn sqlx(place: &Place) -> Self {
        let socket = place.socket.replace('/', "%2F");
        let Place { port, database, .. } = place;
        Self {
            program: place.home.join("bin/sqlx"),
            url: format!(
                "postgres://postgres@{socket}:{port}/{database}?options=-c%20search_path%3D"
            ),
            dialect: Dialect::Sqlx,
        }
    }

    /// The program itself: npm's wrapper would start a Node first.
    pub(super) fn dbmate(place: &Place) -> Outcome<Self> {
        let packages = fs::read_dir(place.home.join("node_modules/@dbmate"))?;
        let mut programs = packages.filter_map(|it| Some(it.ok()?.path().join("bin/dbmate")));
        let program = programs
            .find(|it| it.exists())
            .ok_or("dbmate's package holds no program")?;
        let Place {
            socket,
            port,
            database,
            ..
        } = place;
        Ok(Self {
            program,
            url: format!(
                "postgres://postgres@/{database}?socket={socket}&port={port}&sslmode=disable&search_path="
            ),
            dialect: Dialect::Dbmate,
        })
    }

    pub(super) fn add(&self, dir: &Path, name: &str, sql: &str) -> Outcome<()> {
        let text = match self.dialect {
            Dialect::Sqlx => sql.to_owned(),
            Dialect::Dbmate => format!("-- migrate:up\n{sql}-- migrate:down\n"),
        };
        Ok(fs::write(dir.join(format!("{name}.sql")), text)?)
    }

    /// Brings this schema to head.
    pub(super) fn migrate(&self, dir: &Path, schema: &str) -> Outcome<()> {
        let url = format!("{}{schema}", self.url);
        let mut command = Command::new(&self.program);
        match self.dialect {
            Dialect::Sqlx => command
                .args([
                    "migrate",
                    "run",
                    "--no-dotenv",
                    "--database-url",
                    &url,
                    "--source",
                ])
                .arg(dir),
            Dialect::Dbmate => command
                .args(["--url", &url, "--no-dump-schema", "--migrations-dir"])
                .arg(dir)
                .arg("migrate"),
        };
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!(
            "{}: {}",
            self.program.display(),
            String::from_utf8_lossy(&said)
        )
        .into())
    }
}

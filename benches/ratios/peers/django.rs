//! django-tenants: a generated project, and a Python process that is told over its standard input what to do.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::Place;
use crate::Outcome;

pub(super) struct Django {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Django {
    pub(super) fn start(place: &Place) -> Outcome<Self> {
        project(&place.dir)?;
        let mut child = Command::new(place.home.join("bin/python"))
            .arg("bench.py")
            .current_dir(&place.dir)
            .env("DJANGO_SETTINGS_MODULE", "settings")
            .env("BENCH_DATABASE", &place.database)
            .env("BENCH_HOST", &place.socket)
            .env("BENCH_PORT", place.port.to_string())
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

    /// The time it took, in milliseconds, as the process itself measured it.
    pub(super) fn ask(&mut self, what: &str) -> Outcome<f64> {
        writeln!(self.input, "{what}")?;
        let answer = self.answer()?;
        let took = answer.parse();
        took.map_err(|_| format!("django-tenants said {answer:?} to {what:?}").into())
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

/// A project with the applications `customers` (shared) and `shop` (a tenant's).
fn project(dir: &Path) -> Outcome<()> {
    for app in ["customers", "shop"] {
        let migrations = dir.join(app).join("migrations");
        fs::create_dir_all(&migrations)?;
        for package in [dir.join(app), migrations] {
            fs::write(package.join("__init__.py"), "")?;
        }
    }
    fs::write(dir.join("bench.py"), include_str!("django/bench.py"))?;
    fs::write(dir.join("settings.py"), include_str!("django/settings.py"))?;
    fs::write(
        dir.join("customers/models.py"),
        include_str!("django/models.py"),
    )?;
    Ok(())
}

/// A further migration of `shop`, which depends on the one before it by name.
pub(super) fn add(dir: &Path, name: &str, sql: &str) -> Outcome<()> {
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

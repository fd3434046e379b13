//! Service files: connection parameters under a name, `[name]` and then one `key=value` a line.

use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use super::params::{Param, Params, recognise};
use super::parse::Pair;
use super::system::{Env, System};
use super::{ConninfoError, unknown};
use crate::config::suggest::hint;

/// Where packages of PostgreSQL keep the file for all users, unless PGSYSCONFDIR says otherwise.
const SYSTEM_DIRS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// Adds what the chosen service says, where nothing explicit is said.
pub(super) fn fill(
    params: &mut Params,
    env: Env<'_>,
    system: &System<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ConninfoError> {
    let Some(service) = chosen(params, "service", "PGSERVICE", env) else {
        return Ok(());
    };
    let named = chosen(params, "servicefile", "PGSERVICEFILE", env);
    let mut tried = Vec::new();
    for (path, must_exist) in places(named.as_ref(), env, system) {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if !must_exist && !path.is_file() => continue,
            Err(error) => {
                return Err(ConninfoError::ServiceFile {
                    place: path.display().to_string(),
                    reason: error.to_string(),
                });
            }
        };
        if let Some(section) = section(&text, &service.value, &path)? {
            for line in section {
                add(params, line, &path, warnings)?;
            }
            return Ok(());
        }
        tried.push(path.display().to_string());
    }
    let tried = if tried.is_empty() {
        "there is no service file".to_owned()
    } else {
        format!("it is not in {}", tried.join(", "))
    };
    Err(service.invalid(format!("no such service: {tried}")))
}

fn chosen(params: &Params, name: &str, variable: &str, env: Env<'_>) -> Option<Param> {
    let explicit = params.get(name).cloned();
    explicit.or_else(|| {
        let value = env(variable).filter(|value| !value.is_empty())?;
        Some(Param {
            value,
            source: variable.to_owned(),
        })
    })
}

/// The files to look into, in order, and whether each must exist.
fn places(named: Option<&Param>, env: Env<'_>, system: &System<'_>) -> Vec<(PathBuf, bool)> {
    let own = match named {
        Some(param) => Some((PathBuf::from(&param.value), true)),
        None => files::home(env, system).map(|home| (home.join(".pg_service.conf"), false)),
    };
    let dirs = match env("PGSYSCONFDIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => vec![dir],
        None => SYSTEM_DIRS.map(str::to_owned).to_vec(),
    };
    let shared = dirs
        .iter()
        .map(|dir| (Path::new(dir).join("pg_service.conf"), false));
    own.into_iter().chain(shared).collect()
}

/// A line of the file and its number.
struct Line {
    pair: Pair,
    number: usize,
}

/// The lines under `[service]`, or `None` if there is no such heading.
fn section(text: &str, service: &str, path: &Path) -> Result<Option<Vec<Line>>, ConninfoError> {
    let mut found: Option<Vec<Line>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if heading.strip_suffix(']') == Some(service) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(lines) = &mut found else { continue };
        let (key, value) = line.split_once('=').ok_or_else(|| {
            fault(
                path,
                number,
                "expected key=value (without quotes, one a line)".to_owned(),
            )
        })?;
        lines.push(Line {
            pair: Pair::new(key, value),
            number,
        });
    }
    Ok(found)
}

/// Takes one line over, unless its parameter has a value: the first one wins.
fn add(
    params: &mut Params,
    line: Line,
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<(), ConninfoError> {
    let here = format!("{}:{}", path.display(), line.number);
    if ["service", "servicefile"].contains(&line.pair.key.as_str()) {
        let reason = "a service cannot refer to another one".to_owned();
        return Err(fault(path, line.number, reason));
    }
    let name = recognise(&line.pair, false, warnings)
        .map_err(|error| fault(path, line.number, bare(error)))?;
    if let Some(name) = name {
        params.fill(name, line.pair.value, format!("{name} ({here})"));
    }
    Ok(())
}

/// The text of an error without the place that it names.
fn bare(error: ConninfoError) -> String {
    match error {
        ConninfoError::Unknown { name, suggestion } => unknown(name.as_deref()) + &hint(suggestion),
        ConninfoError::Unsupported { parameter, reason } => format!("{parameter}: {reason}"),
        other => other.to_string(),
    }
}

fn fault(path: &Path, number: usize, reason: String) -> ConninfoError {
    ConninfoError::ServiceFile {
        place: format!("{}:{number}", path.display()),
        reason,
    }
}

//! Which of libpq's TLS parameters mean what. A combination that would be weaker than it looks is refused.

use std::path::{Path, PathBuf};

use rustls::{SupportedProtocolVersion, version};
use tokio_postgres::{
    Config,
    config::{ChannelBinding, SslMode, SslNegotiation},
};

use super::build::choice;
use super::endpoints::Server;
use super::params::{Param, Params};
use super::system::{Env, System};
use super::{ConninfoError, files};
use crate::pg::tls::{Identity, Roots, Settings, Tls, Trust, Verify};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Sets what concerns TLS in the driver's configuration, and returns how to speak it.
pub(super) fn tls(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    servers: &[Server],
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<Tls, ConninfoError> {
    let mode = mode(params, warnings)?;
    config.ssl_mode(match mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    config.ssl_negotiation(negotiation(params, mode)?);
    if let Some(param) = params.get("channel_binding") {
        config.channel_binding(choice(
            param,
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
        )?);
    }
    // Parameters are judged whether or not they are used; files are only read where they are.
    let versions = versions(params)?;
    let sni = params.get("sslsni").map_or(Ok(true), |param| {
        choice(param, &[("1", true), ("0", false)])
    })?;
    let wants_identity = wants_identity(params)?;
    if mode == Mode::Disable || servers.iter().all(Server::is_socket) {
        return Ok(Tls::unused());
    }
    let verify = verify(mode, params, env, system)?;
    if let (Verify::Full(_), None, Some(param)) =
        (&verify, params.get("host"), params.get("hostaddr"))
    {
        return Err(param.invalid("sslmode=verify-full needs the name of the server too, as host"));
    }
    let identity = if wants_identity {
        identity(params, env, system, warnings)
    } else {
        None
    };
    let settings = Settings {
        verify,
        identity,
        versions,
        sni,
    };
    Tls::new(settings).map_err(ConninfoError::Tls)
}

/// A sentence for the log if a server elsewhere is connected to without being sure of it.
pub(super) fn unverified(config: &Config, servers: &[Server], tls: &Tls) -> Option<String> {
    // With channel binding the server proves that it knows the password's verifier, inside this TLS session.
    let sure = (config.get_ssl_mode() == SslMode::Require && tls.verifies())
        || config.get_channel_binding() == ChannelBinding::Require;
    let remote = servers.iter().find(|server| !server.is_local())?;
    let how = match config.get_ssl_mode() {
        SslMode::Disable => "is not encrypted",
        SslMode::Require => "is encrypted, but the server is not verified",
        _ => "is encrypted only if the server offers it, and the server is not verified",
    };
    (!sure).then(|| {
        format!(
            "the connection to {} {how}; set sslmode=verify-full, with sslrootcert=<file> or \
             sslrootcert=system",
            remote.name
        )
    })
}

fn mode(params: &Params, warnings: &mut Vec<String>) -> Result<Mode, ConninfoError> {
    let system_roots = params.text("sslrootcert") == Some("system");
    let Some(param) = params.get("sslmode") else {
        return Ok(if system_roots {
            Mode::VerifyFull
        } else {
            Mode::Prefer
        });
    };
    let mode = choice(
        param,
        &[
            ("disable", Mode::Disable),
            ("allow", Mode::Prefer),
            ("prefer", Mode::Prefer),
            ("require", Mode::Require),
            ("verify-ca", Mode::VerifyCa),
            ("verify-full", Mode::VerifyFull),
        ],
    )?;
    if param.value == "allow" {
        warnings.push(format!("{}: allow is treated as prefer", param.source));
    }
    if system_roots && mode != Mode::VerifyFull {
        return Err(param.invalid(
            "too weak for sslrootcert=system, where anybody can get a certificate; use verify-full",
        ));
    }
    Ok(mode)
}

fn negotiation(params: &Params, mode: Mode) -> Result<SslNegotiation, ConninfoError> {
    let Some(param) = params.get("sslnegotiation") else {
        return Ok(SslNegotiation::Postgres);
    };
    let negotiation = choice(
        param,
        &[
            ("postgres", SslNegotiation::Postgres),
            ("direct", SslNegotiation::Direct),
        ],
    )?;
    if negotiation == SslNegotiation::Direct && mode < Mode::Require {
        return Err(param
            .invalid("direct needs sslmode=require, verify-ca or verify-full (better: the last)"));
    }
    Ok(negotiation)
}

/// TLS 1.2 and 1.3 are all there is. A lower minimum is met by them; a lower maximum cannot be.
fn versions(params: &Params) -> Result<Vec<&'static SupportedProtocolVersion>, ConninfoError> {
    let number = |param: &Param| {
        choice(
            param,
            &[("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)],
        )
    };
    let minimum = params.get("ssl_min_protocol_version");
    let min = minimum.map_or(Ok(2), number)?;
    let Some(maximum) = params.get("ssl_max_protocol_version") else {
        return Ok(between(min, 3));
    };
    let max = number(maximum)?;
    if max < 2 {
        return Err(maximum.unsupported("tenantd has TLS 1.2 and 1.3 only"));
    }
    if max < min {
        return Err(maximum.invalid("it is below ssl_min_protocol_version"));
    }
    Ok(between(min, max))
}

fn between(min: u8, max: u8) -> Vec<&'static SupportedProtocolVersion> {
    [(2, &version::TLS12), (3, &version::TLS13)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, version)| version)
        .collect()
}

fn verify(
    mode: Mode,
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
) -> Result<Verify, ConninfoError> {
    let of_home = |name| files::of_home(env, system, name).filter(|path| path.exists());
    let roots = match params.text("sslrootcert") {
        Some("system") => Some(Roots::System),
        Some(path) => Some(Roots::File(PathBuf::from(path))),
        None => of_home("root.crt").map(Roots::File),
    };
    let given = params.text("sslcrl").map(PathBuf::from);
    let Some(roots) = roots else {
        if mode >= Mode::VerifyCa {
            return Err(no_roots(params, env, system));
        }
        return match params.get("sslcrl") {
            Some(param) => Err(param.invalid("it is of no use without sslrootcert")),
            None => Ok(Verify::Nothing),
        };
    };
    let crl = given.or_else(|| of_home("root.crl"));
    let trust = Trust { roots, crl };
    Ok(if mode == Mode::VerifyFull {
        Verify::Full(trust)
    } else {
        Verify::Chain(trust)
    })
}

fn no_roots(params: &Params, env: Env<'_>, system: &System<'_>) -> ConninfoError {
    let default = files::of_home(env, system, "root.crt");
    let default = default
        .as_deref()
        .unwrap_or(Path::new("~/.postgresql/root.crt"));
    let reason = format!(
        "there is no root certificate file {}; set sslrootcert=<file>, or sslrootcert=system for the \
         system's certificate store",
        default.display()
    );
    match params.get("sslmode") {
        Some(param) => param.invalid(reason),
        None => ConninfoError::Tls(reason),
    }
}

/// Whether a client certificate is shown, if there is one.
fn wants_identity(params: &Params) -> Result<bool, ConninfoError> {
    let Some(param) = params.get("sslcertmode") else {
        return Ok(true);
    };
    choice(
        param,
        &[
            ("disable", Some(false)),
            ("allow", Some(true)),
            ("require", None),
        ],
    )?
    .ok_or_else(|| {
        param.unsupported("tenantd cannot tell whether the server asked for a certificate")
    })
}

fn identity(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    warnings: &mut Vec<String>,
) -> Option<Identity> {
    let given = params.get("sslcert");
    let path = |name: &str, file: &str| match params.text(name) {
        Some(path) => Some(PathBuf::from(path)),
        None => files::of_home(env, system, file),
    };
    let certificate = path("sslcert", "postgresql.crt")?;
    if !certificate.exists() {
        // libpq goes on without, too: the server may not want one.
        if let Some(param) = given {
            warnings.push(format!(
                "{}: there is no file {}; connecting without a client certificate",
                param.source,
                certificate.display()
            ));
        }
        return None;
    }
    Some(Identity {
        certificate,
        key: path("sslkey", "postgresql.key")?,
        credentials: env("CREDENTIALS_DIRECTORY"),
    })
}

//! Why a handshake failed, in words that say what to look at.

use std::{
    io,
    time::{Duration, UNIX_EPOCH},
};

use rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};

use super::{Trust, Verify};

/// The same failure, with its cause in plain words.
pub(super) fn failure(error: io::Error, verify: &Verify) -> io::Error {
    let words = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(fault)) => match verify {
            Verify::Chain(trust) | Verify::Full(trust) => certificate(fault, Some(trust)),
            Verify::Nothing => certificate(fault, None),
        },
        Some(error) => general(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the handshake; its log says why".to_owned()
        }
        None => return error,
    };
    io::Error::new(error.kind(), words)
}

/// What is wrong with the server's certificate.
fn certificate(fault: &CertificateError, trust: Option<&Trust>) -> String {
    use CertificateError as Fault;
    const ITS: &str = "the server's certificate";
    match fault {
        Fault::NotValidForNameContext {
            expected,
            presented,
        } => wrong_name(&expected.to_str(), presented),
        Fault::ExpiredContext { not_after, .. } => format!("{ITS} expired on {}", day(*not_after)),
        Fault::Expired => format!("{ITS} has expired"),
        Fault::NotValidYetContext { not_before, .. } => format!(
            "{ITS} is valid from {} only; is the clock right?",
            day(*not_before)
        ),
        Fault::NotValidYet => format!("{ITS} is not valid yet; is the clock right?"),
        Fault::UnknownIssuer => {
            let trusted = trust.map_or_else(String::new, |trust| trust.roots.to_string());
            format!("{ITS} is from an unknown issuer: nobody in {trusted} signed it")
        }
        Fault::Revoked => format!("{ITS} was revoked"),
        Fault::UnknownRevocationStatus => {
            format!("the revocation list says nothing about the issuer of {ITS}")
        }
        Fault::ExpiredRevocationListContext { next_update, .. } => format!(
            "the revocation list should have been renewed by {}",
            day(*next_update)
        ),
        Fault::BadSignature => format!("{ITS} does not bear the signature of its issuer"),
        Fault::BadEncoding => format!("{ITS} is malformed"),
        Fault::InvalidPurposeContext { .. } | Fault::InvalidPurpose => {
            format!("{ITS} was not issued for servers (extended key usage)")
        }
        Fault::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => {
            format!("{ITS} is of X.509 version 1; have one made of version 3")
        }
        Fault::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => format!(
            "{ITS} is that of an authority (CA:TRUE), which is accepted for a server only if that very \
             certificate is trusted"
        ),
        fault => format!("{ITS} is not acceptable: {fault}"),
    }
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "the server's certificate is for no host at all, not for {expected}: it has no \
             subjectAltName, and a common name does not count"
        );
    }
    // The library hands them over as in `DnsName("db.example.org")`.
    let names: Vec<&str> = presented
        .iter()
        .map(|name| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
            inner.trim_end_matches(')').trim_matches('"')
        })
        .collect();
    format!(
        "the server's certificate is for {}, not for {expected}",
        names.join(", ")
    )
}

/// What else can go wrong in a handshake.
pub(super) fn general(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => alerted(*alert),
        Error::InvalidMessage(_) => {
            "what answered does not speak TLS; is it PostgreSQL, and with sslnegotiation=direct \
             version 17 or later?"
                .to_owned()
        }
        Error::PeerIncompatible(_) => {
            "the server and tenantd have no TLS version or cipher in common (tenantd has TLS 1.2 \
             and 1.3, see ssl_min_protocol_version)"
                .to_owned()
        }
        error => error.to_string(),
    }
}

/// What the server holds against us.
fn alerted(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::UnknownCA => {
            "the server does not know the issuer of the client certificate (its ssl_ca_file)"
        }
        Alert::CertificateExpired => "the server says that the client certificate has expired",
        Alert::CertificateRevoked => "the server says that the client certificate was revoked",
        Alert::CertificateRequired => "the server requires a client certificate: set sslcert and sslkey",
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
            "the server does not accept the client certificate; its log says why"
        }
        Alert::ProtocolVersion => {
            "the server and tenantd have no TLS version in common (tenantd has TLS 1.2 and 1.3, see \
             ssl_min_protocol_version)"
        }
        Alert::HandshakeFailure => "the server and tenantd have no cipher in common",
        Alert::NoApplicationProtocol => {
            "the server does not take PostgreSQL inside TLS (ALPN); is it PostgreSQL?"
        }
        other => return format!("the server ended the handshake: {other:?}"),
    }
    .to_owned()
}

fn day(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}

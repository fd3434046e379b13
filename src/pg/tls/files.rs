//! The files of TLS: roots, revocations, our certificate and its key. All are PEM.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::{Identity, Roots, explain};

/// Who may have rights on a key: its owner alone; root may let a group read its own, and so does systemd
/// with a credential, by an access list that shows as that right.
const OTHERS: u32 = 0o077;
const OTHERS_BUT_GROUP_READS: u32 = 0o037;

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the root certificate file {}", path.display()),
            Self::System => f.write_str("the system's certificate store"),
        }
    }
}

/// The certificates that are trusted.
pub(super) fn roots(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, String> {
    match roots {
        Roots::File(path) => certificates(path, &roots.to_string()),
        // What is wrong with single files of the system is not ours to mend; none at all is told by the caller.
        Roots::System => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// The lists of certificates that were taken back.
pub(super) fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let what = format!("the revocation list {}", path.display());
    let text = read(path, &what)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let lists = lists.map_err(|error| malformed(&what, &error))?;
    if lists.is_empty() {
        return Err(format!("{what} holds no revocation list in PEM form"));
    }
    Ok(lists)
}

/// Our certificate with those above it, and its key.
pub(super) fn identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let what = format!(
        "the client certificate file {}",
        identity.certificate.display()
    );
    let chain = certificates(&identity.certificate, &what)?;
    Ok((chain, key(identity)?))
}

/// Why certificate and key cannot be used.
pub(super) fn unusable(identity: &Identity, error: &rustls::Error) -> String {
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the private key {key} does not belong to the client certificate {certificate}")
        }
        error => format!(
            "the client certificate {certificate} with the private key {key} cannot be used: {}",
            explain::general(error)
        ),
    }
}

fn key(identity: &Identity) -> Result<PrivateKeyDer<'static>, String> {
    let path = &identity.key;
    let what = format!("the private key file {}", path.display());
    let meta = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "there is a client certificate, but {what} does not exist; set sslkey, or \
             sslcertmode=disable to go without"
        ),
        _ => unreadable(&what, &error),
    })?;
    if !meta.is_file() {
        return Err(format!("{what} is not a plain file"));
    }
    let credentials = identity
        .credentials
        .as_deref()
        .filter(|dir| !dir.is_empty());
    let group_may_read =
        meta.uid() == 0 || credentials.is_some_and(|dir| path.starts_with(PathBuf::from(dir)));
    let forbidden = if group_may_read {
        OTHERS_BUT_GROUP_READS
    } else {
        OTHERS
    };
    if meta.mode() & forbidden != 0 {
        return Err(format!(
            "{what} has group or world access (mode {:04o}); run `chmod 0600` on it",
            meta.mode() & 0o7777
        ));
    }
    let text = read(path, &what)?;
    // PKCS#8 says it in the label, the older forms in a header.
    if text.windows(9).any(|word| word == b"ENCRYPTED") {
        return Err(format!(
            "{what} is encrypted, and tenantd cannot decrypt it; write it without a passphrase \
             (openssl pkey), readable by its owner only"
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{what} holds no private key in PEM form"),
        error => malformed(&what, &error),
    })
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path, what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| malformed(what, &error))?;
    if found.is_empty() {
        return Err(format!("{what} holds no certificate in PEM form"));
    }
    Ok(found)
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| unreadable(what, &error))
}

fn unreadable(what: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{what} does not exist"),
        io::ErrorKind::PermissionDenied => format!("{what} may not be read by tenantd's user"),
        _ => format!("{what} cannot be read: {error}"),
    }
}

/// The kind of fault only: the library's own text would quote the file.
fn malformed(what: &str, error: &pem::Error) -> String {
    let fault = match error {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is not base64",
        _ => "it cannot be parsed",
    };
    format!("{what} is not proper PEM: {fault}")
}

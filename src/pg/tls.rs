//! TLS to the server, as libpq has it: who is believed, which certificate is shown, and why a server was
//! turned down.
//!
//! ```text
//! sslmode, sslrootcert, … ──conninfo──> Tls ──each connection──> files read ──> rustls ──> stream
//! ```
//!
//! The files are read again for each connection, so a certificate that was renewed on disk is used without
//! a restart. Nothing here decides whether TLS is used at all: that is the driver's `ssl_mode`.

use std::{future::Future, io, path::PathBuf, pin::Pin, sync::Arc};

use rustls::{ClientConfig, SupportedProtocolVersion, crypto::CryptoProvider};
use tokio_postgres::{
    Socket,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

mod explain;
mod files;

mod verifier;

/// The name of PostgreSQL's protocol inside TLS.
const ALPN: &[u8] = b"postgresql";

/// An encrypted connection.
pub type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// How to talk TLS to the servers of one target.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Settings>);

/// What the connection parameters say about TLS.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) verify: Verify,
    pub(super) identity: Option<Identity>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Whether the server is told the name it is called by.
    pub(super) sni: bool,
}

/// How much of the server's certificate is checked.
#[derive(Debug)]
pub(super) enum Verify {
    /// Nothing: against eavesdroppers only.
    Nothing,
    /// That somebody we trust signed it.
    Chain(Trust),
    /// That, and that it belongs to the host we meant.
    Full(Trust),
}

/// Whom we believe.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: Roots,
    /// Certificates that were taken back.
    pub(super) crl: Option<PathBuf>,
}

/// Where the certificates are that everything else is checked against.
#[derive(Debug)]
pub(super) enum Roots {
    File(PathBuf),
    System,
}

/// Our own certificate.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Where systemd keeps what only this service may read.
    pub(super) credentials: Option<String>,
}

impl Tls {
    /// Reads all files once, so that what is wrong with them is known before anything is connected.
    ///
    /// # Errors
    /// What is wrong, in words; no content of a file is quoted.
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        settings.client()?;
        Ok(Self(Arc::new(settings)))
    }

    /// Whether a certificate is checked against somebody we trust.
    pub(super) fn verifies(&self) -> bool {
        !matches!(self.0.verify, Verify::Nothing)
    }

    /// For a target whose servers are never asked for TLS.
    pub(super) fn unused() -> Self {
        Self(Arc::new(Settings {
            verify: Verify::Nothing,
            identity: None,
            versions: rustls::DEFAULT_VERSIONS.to_vec(),
            sni: true,
        }))
    }
}

impl Settings {
    /// What rustls needs for one connection.
    fn client(&self) -> Result<ClientConfig, String> {
        let provider: Arc<CryptoProvider> = rustls::crypto::ring::default_provider().into();
        let verifier = verifier::new(&self.verify, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut client = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = files::identity(identity)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| files::unusable(identity, &error))?
            }
        };
        client.enable_sni = self.sni;
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(client)
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = TlsStream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        // Asked for even where no TLS will be spoken, so the work is left to `connect`.
        Ok(Handshake {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

/// A handshake to be made with one server.
pub struct Handshake {
    tls: Tls,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = TlsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let client = self.tls.0.client().map_err(io::Error::other)?;
            let mut rustls = MakeRustlsConnect::new(client);
            let handshake = MakeTlsConnect::<Socket>::make_tls_connect(&mut rustls, &self.host)
                .map_err(io::Error::other)?;
            let stream = handshake.connect(socket).await;
            stream.map_err(|error| explain::failure(error, &self.tls.0.verify))
        })
    }
}

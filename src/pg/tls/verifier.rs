//! Decides whether a server's certificate is believed. The signature of the handshake is checked in every
//! mode: without it, channel binding would bind to a certificate whose key the server need not have.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{Trust, Verify, files};

/// A verifier that checks as much as `verify` says.
pub(super) fn new(
    verify: &Verify,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let algorithms = provider.signature_verification_algorithms;
    let (trust, name_counts) = match verify {
        Verify::Nothing => return Ok(Arc::new(Anybody { algorithms })),
        Verify::Chain(trust) => (trust, false),
        Verify::Full(trust) => (trust, true),
    };
    Ok(Arc::new(Trusted::new(trust, name_counts, provider)?))
}

/// Believes every certificate, if the server has its key.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Believes what somebody trusted signed.
#[derive(Debug)]
struct Trusted {
    inner: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    /// Whether the certificate must be for the host that was meant.
    name_counts: bool,
}

impl Trusted {
    fn new(
        trust: &Trust,
        name_counts: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let roots = files::roots(&trust.roots)?;
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return Err(format!("{} holds no usable certificate", trust.roots));
        }
        let crls = trust.crl.as_deref().map_or(Ok(Vec::new()), files::crls)?;
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .with_crls(crls)
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Self {
            inner,
            roots,
            name_counts,
        })
    }

    /// Whether the server shows the very certificate that we were told to trust. PostgreSQL's manual makes
    /// such ones with `openssl req -x509`, which marks them as authorities; webpki wants none of those
    /// as a server. It says so after it has looked at the dates.
    fn is_pinned(&self, error: &CertificateError, end_entity: &CertificateDer<'_>) -> bool {
        matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
            && self.roots.contains(end_entity)
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let Err(Error::InvalidCertificate(error)) = &verified else {
            return verified;
        };
        match error {
            // The name is looked at last: all else is well.
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
                if !self.name_counts => {}
            error if self.is_pinned(error, end_entity) => {
                if self.name_counts {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                }
            }
            _ => return verified,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

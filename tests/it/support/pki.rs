//! Certificates made for a test, and servers that show them.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::PathBuf,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};

use super::postgres::{Options, Server};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// With a key of this kind, which decides on the digest of what it signs.
    pub fn new(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(algorithm).unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate, to be trusted.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate and key, as a server may misuse them.
    pub fn pair(&self) -> Pair {
        Pair {
            certificate: self.pem(),
            key: self.0.key().serialize_pem(),
        }
    }

    /// A certificate for these hosts, or for a client of this name.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Pair {
        self.sign(params(name, hosts))
    }

    /// One whose time is over.
    pub fn expired(&self, host: &str) -> Pair {
        let mut params = params("server", &[host]);
        params.not_after = date_time_ymd(2001, 2, 3);
        self.sign(params)
    }

    /// One with this serial number.
    pub fn numbered(&self, host: &str, serial: u64) -> Pair {
        let mut params = params("server", &[host]);
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(params)
    }

    /// A list that takes back the certificate of this serial number.
    pub fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A server over TCP, without TLS until it `shows` a certificate.
pub struct TlsServer(pub Server);

impl TlsServer {
    pub async fn start() -> Self {
        let options = Options {
            tcp: true,
            ..Options::default()
        };
        Self(Server::start(options).await.unwrap())
    }

    /// Writes a file that the server's user, and nobody else, may read; root may anyway.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let data = self.0.socket_dir().join("data");
        let path = data.join(name);
        fs::write(&path, text).unwrap();
        let owner = fs::metadata(&data).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Makes it use this certificate soon.
    pub async fn shows(&self, pair: &Pair) {
        self.write("server.crt", &pair.certificate);
        self.write("server.key", &pair.key);
        self.set("ssl = on").await;
    }

    /// Makes it ask those who come over TCP for more, soon.
    pub async fn admits(&self, lines: &str) {
        self.write("pg_hba.conf", &format!("local all all trust\n{lines}\n"));
        self.sql("SELECT pg_reload_conf()").await;
    }

    /// Changes a setting, soon.
    pub async fn set(&self, setting: &str) {
        self.sql(&format!("ALTER SYSTEM SET {setting}")).await;
        self.sql("SELECT pg_reload_conf()").await;
    }

    pub async fn sql(&self, sql: &str) {
        let client = self.0.connect("postgres").await;
        client.batch_execute(sql).await.unwrap();
    }
}

//! The cluster's certificates: one authority for the cluster, one for the front proxy, and what
//! they sign.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::ControlPlaneError;

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Who a certificate is for.
pub(super) struct Subject<'a> {
    pub(super) user: &'a str,
    pub(super) group: Option<&'a str>,
}

/// A certificate authority, with the means to sign.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Result<Self, ControlPlaneError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&Subject { user: name, group: None });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(pki)?).map_err(pki)?;
        Ok(Self { issuer })
    }

    pub(super) fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A client's certificate: its user and group are what RBAC sees.
    pub(super) fn client(&self, subject: &Subject<'_>) -> Result<Identity, ControlPlaneError> {
        self.sign(subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server's certificate, good for the given names and addresses.
    pub(super) fn server(&self, name: &str, dns_names: &[String], addresses: &[IpAddr]) -> Result<Identity, ControlPlaneError> {
        let mut alternatives: Vec<_> = addresses.iter().copied().map(SanType::IpAddress).collect();
        for dns_name in dns_names {
            alternatives.push(SanType::DnsName(dns_name.as_str().try_into().map_err(pki)?));
        }
        self.sign(&Subject { user: name, group: None }, alternatives, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        subject: &Subject<'_>,
        alternatives: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, ControlPlaneError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(subject);
        params.subject_alt_names = alternatives;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(pki)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(pki)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// The key pair that signs the tokens of service accounts: private and public, PEM.
pub(super) fn service_account_keys() -> Result<(String, String), ControlPlaneError> {
    let key = KeyPair::generate().map_err(pki)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes `content` to a file that only its owner can read: most of what is written here is a
/// secret.
pub(super) fn write_private(path: &Path, content: &str) -> Result<(), ControlPlaneError> {
    use std::io::Write;
    let failed = |source| ControlPlaneError::File { what: "write", path: path.to_owned(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)
}

/// Writes an identity to `<folder>/<name>.crt` and `<folder>/<name>.key`, and gives back both
/// paths.
pub(super) fn write_identity(folder: &Path, name: &str, identity: &Identity) -> Result<(PathBuf, PathBuf), ControlPlaneError> {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    write_private(&certificate, &identity.certificate)?;
    write_private(&key, &identity.key)?;
    Ok((certificate, key))
}

fn distinguished_name(subject: &Subject<'_>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = subject.group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, subject.user);
    name
}

fn pki(source: rcgen::Error) -> ControlPlaneError {
    ControlPlaneError::Pki { source }
}

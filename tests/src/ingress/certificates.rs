//! Certificates of both sides of the gateways' connections, in folders like mounted Secrets.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The name under which gateways reach the daemon.
const SERVER: &str = "locality-ingress.kantai-system.svc";

/// An authority.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A certificate whose issuer has the same name as its subject counts as signed by itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?, issuer: Issuer::new(params, key) })
    }

    /// Writes a certificate for `name`, its key, and the authority's own certificate.
    fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let files = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", self.certificate.pem())];
        // As the kubelet does it: all files are links through one link, which is changed in one
        // step.
        std::fs::create_dir_all(folder)?;
        let version = tempfile::tempdir_in(folder)?.keep();
        for (file, text) in files {
            std::fs::write(version.join(file), text)?;
            let link = folder.join(file);
            if !link.is_symlink() {
                std::os::unix::fs::symlink(Path::new("..data").join(file), link)?;
            }
        }
        std::os::unix::fs::symlink(&version, folder.join("..data_tmp"))?;
        Ok(std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?)
    }
}

/// The Secrets of both sides.
pub struct XdsCertificates {
    /// The daemon's.
    pub server: PathBuf,
    /// The gateways'.
    pub gateway: PathBuf,
}

impl XdsCertificates {
    /// Where they will be.
    pub fn to_come(folder: &Path) -> Self {
        Self { server: folder.join("server-xds"), gateway: folder.join("gateway-xds") }
    }

    /// Certificates of `authority` in `folder`.
    pub fn of(authority: &Authority, folder: &Path) -> anyhow::Result<Self> {
        let certificates = Self::to_come(folder);
        certificates.renew(authority)?;
        Ok(certificates)
    }

    /// New ones, of `authority` from now on.
    pub fn renew(&self, authority: &Authority) -> anyhow::Result<()> {
        authority.write(&self.server, SERVER)?;
        authority.write(&self.gateway, "kantai-gateway.kantai-system.svc")
    }
}

//! Issues the certificates of the gateways' connections. Pure except for the randomness of keys;
//! the time is an argument.

use jiff::civil::Date;
use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The validity of the authority. Deleting its Secret makes a new one.
const AUTHORITY_YEARS: i64 = 10;
/// The validity of certificates, and how long before its end they are renewed.
const CERTIFICATE_DAYS: i64 = 90;
const RENEWED_BEFORE_DAYS: i64 = 30;

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CertificateAndKey {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for CertificateAndKey {
    // A key must never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The use of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateUse {
    /// Server authentication.
    Server,
    /// Client authentication.
    Client,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// The certificate could not be made.
    #[error("failed to issue a certificate for {name}")]
    Make {
        /// Its subject.
        name: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// The validity could not be computed.
    #[error("failed to compute the validity of a certificate for {name}")]
    Time {
        /// Its subject.
        name: String,
        /// The cause.
        source: jiff::Error,
    },
}

/// The name of the authority.
const AUTHORITY: &str = "kantai-xds";

/// A new authority.
///
/// # Errors
/// [`MakeError`].
pub(crate) fn authority(now: Timestamp) -> Result<CertificateAndKey, MakeError> {
    let wrong = |source| MakeError::Make { name: AUTHORITY.to_owned(), source };
    let params = authority_params(now)?;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    Ok(CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new certificate for the host `name`, signed by `authority`, and when to renew it.
///
/// # Errors
/// [`MakeError`].
pub(crate) fn signed(
    authority: &CertificateAndKey,
    name: &str,
    side: CertificateUse,
    now: Timestamp,
) -> Result<(CertificateAndKey, Timestamp), MakeError> {
    let wrong = |source| MakeError::Make { name: name.to_owned(), source };
    let time = |source| MakeError::Time { name: name.to_owned(), source };
    let authority_key = KeyPair::from_pem(&authority.key).map_err(wrong)?;
    // A signature depends only on the authority's name and key.
    let issuer = Issuer::new(authority_params(now)?, authority_key);
    let mut params = CertificateParams::new([name.to_owned()]).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match side {
        CertificateUse::Server => ExtendedKeyUsagePurpose::ServerAuth,
        CertificateUse::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    valid(&mut params, name, now, Span::new().days(CERTIFICATE_DAYS))?;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.signed_by(&key, &issuer).map_err(wrong)?;
    let renewed = now.to_zoned(TimeZone::UTC).checked_add(Span::new().days(CERTIFICATE_DAYS - RENEWED_BEFORE_DAYS));
    Ok((CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem() }, renewed.map_err(time)?.timestamp()))
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, MakeError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    valid(&mut params, AUTHORITY, now, Span::new().years(AUTHORITY_YEARS))?;
    Ok(params)
}

/// Valid from yesterday, because clocks differ, for `span` from today.
fn valid(params: &mut CertificateParams, name: &str, now: Timestamp, span: Span) -> Result<(), MakeError> {
    let time = |source| MakeError::Time { name: name.to_owned(), source };
    let today = now.to_zoned(TimeZone::UTC).date();
    let yesterday = today.checked_sub(Span::new().days(1)).map_err(time)?;
    let end = today.checked_add(span).map_err(time)?;
    // Months and days are positive.
    let midnight = |date: Date| date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    params.not_before = midnight(yesterday);
    params.not_after = midnight(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, crypto};

    use super::*;

    fn day(text: &str) -> Timestamp {
        format!("{text}T12:00:00Z").parse().unwrap()
    }

    fn roots(authority: &CertificateAndKey) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    fn at(now: Timestamp) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()))
    }

    #[test]
    fn what_it_signs_is_believed_for_its_time_and_its_side_only() {
        let provider = Arc::new(crypto::ring::default_provider());
        let authority = authority(day("2026-01-01")).unwrap();
        // Years later, by another process that knows the authority by its key alone.
        let (client, renewed) = signed(&authority, "gateway.example", CertificateUse::Client, day("2030-06-01")).unwrap();
        assert_eq!(renewed, day("2030-07-31"));
        let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&authority), provider.clone()).build().unwrap();
        let verified = |now| verifier.verify_client_cert(&certificate, &[], at(day(now))).is_ok();
        assert!(verified("2030-06-01") && verified("2030-08-29"));
        assert!(!verified("2030-05-30") && !verified("2030-08-31"));
        // Not the other way round, and by nobody else.
        let servers =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots(&authority), provider.clone()).build().unwrap();
        let name = ServerName::try_from("gateway.example").unwrap();
        use rustls::client::danger::ServerCertVerifier as _;
        assert!(servers.verify_server_cert(&certificate, &[], &name, &[], at(day("2030-06-01"))).is_err());
        let (server, _) = signed(&authority, "gateway.example", CertificateUse::Server, day("2030-06-01")).unwrap();
        let server = CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap();
        assert!(servers.verify_server_cert(&server, &[], &name, &[], at(day("2030-06-01"))).is_ok());
        let other = super::authority(day("2026-01-01")).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&other), provider).build().unwrap();
        assert!(verifier.verify_client_cert(&certificate, &[], at(day("2030-06-01"))).is_err());
    }
}

//! Certificates for the gateways' connections that we make ourselves. Pure but for the randomness
//! of keys; time is passed in.

use jiff::civil::Date;
use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// How long the authority is valid. Whoever wants another one deletes its Secret.
const AUTHORITY_YEARS: i64 = 10;
/// How long certificates are valid, and how long before their end they are made anew.
const CERTIFICATE_DAYS: i64 = 90;
const RENEWED_BEFORE_DAYS: i64 = 30;

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    // A key must never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// To be connected to.
    Server,
    /// To connect.
    Client,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// It cannot be made.
    #[error("failed to issue a certificate for {name}")]
    Make {
        /// Whom it is for.
        name: String,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// The time cannot be reckoned with.
    #[error("failed to compute the validity of a certificate for {name}")]
    Time {
        /// Whom it is for.
        name: String,
        /// What is wrong.
        source: jiff::Error,
    },
}

/// The name of the authority.
const AUTHORITY: &str = "kantai-xds";

/// A new authority.
///
/// # Errors
/// [`MakeError`].
pub(crate) fn authority(now: Timestamp) -> Result<Pair, MakeError> {
    let wrong = |source| MakeError::Make { name: AUTHORITY.to_owned(), source };
    let params = authority_params(now)?;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new certificate for the host `name`, signed by `authority`, and from when on it is to be
/// replaced.
///
/// # Errors
/// [`MakeError`].
pub(crate) fn signed(authority: &Pair, name: &str, side: Side, now: Timestamp) -> Result<(Pair, Timestamp), MakeError> {
    let wrong = |source| MakeError::Make { name: name.to_owned(), source };
    let time = |source| MakeError::Time { name: name.to_owned(), source };
    let authority_key = KeyPair::from_pem(&authority.key).map_err(wrong)?;
    // Its name and key are all that a signature tells of an authority.
    let issuer = Issuer::new(authority_params(now)?, authority_key);
    let mut params = CertificateParams::new([name.to_owned()]).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match side {
        Side::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Side::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    valid(&mut params, name, now, Span::new().days(CERTIFICATE_DAYS))?;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.signed_by(&key, &issuer).map_err(wrong)?;
    let renewed = now.to_zoned(TimeZone::UTC).checked_add(Span::new().days(CERTIFICATE_DAYS - RENEWED_BEFORE_DAYS));
    Ok((Pair { certificate: certificate.pem(), key: key.serialize_pem() }, renewed.map_err(time)?.timestamp()))
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, MakeError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    valid(&mut params, AUTHORITY, now, Span::new().years(AUTHORITY_YEARS))?;
    Ok(params)
}

/// From the day before, for clocks differ, to the day that is so far off.
fn valid(params: &mut CertificateParams, name: &str, now: Timestamp, span: Span) -> Result<(), MakeError> {
    let time = |source| MakeError::Time { name: name.to_owned(), source };
    let today = now.to_zoned(TimeZone::UTC).date();
    let yesterday = today.checked_sub(Span::new().days(1)).map_err(time)?;
    let end = today.checked_add(span).map_err(time)?;
    // Months and days are above zero.
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

    fn roots(authority: &Pair) -> Arc<RootCertStore> {
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
        let (client, renewed) = signed(&authority, "gateway.example", Side::Client, day("2030-06-01")).unwrap();
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
        let (server, _) = signed(&authority, "gateway.example", Side::Server, day("2030-06-01")).unwrap();
        let server = CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap();
        assert!(servers.verify_server_cert(&server, &[], &name, &[], at(day("2030-06-01"))).is_ok());
        let other = super::authority(day("2026-01-01")).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&other), provider).build().unwrap();
        assert!(verifier.verify_client_cert(&certificate, &[], at(day("2030-06-01"))).is_err());
    }
}

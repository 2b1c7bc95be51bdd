//! The Secrets of the daemon's own certificates: an authority, the server certificate, and the
//! client certificate of all gateways.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::authority::{CertificateAndKey, CertificateUse, MakeError, authority, signed};

/// The Secret of the authority. Only this daemon reads it.
pub(crate) const AUTHORITY_SECRET: &str = "kantai-xds-authority";
/// The Secret of the server certificate.
pub(crate) const SERVER_SECRET: &str = "locality-ingress-xds";
/// The Secret of the client certificate, mounted by gateways.
pub(crate) const GATEWAY_SECRET: &str = "kantai-gateway-xds";
/// The annotation with the time from which on a certificate is renewed.
const RENEW_AFTER: &str = "bonavadeur.io/renew-after";
/// How long the API server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    /// The API server refused a read or write.
    #[error("failed to keep Secret {name}")]
    Api {
        /// The Secret.
        name: &'static str,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("failed to keep Secret {name}: no answer within {ANSWER_WITHIN:?}")]
    NoAnswer {
        /// The Secret.
        name: &'static str,
    },
    /// A Secret with unusable content, written by someone else.
    #[error("failed to use Secret {name}: it has no tls.crt and tls.key in PEM; delete it to have it issued again")]
    Content {
        /// The Secret.
        name: &'static str,
    },
    /// A certificate could not be issued.
    #[error(transparent)]
    Make(#[from] MakeError),
}

/// The certificates for the gateways' connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// The server certificate.
    pub server: CertificateAndKey,
    /// The authority of client certificates.
    pub authority: String,
}

/// Creates missing certificates, renews due ones and reads the others. All replicas may do so
/// concurrently: the first write wins, and the others load it.
///
/// # Errors
/// [`CertificatesError`].
pub(crate) async fn keep(client: &Client, namespace: &str, now: Timestamp) -> Result<Certificates, CertificatesError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let of_authority = match get(&api, AUTHORITY_SECRET).await? {
        Some(secret) => secret,
        None => create(&api, secret(AUTHORITY_SECRET, &authority(now)?, None, None)).await?,
    };
    let authority = pair(&of_authority).ok_or(CertificatesError::Content { name: AUTHORITY_SECRET })?;
    let host = |service: &str| format!("{service}.{namespace}.svc");
    let server = keep_one(&api, SERVER_SECRET, &authority, (&host("locality-ingress"), CertificateUse::Server), now).await?;
    keep_one(&api, GATEWAY_SECRET, &authority, (&host("kantai-gateway"), CertificateUse::Client), now).await?;
    Ok(Certificates { server, authority: authority.certificate })
}

async fn keep_one(
    api: &Api<Secret>,
    name: &'static str,
    authority: &CertificateAndKey,
    (host, side): (&str, CertificateUse),
    now: Timestamp,
) -> Result<CertificateAndKey, CertificatesError> {
    let there = get(api, name).await?;
    if let Some(pair) = there.as_ref().filter(|there| is_good(there, authority, now)).and_then(pair) {
        return Ok(pair);
    }
    let (made, renew_after) = signed(authority, host, side, now)?;
    let mut wanted = secret(name, &made, Some(&authority.certificate), Some(renew_after));
    let written = match there {
        None => create(api, wanted).await?,
        Some(there) => {
            wanted.metadata.resource_version = there.metadata.resource_version;
            match answered(name, api.replace(name, &PostParams::default(), &wanted)).await? {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    get(api, name).await?.ok_or(CertificatesError::Content { name })?
                }
                written => written.map_err(|source| CertificatesError::Api { name, source: Box::new(source) })?,
            }
        }
    };
    tracing::info!(secret = name, host, until = %renew_after, "issued a certificate");
    pair(&written).ok_or(CertificatesError::Content { name })
}

/// Whether the certificate is complete, signed by `authority` and not due.
fn is_good(secret: &Secret, authority: &CertificateAndKey, now: Timestamp) -> bool {
    let text = |key: &str| secret.data.as_ref()?.get(key).map(|ByteString(bytes)| bytes.as_slice());
    let renew_after = secret.metadata.annotations.as_ref().and_then(|all| all.get(RENEW_AFTER)?.parse::<Timestamp>().ok());
    pair(secret).is_some()
        && text("ca.crt") == Some(authority.certificate.as_bytes())
        && renew_after.is_some_and(|renew_after| now < renew_after)
}

fn pair(secret: &Secret) -> Option<CertificateAndKey> {
    let text = |key: &str| {
        let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.clone()).ok().filter(|text| text.contains("-----BEGIN "))
    };
    Some(CertificateAndKey { certificate: text("tls.crt")?, key: text("tls.key")? })
}

fn secret(name: &str, pair: &CertificateAndKey, authority: Option<&str>, renew_after: Option<Timestamp>) -> Secret {
    let data = [("tls.crt", Some(pair.certificate.as_str())), ("tls.key", Some(&pair.key)), ("ca.crt", authority)];
    let data = data.into_iter().filter_map(|(key, text)| Some((key.to_owned(), ByteString(text?.as_bytes().to_vec()))));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "kantai".to_owned())])),
            annotations: renew_after.map(|time| BTreeMap::from([(RENEW_AFTER.to_owned(), time.to_string())])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

async fn get(api: &Api<Secret>, name: &'static str) -> Result<Option<Secret>, CertificatesError> {
    let got = answered(name, api.get_opt(name)).await?;
    got.map_err(|source| CertificatesError::Api { name, source: Box::new(source) })
}

/// Creates the Secret, or reads the one that another replica created.
async fn create(api: &Api<Secret>, wanted: Secret) -> Result<Secret, CertificatesError> {
    let name = [AUTHORITY_SECRET, SERVER_SECRET, GATEWAY_SECRET];
    let name = name.into_iter().find(|name| wanted.metadata.name.as_deref() == Some(name)).unwrap_or(AUTHORITY_SECRET);
    match answered(name, api.create(&PostParams::default(), &wanted)).await? {
        Err(kube::Error::Api(status)) if status.code == 409 => get(api, name).await?.ok_or(CertificatesError::Content { name }),
        created => created.map_err(|source| CertificatesError::Api { name, source: Box::new(source) }),
    }
}

async fn answered<T>(name: &'static str, call: impl Future<Output = T>) -> Result<T, CertificatesError> {
    tokio::time::timeout(ANSWER_WITHIN, call).await.map_err(|_| CertificatesError::NoAnswer { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_when_it_is_due_or_its_authority_is_another_or_it_is_half() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
        let (one, other) = (authority(now).unwrap(), authority(now).unwrap());
        let (made, renew_after) = signed(&one, "h.example", CertificateUse::Server, now).unwrap();
        let whole = secret(SERVER_SECRET, &made, Some(&one.certificate), Some(renew_after));
        assert!(is_good(&whole, &one, now) && is_good(&whole, &one, days(59)));
        assert!(!is_good(&whole, &one, days(61)));
        assert!(!is_good(&whole, &other, now));
        let mut half = whole.clone();
        half.data.as_mut().unwrap().remove("tls.key");
        assert!(!is_good(&half, &one, now));
        assert!(!is_good(&secret(SERVER_SECRET, &made, Some(&one.certificate), None), &one, now));
    }
}

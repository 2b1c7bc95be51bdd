//! The API server, and daemons through its proxy.

use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Limited};
use kube::api::{Api, ListParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;

use crate::error::PluginError;
use crate::options::{ClusterOptions, NamespaceOptions, RequestTimeout};

/// The most bytes of a daemon's answer that are read. A stream of routes has lines of this length.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// As many objects are asked for at once.
const PAGE: u32 = 500;
/// Of an error that is no Kubernetes status, so many characters are shown.
const SAID: usize = 300;

/// A cluster, as one user.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    timeout: RequestTimeout,
    /// The namespace of the context.
    namespace: String,
    /// The namespace of Kantai's own pods.
    pub(crate) system: String,
    /// The namespace of Knative Serving.
    pub(crate) knative: String,
}

/// Which namespaces are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    One(String),
}

impl Scope {
    pub(crate) fn holds(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == namespace,
        }
    }
}

/// What a daemon answers: the HTTP status, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Cluster {
    /// Finds the API server as kubectl does.
    pub(crate) async fn connect(options: &ClusterOptions) -> Result<Self, PluginError> {
        let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
        let unusable = |error: kube::config::KubeconfigError| PluginError::Config(Box::new(error));
        let mut config = match &options.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(unusable)?;
                Config::from_custom_kubeconfig(kubeconfig, &choice).await.map_err(unusable)?
            }
            None if choice.context.is_some() => Config::from_kubeconfig(&choice).await.map_err(unusable)?,
            None => Config::infer().await.map_err(|error| PluginError::Config(Box::new(error)))?,
        };
        if options.as_user.is_some() {
            config.auth_info.impersonate = options.as_user.clone();
            config.auth_info.impersonate_groups = (!options.as_groups.is_empty()).then(|| options.as_groups.clone());
        }
        // A daemon that does not lead, and a Service without endpoints, answer 503: that is what is
        // to be told, and not to be waited for.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        Ok(Self {
            client: Client::try_from(config).map_err(|error| PluginError::Config(Box::new(error)))?,
            timeout: options.request_timeout,
            namespace,
            system: options.system_namespace.clone(),
            knative: options.knative_namespace.clone(),
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace that is asked about.
    pub(crate) fn namespace(&self, given: Option<&String>) -> Result<String, PluginError> {
        let namespace = given.unwrap_or(&self.namespace);
        name("a namespace", namespace)?;
        Ok(namespace.clone())
    }

    /// The namespaces that are asked about.
    pub(crate) fn scope(&self, given: &NamespaceOptions) -> Result<Scope, PluginError> {
        Ok(if given.all_namespaces { Scope::All } else { Scope::One(self.namespace(given.namespace.as_ref())?) })
    }

    /// Waits for an answer of the API server, for as long as a request may take.
    pub(crate) async fn ask<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, PluginError> {
        let answered = match self.timeout.0 {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| PluginError::Late { doing: doing.to_owned(), seconds: limit.as_secs_f64() })?,
        };
        answered.map_err(|source| PluginError::Api { doing: doing.to_owned(), source: Box::new(source) })
    }

    /// All objects of `api` that `params` select, page by page.
    pub(crate) async fn list<K>(&self, doing: &str, api: Api<K>, params: ListParams) -> Result<Vec<K>, PluginError>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let mut page = params.limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let list = self.ask(doing, api.list(&page)).await?;
            objects.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    /// One object; `None` where there is none of that name.
    pub(crate) async fn get<K>(&self, doing: &str, api: Api<K>, name: &str) -> Result<Option<K>, PluginError>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.ask(doing, api.get_opt(name)).await
    }

    /// Objects of a kind in the namespaces that are asked about.
    pub(crate) fn api<K>(&self, scope: &Scope) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType: Default>,
    {
        match scope {
            Scope::All => Api::all(self.client()),
            Scope::One(namespace) => Api::namespaced(self.client(), namespace),
        }
    }

    /// What is served at `path` of a port, through the API server's proxy. An error of the proxy
    /// itself is an error; what the daemon answers is not, whatever its status.
    pub(crate) async fn proxied(&self, target: &Target, path: &str) -> Result<Answer, PluginError> {
        let doing = format!("ask {target} for {}", path.split('?').next().unwrap_or(path));
        let request = target.request(path, &doing)?;
        let answer = async {
            let response = self.client.send(request.map(Body::from)).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.map_err(kube::Error::Service)?;
            Ok(Answer { status, body: body.to_bytes().to_vec() })
        };
        let answer = self.ask(&doing, answer).await?;
        match proxy_error(&answer) {
            Some(says) => Err(PluginError::Daemon { doing, status: answer.status, says }),
            None => Ok(answer),
        }
    }

    /// As [`Cluster::proxied`], where anything but success is an error.
    pub(crate) async fn proxied_text(&self, target: &Target, path: &str) -> Result<String, PluginError> {
        let doing = format!("ask {target} for {}", path.split('?').next().unwrap_or(path));
        let answer = self.proxied(target, path).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 {
            return Ok(text);
        }
        Err(PluginError::Daemon { doing, status: answer.status, says: text.trim().chars().take(SAID).collect() })
    }

    /// The lines of a stream that does not end, through the API server's proxy.
    pub(crate) async fn proxied_lines(
        &self,
        target: &Target,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, PluginError>> + use<>, PluginError> {
        let doing = format!("follow {path} of {target}");
        let request = target.request(path, &doing)?;
        let reader = self.ask(&doing, self.client.request_stream(request)).await?;
        Ok(reader
            .lines()
            .map_err(move |source| PluginError::Api { doing: doing.clone(), source: Box::new(kube::Error::ReadEvents(source)) }))
    }

    /// The next line of a stream, for which a request's time is waited; `None` at its end.
    pub(crate) async fn next_line(
        &self,
        lines: &mut (impl Stream<Item = Result<String, PluginError>> + Unpin),
        doing: &str,
    ) -> Result<Option<String>, PluginError> {
        let next = lines.next();
        let line = match self.timeout.0 {
            None => next.await,
            Some(limit) => tokio::time::timeout(limit, next)
                .await
                .map_err(|_| PluginError::Late { doing: doing.to_owned(), seconds: limit.as_secs_f64() })?,
        };
        line.transpose()
    }
}

/// What serves: a port of a pod, or of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// What a [`Target`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Pod,
    Service { is_tls: bool },
}

impl Target {
    pub(crate) fn pod(namespace: &str, pod: &str, port: u16) -> Self {
        Self { kind: TargetKind::Pod, namespace: namespace.to_owned(), name: pod.to_owned(), port }
    }

    fn request(&self, path: &str, doing: &str) -> Result<http::Request<Vec<u8>>, PluginError> {
        name("a namespace", &self.namespace)?;
        name("an object", &self.name)?;
        let (kind, scheme) = match self.kind {
            TargetKind::Pod => ("pods", ""),
            TargetKind::Service { is_tls: false } => ("services", ""),
            TargetKind::Service { is_tls: true } => ("services", "https:"),
        };
        let Self { namespace, name, port, .. } = self;
        let uri = format!("/api/v1/namespaces/{namespace}/{kind}/{scheme}{name}:{port}/proxy{path}");
        http::Request::get(uri)
            .body(Vec::new())
            .map_err(|error| PluginError::Odd { doing: doing.to_owned(), says: error.to_string() })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == TargetKind::Pod { "pod" } else { "service" };
        write!(f, "{kind} {}/{} port {}", self.namespace, self.name, self.port)
    }
}

/// What the proxy says is wrong, where it and not the daemon has answered.
fn proxy_error(answer: &Answer) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Status {
        kind: String,
        message: Option<String>,
        reason: Option<String>,
    }
    if answer.status < 400 {
        return None;
    }
    let status: Status = serde_json::from_slice(&answer.body).ok()?;
    (status.kind == "Status").then(|| status.message.or(status.reason).unwrap_or_default())
}

/// Checks that a text can be the name of an object, and so part of a path.
pub(crate) fn name(what: &'static str, text: &str) -> Result<(), PluginError> {
    let is_name_like = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
    let is_name = !text.is_empty() && text.len() <= 253 && text.chars().all(is_name_like) && !text.starts_with('.');
    if is_name { Ok(()) } else { Err(PluginError::Name { what, text: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_of_names_only() {
        let target = Target::pod("kantai-system", "extra-controller-1", 18080);
        let uri = target.request("/v1/routes", "ask").unwrap().uri().to_string();
        assert_eq!(uri, "/api/v1/namespaces/kantai-system/pods/extra-controller-1:18080/proxy/v1/routes");
        for odd in ["", "a/b", "..", "a b", "a%2f", "a?b", "ä", "a\n"] {
            assert!(name("a pod", odd).is_err(), "{odd:?}");
            assert!(Target::pod("default", odd, 1).request("/", "ask").is_err(), "{odd:?}");
        }
    }

    #[test]
    fn errors_of_the_proxy_are_told_from_answers_of_the_daemon() {
        let answer = |status, body: &str| Answer { status, body: body.as_bytes().to_vec() };
        let refused =
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"error trying to reach service","code":503}"#;
        assert_eq!(proxy_error(&answer(503, refused)).as_deref(), Some("error trying to reach service"));
        assert_eq!(proxy_error(&answer(503, "\"NotLeading\"")), None);
        assert_eq!(proxy_error(&answer(404, "\"NotFound\"")), None);
        assert_eq!(proxy_error(&answer(200, refused)), None);
    }
}

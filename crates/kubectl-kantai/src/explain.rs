//! `explain`: why pods are where they are, and why a request goes where it goes.

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{Cluster, Target, name};
use crate::daemons::{self, INGRESS, OPS};
use crate::error::PluginError;
use crate::options::ExplainOptions;
use crate::output::Output;

pub(crate) async fn run(cluster: &Cluster, options: &ExplainOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    match (&options.revision, &options.host, &options.node) {
        (_, Some(host), Some(node)) => request(cluster, host, node, options, out).await,
        (Some(revision), ..) => {
            let namespace = cluster.namespace(options.namespace.as_ref())?;
            let explained = of_revision(cluster, &namespace, revision).await?;
            if options.form.is_json() {
                return out.json(&explained);
            }
            let words: Words = serde_json::from_value(explained).map_err(|error| odd(revision, &error))?;
            for word in &words.words {
                out.line(word)?;
            }
            Ok(())
        }
        // The command line asks for one of the two.
        _ => Err(PluginError::Name { what: "a revision", text: String::new() }),
    }
}

/// The sentences of an explanation.
#[derive(Deserialize)]
struct Words {
    words: Vec<String>,
}

/// The explanation of a revision as the decision-maker gives it.
pub(crate) async fn of_revision(cluster: &Cluster, namespace: &str, revision: &str) -> Result<Value, PluginError> {
    name("a revision", revision)?;
    let answer = daemons::ask_decider(cluster, &format!("/v1/explain/{namespace}/{revision}")).await?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| odd(revision, &error)),
        404 => Err(PluginError::Nobody {
            doing: format!("explain {namespace}/{revision}"),
            says: format!("no revision of this name is placed by Kantai (its class must be {})", k8s_api::CLASS),
        }),
        status => {
            let says = String::from_utf8_lossy(&answer.body).trim().to_owned();
            Err(PluginError::Daemon { doing: format!("explain {namespace}/{revision}"), status, says })
        }
    }
}

fn odd(revision: &str, error: &serde_json::Error) -> PluginError {
    PluginError::Odd { doing: format!("explain {revision}"), says: error.to_string() }
}

/// How a gateway treats requests for a host, as far as it is put in words.
#[derive(Deserialize)]
struct Routed {
    ingress: String,
    external: bool,
    #[serde(default)]
    clusters: std::collections::BTreeMap<String, ClusterRoute>,
}

#[derive(Deserialize)]
struct ClusterRoute {
    plan: Option<std::collections::BTreeMap<String, u32>>,
    most_in_flight: Option<u32>,
}

async fn request(
    cluster: &Cluster,
    host: &str,
    node: &str,
    options: &ExplainOptions,
    out: &mut Output<'_>,
) -> Result<(), PluginError> {
    let doing = || format!("explain requests for {host} on {node}");
    let query: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("host", host).append_pair("node", node).finish();
    let pods = daemons::pods(cluster, INGRESS).await?;
    let Some(pod) = pods.iter().find(|pod| pod.is_ready) else {
        let says = format!("none of {} pods of {INGRESS} in namespace {} is ready", pods.len(), cluster.system);
        return Err(PluginError::Nobody { doing: doing(), says });
    };
    let text = cluster.proxied_text(&Target::pod(&cluster.system, &pod.name, OPS), &format!("/v1/explain?{query}")).await?;
    let explained: Value =
        serde_json::from_str(&text).map_err(|error| PluginError::Odd { doing: doing(), says: error.to_string() })?;
    if options.form.is_json() {
        return out.json(&explained);
    }
    let routed: Routed =
        serde_json::from_value(explained).map_err(|error| PluginError::Odd { doing: doing(), says: error.to_string() })?;
    let reach = if routed.external { "inside and outside the cluster" } else { "inside the cluster only" };
    out.line(&format!("{host} belongs to Ingress {}, for clients {reach}.", routed.ingress))?;
    for (backend, route) in &routed.clusters {
        let shares = match &route.plan {
            None => "no weights are planned: to the nearest endpoints".to_owned(),
            Some(plan) => {
                let shares: Vec<String> = plan.iter().map(|(serving, weight)| format!("{weight} % to {serving}")).collect();
                shares.join(", ")
            }
        };
        out.line(&format!("Requests that enter at {node} for {backend}: {shares}."))?;
        if let Some(most) = route.most_in_flight {
            out.line(&format!("Of them at most {most} at once go to pods; activators hold the rest."))?;
        }
    }
    Ok(())
}

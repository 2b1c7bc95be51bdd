//! `routes`: which way each node's requests go.

use std::collections::BTreeMap;

use gateway_link::{Event, ROUTES_PATH, RevisionRoutes};
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::daemons;
use crate::error::PluginError;
use crate::options::RoutesOptions;
use crate::output::Output;

pub(crate) async fn run(cluster: &Cluster, options: &RoutesOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let scope = cluster.scope(&options.namespaces)?;
    let routes = chosen(read(cluster).await?, &scope, options.revision.as_deref());
    if options.form.is_json() {
        return out.json(&routes);
    }
    let rows = routes.iter().flat_map(rows).collect::<Vec<_>>();
    if rows.is_empty() {
        return Ok(out.line("No revision has routes: none of them has a ready pod, or Kantai places none.")?);
    }
    Ok(out.table(&["NAMESPACE", "REVISION", "REQUESTS ENTER AT", "ARE ANSWERED AT"], &rows)?)
}

/// All routes, as of now.
pub(crate) async fn read(cluster: &Cluster) -> Result<Vec<RevisionRoutes>, PluginError> {
    let target = daemons::decider(cluster).await?;
    let doing = format!("read the routes of {target}");
    let odd = |says: String| PluginError::Odd { doing: doing.clone(), says };
    let mut lines = std::pin::pin!(cluster.proxied_lines(&target, ROUTES_PATH).await?);
    let mut all = Vec::new();
    while let Some(line) = cluster.next_line(&mut lines, &doing).await? {
        match Event::from_line(&line).map_err(|error| odd(error.to_string()))? {
            Event::Snapshot { parts_left, routes, .. } => {
                all.extend(routes);
                if parts_left == 0 {
                    return Ok(all);
                }
            }
            other => return Err(odd(format!("it begins with {other:?}"))),
        }
    }
    Err(odd("it ends before all routes were told".to_owned()))
}

/// The routes of one revision, for programs.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    namespace: String,
    revision: String,
    /// Source node -> serving node -> weight in percent.
    rows: BTreeMap<String, BTreeMap<String, u32>>,
}

fn chosen(routes: Vec<RevisionRoutes>, scope: &Scope, revision: Option<&str>) -> Vec<Shown> {
    let mut chosen: Vec<Shown> = routes
        .into_iter()
        .filter(|one| scope.holds(&one.key().namespace) && revision.is_none_or(|name| one.key().revision == name))
        .map(|one| Shown {
            namespace: one.key().namespace.clone(),
            revision: one.key().revision.clone(),
            rows: one.rows().clone(),
        })
        .collect();
    chosen.sort_by(|one, other| (&one.namespace, &one.revision).cmp(&(&other.namespace, &other.revision)));
    chosen
}

fn rows(routes: &Shown) -> Vec<Vec<String>> {
    let row = |(source, weights): (&String, &BTreeMap<String, u32>)| {
        let mut shares: Vec<(&String, &u32)> = weights.iter().collect();
        shares.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
        let shares: Vec<String> = shares.iter().map(|(node, weight)| format!("{node} {weight} %")).collect();
        vec![routes.namespace.clone(), routes.revision.clone(), source.clone(), shares.join(", ")]
    };
    routes.rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use gateway_link::RevisionKey;

    use super::*;

    #[test]
    fn the_largest_share_stands_first_and_others_are_left_out() {
        let of = |namespace: &str| {
            RevisionRoutes::new(RevisionKey::new(namespace, "hello-00001"), [("node1", [("node1", 20), ("node3", 80)])]).unwrap()
        };
        let shown = chosen(vec![of("blue"), of("default")], &Scope::One("default".to_owned()), None);
        let rows: Vec<_> = shown.iter().flat_map(rows).collect();
        assert_eq!(rows, [["default", "hello-00001", "node1", "node3 80 %, node1 20 %"]]);
        assert_eq!(chosen(vec![of("blue"), of("default")], &Scope::All, None).len(), 2);
        assert_eq!(chosen(vec![of("blue")], &Scope::All, Some("other")), []);
    }
}

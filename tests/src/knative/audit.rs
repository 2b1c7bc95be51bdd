//! The API server's account of what a daemon writes.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::api_server::SYSTEM_NAMESPACE;

/// One request, as the API server's audit log has it.
#[derive(Deserialize)]
struct Request {
    verb: String,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
    #[serde(default)]
    name: String,
}

/// What the daemon wrote.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Renewals of its own Lease.
    pub lease: usize,
    /// All others: verb, resource and name.
    pub others: Vec<String>,
}

/// The log of one daemon's writes.
pub struct Audit {
    log: PathBuf,
    policy: PathBuf,
}

impl Audit {
    /// Of the writes of `account`, kept in `folder`.
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub fn of(account: &str, folder: &Path) -> anyhow::Result<Self> {
        let audit = Self { log: folder.join("audit.log"), policy: folder.join("audit-policy.yaml") };
        let policy = format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n\
             - level: Metadata\n  users: [\"system:serviceaccount:{SYSTEM_NAMESPACE}:{account}\"]\n  \
               verbs: [create, update, patch, delete, deletecollection]\n\
             - level: None\n"
        );
        std::fs::write(&audit.policy, policy)?;
        Ok(audit)
    }

    /// What the API server has to be started with.
    #[must_use]
    pub fn api_server_flags(&self) -> Vec<String> {
        vec![format!("--audit-policy-file={}", self.policy.display()), format!("--audit-log-path={}", self.log.display())]
    }

    /// All writes until now.
    ///
    /// # Errors
    /// Where the log cannot be understood.
    pub fn writes(&self) -> anyhow::Result<Writes> {
        let mut writes = Writes::default();
        // Without a write there is no log yet.
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        // A line that is being written has no end yet.
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let request: Request = serde_json::from_str(line)?;
            match request.object {
                Some(object) if object.resource == "leases" => writes.lease += 1,
                Some(object) => writes.others.push(format!("{} {} {}", request.verb, object.resource, object.name)),
                None => writes.others.push(request.verb),
            }
        }
        Ok(writes)
    }
}

//! `hand-back`: every revision back to Knative's own autoscaler, as before an uninstall.

use std::process::ExitCode;

use extra_controller::hand_back;

use crate::cluster::Cluster;
use crate::error::PluginError;
use crate::facts;
use crate::options::HandBackOptions;
use crate::output::Output;

pub(crate) async fn run(cluster: &Cluster, options: HandBackOptions, out: &mut Output<'_>) -> Result<ExitCode, PluginError> {
    let served = facts::served(cluster, &crate::cluster::Scope::All).await?;
    let switch = facts::switch(cluster).await?;
    if !options.yes {
        out.line(&format!(
            "The switch is {}. Handing back turns it off everywhere and waits until Knative's own autoscaler has these revisions:",
            switch.words()
        ))?;
        if served.is_empty() {
            out.line("  none")?;
        }
        for one in &served {
            out.line(&format!("  {}/{}", one.namespace, one.revision))?;
        }
        out.line("Nothing was changed. Add --yes to do it.")?;
        return Ok(ExitCode::FAILURE);
    }
    hand_back(cluster.client(), options.timeout).await?;
    out.line(&format!("{} revisions were handed back; the switch is off.", served.len()))?;
    Ok(ExitCode::SUCCESS)
}

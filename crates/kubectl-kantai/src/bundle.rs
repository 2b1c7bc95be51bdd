//! `bundle`: what a report of a fault needs, in one archive. Secrets are left out.
//!
//! No Secret is asked for. Of what is asked for, everything that may hold one is taken out: values
//! of variables, arguments and commands of containers, what was last applied, and credentials in
//! addresses.

mod collect;
mod redact;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cluster::Cluster;
use crate::error::PluginError;
use crate::options::BundleOptions;
use crate::output::Output;

pub(crate) async fn run(cluster: &Cluster, options: &BundleOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let folder = format!("kantai-bundle-{stamp}");
    let path = options.file.clone().unwrap_or_else(|| format!("{folder}.tar.gz").into());
    let files = collect::files(cluster, options).await;
    let archive = archive(&folder, &files)?;
    // It tells much of a cluster: only its owner may read it.
    let mut to = std::fs::OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        to.mode(0o600);
    }
    to.write(true).create_new(true).open(&path)?.write_all(&archive)?;
    let missing = files.iter().filter(|file| file.is_missing).count();
    out.line(&format!("{} files are in {}", files.len(), path.display()))?;
    if missing > 0 {
        out.line(&format!("{missing} could not be read; each says why"))?;
    }
    Ok(out.line("No Secret is in it, and no value of a container's variables. It names your services and nodes: look before you share it.")?)
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: String,
    content: Vec<u8>,
    /// Whether it only says why it could not be read.
    is_missing: bool,
}

fn archive(folder: &str, files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{folder}/{}", file.path), file.content.as_slice())?;
    }
    archive.into_inner()?.finish()
}

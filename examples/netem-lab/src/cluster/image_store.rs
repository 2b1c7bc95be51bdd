//! All images, unpacked once. Importing takes seconds per node, because every file is written and
//! every digest computed; so one container runtime imports what is new since the last time, and the
//! nodes get its folder by hard links. Nothing ever writes to a file of an image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::error::ClusterError;
use super::images::NodeImages;

/// The images of a store by reference, each with a fingerprint of its archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Inventory(BTreeMap<String, Stamp>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    archive: PathBuf,
    bytes: u64,
    modified_unix_nanoseconds: u128,
}

impl Inventory {
    fn of(images: &NodeImages) -> Result<Self, ClusterError> {
        let stamps = images.by_name.values().map(|image| {
            let metadata = fs::metadata(&image.archive).map_err(ClusterError::file("examine", &image.archive))?;
            let modified = metadata.modified().map_err(ClusterError::file("examine", &image.archive))?;
            let stamp = Stamp {
                archive: image.archive.clone(),
                bytes: metadata.len(),
                modified_unix_nanoseconds: modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()),
            };
            Ok((image.reference.clone(), stamp))
        });
        Ok(Self(stamps.collect::<Result<_, ClusterError>>()?))
    }

    /// The archives of those images that `self` has not, or has in another version.
    fn lacks(&self, wanted: &Self) -> Vec<PathBuf> {
        wanted
            .0
            .iter()
            .filter(|(reference, stamp)| self.0.get(*reference) != Some(stamp))
            .map(|(_, stamp)| stamp.archive.clone())
            .collect()
    }
}

/// The folder that holds the store of a lab.
#[derive(Clone, Debug)]
pub(super) struct ImageStore {
    folder: PathBuf,
}

/// A store that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    store: ImageStore,
    wanted: Inventory,
    /// The folder of the node-like thing that fills it.
    pub(super) folder: PathBuf,
    /// What it has to import.
    pub(super) archives: Vec<PathBuf>,
}

impl ImageStore {
    pub(super) fn in_state(state: &Path) -> Self {
        Self { folder: state.join("images") }
    }

    /// What has to be done before the store holds all images; nothing when it does.
    pub(super) async fn fill(&self, images: &NodeImages) -> Result<Option<Filling>, ClusterError> {
        let wanted = Inventory::of(images)?;
        // A store without a readable list was not finished.
        let present = fs::read(self.list()).ok().and_then(|bytes| serde_json::from_slice::<Inventory>(&bytes).ok());
        let archives = present.clone().unwrap_or_default().lacks(&wanted);
        if archives.is_empty() {
            return Ok(None);
        }
        let folder = self.folder.with_extension("filling");
        remove(&folder)?;
        if present.is_some() {
            self.copy_to(&folder).await?;
        } else {
            remove(&self.folder)?;
        }
        Ok(Some(Filling { store: self.clone(), wanted, folder, archives }))
    }

    /// Gives a node (or another store) its own copy, at `<folder>/storage/containerd`.
    pub(super) async fn copy_to(&self, folder: &Path) -> Result<(), ClusterError> {
        let storage = folder.join("storage");
        fs::create_dir_all(&storage).map_err(ClusterError::file("create", &storage))?;
        let (from, to) = (self.content(), storage.join("containerd"));
        let program = Path::new("cp");
        let output = Command::new(program)
            .args(["--archive", "--link", "--no-target-directory"])
            .args([&from, &to])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ClusterError::run(program))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ClusterError::file("copy", &from)(std::io::Error::other(message)));
        }
        // Those are written to: everyone needs their own.
        for database in databases(&from)? {
            let own = to.join(&database);
            fs::remove_file(&own).map_err(ClusterError::file("remove", &own))?;
            fs::copy(from.join(&database), &own).map_err(ClusterError::file("copy", &own))?;
        }
        Ok(())
    }

    fn content(&self) -> PathBuf {
        self.folder.join("storage/containerd")
    }

    fn list(&self) -> PathBuf {
        self.folder.join("list.json")
    }
}

impl Filling {
    /// Puts the filled store in its place. Whoever filled it must have ended.
    pub(super) fn finish(self) -> Result<(), ClusterError> {
        let list = self.folder.join("list.json");
        let bytes =
            serde_json::to_vec_pretty(&self.wanted).map_err(|source| ClusterError::file("write", &list)(source.into()))?;
        fs::write(&list, bytes).map_err(ClusterError::file("write", &list))?;
        remove(&self.store.folder)?;
        fs::rename(&self.folder, &self.store.folder).map_err(ClusterError::file("rename", &self.folder))
    }
}

/// The databases in a container runtime's folder, relative to it: one for all, and one per kind of
/// storage.
fn databases(root: &Path) -> Result<Vec<PathBuf>, ClusterError> {
    let mut found = Vec::new();
    for part in fs::read_dir(root).map_err(ClusterError::file("read", root))? {
        let part = part.map_err(ClusterError::file("read", root))?.path();
        if !part.is_dir() {
            continue;
        }
        for file in fs::read_dir(&part).map_err(ClusterError::file("read", &part))? {
            let file = file.map_err(ClusterError::file("read", &part))?.path();
            if file.extension().is_some_and(|extension| extension == "db")
                && let Ok(relative) = file.strip_prefix(root)
            {
                found.push(relative.to_owned());
            }
        }
    }
    Ok(found)
}

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> Result<(), ClusterError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ClusterError::file("remove", folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::images::NodeImage;
    use super::*;

    fn images(folder: &Path, names: &[&str]) -> NodeImages {
        let image = |name: &&str| {
            let archive = folder.join(format!("{name}.tar"));
            (name.to_string(), NodeImage { reference: format!("dev.local/{name}:1"), archive })
        };
        NodeImages { pause: String::new(), by_name: names.iter().map(image).collect() }
    }

    #[tokio::test]
    async fn only_what_is_new_is_imported() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["a", "b"] {
            fs::write(folder.path().join(format!("{name}.tar")), name).expect("archive");
        }
        let store = ImageStore::in_state(folder.path());
        let first = store.fill(&images(folder.path(), &["a"])).await.expect("fill").expect("something to import");
        assert_eq!(first.archives, [folder.path().join("a.tar")]);
        fs::create_dir_all(first.folder.join("storage/containerd")).expect("content");
        first.finish().expect("finish");
        assert!(store.fill(&images(folder.path(), &["a"])).await.expect("fill").is_none());

        let both = images(folder.path(), &["a", "b"]);
        let second = store.fill(&both).await.expect("fill").expect("something to import");
        assert_eq!(second.archives, [folder.path().join("b.tar")]);
        second.finish().expect("finish");
        fs::write(folder.path().join("a.tar"), "another a").expect("archive");
        let third = store.fill(&both).await.expect("fill").expect("something to import");
        assert_eq!(third.archives, [folder.path().join("a.tar")]);
    }

    #[tokio::test]
    async fn files_are_shared_and_databases_are_not() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = ImageStore::in_state(folder.path());
        let content = store.content().join("content");
        fs::create_dir_all(&content).expect("folder");
        for name in ["blob", "meta.db"] {
            fs::write(content.join(name), name).expect("file");
        }
        let node = folder.path().join("node");
        store.copy_to(&node).await.expect("copy");
        let inode = |path: PathBuf| fs::metadata(path).expect("file").ino();
        let copy = node.join("storage/containerd/content");
        assert_eq!(inode(copy.join("blob")), inode(content.join("blob")));
        assert_ne!(inode(copy.join("meta.db")), inode(content.join("meta.db")));
    }
}

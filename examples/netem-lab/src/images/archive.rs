//! Writes an image as an archive in the layout of the Open Container Initiative.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ImagesError;
use super::content::{Content, Entry, folders_above, hex};

const UNFINISHED: &str = ".unfinished-";
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes the image into `folder`, unless the archive that is there is of the same content, and
/// gives back the archive's path.
pub(super) fn write(folder: &Path, name: &str, content: &Content) -> Result<PathBuf, ImagesError> {
    std::fs::create_dir_all(folder).map_err(ImagesError::file("create", folder))?;
    let base = file_name(name);
    let (archive, mark) = (folder.join(format!("{base}.tar")), folder.join(format!("{base}.inputs")));
    let fingerprint = content.fingerprint()?;
    if archive.is_file() && std::fs::read_to_string(&mark).is_ok_and(|written| written == fingerprint) {
        return Ok(archive);
    }
    remove_abandoned(folder)?;
    // Another run may be reading the old archive: it goes on reading that, and finds the new one at
    // its next start.
    let unfinished =
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(ImagesError::file("create a file in", folder))?;
    let mut layer = tempfile::tempfile_in(folder).map_err(ImagesError::file("create a file in", folder))?;
    let digest = write_layer(&layer, content)?;
    layer
        .rewind()
        .and_then(|()| write_archive(unfinished.as_file(), &layer, &digest, name, content))
        .map_err(ImagesError::file("write", &archive))?;
    unfinished.persist(&archive).map_err(|error| ImagesError::file("rename to", &archive)(error.error))?;
    std::fs::write(&mark, fingerprint).map_err(ImagesError::file("write", &mark))?;
    Ok(archive)
}

/// Removes files of runs that were killed while they wrote: those not written to for an hour.
fn remove_abandoned(folder: &Path) -> Result<(), ImagesError> {
    for entry in std::fs::read_dir(folder).map_err(ImagesError::file("read", folder))? {
        let entry = entry.map_err(ImagesError::file("read", folder))?;
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if is_unfinished && modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED_AFTER)) {
            // Whoever removes it first is right.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn file_name(image: &str) -> String {
    image.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect()
}

fn write_layer(file: &File, content: &Content) -> Result<String, ImagesError> {
    let mut layer = tar::Builder::new(Hashing { inner: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new() });
    for folder in folders_above(content.entries.iter().map(|(path, _)| path.as_str())) {
        let is_named = content.entries.iter().any(|(path, _)| *path == folder);
        if !is_named {
            append(&mut layer, &folder, &Entry::Folder { mode: 0o755 }).map_err(ImagesError::file("add", &folder))?;
        }
    }
    for (path, entry) in &content.entries {
        let named = match entry {
            Entry::Copy { from, .. } => from.clone(),
            _ => PathBuf::from(path),
        };
        append(&mut layer, path, entry).map_err(ImagesError::file("add", named))?;
    }
    let finished = layer.into_inner().and_then(|mut hashing| hashing.flush().map(|()| hashing.hash));
    finished.map(|hash| hex(&hash.finalize())).map_err(ImagesError::file("write", "the image's layer"))
}

fn append(layer: &mut tar::Builder<impl Write>, path: &str, entry: &Entry) -> io::Result<()> {
    let path = path.trim_start_matches('/');
    match entry {
        Entry::Folder { mode } => {
            layer.append_data(&mut header(tar::EntryType::Directory, *mode, 0), format!("{path}/"), io::empty())
        }
        Entry::Link { to } => layer.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, to),
        Entry::Text { text } => {
            layer.append_data(&mut header(tar::EntryType::Regular, 0o644, text.len() as u64), path, text.as_bytes())
        }
        Entry::Copy { from, mode } => {
            let file = File::open(from)?;
            let size = file.metadata()?.len();
            layer.append_data(&mut header(tar::EntryType::Regular, *mode, size), path, file)
        }
    }
}

/// Everything belongs to root and has no time, so that the same content gives the same bytes.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_archive(file: &File, layer: &File, layer_digest: &str, name: &str, content: &Content) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    let layer_size = layer.metadata()?.len();
    let config = image_config(content, layer_digest).to_string();
    let config_digest = hex(&Sha256::digest(&config));
    let manifest = manifest((&config_digest, config.len()), (layer_digest, layer_size)).to_string();
    let manifest_digest = hex(&Sha256::digest(&manifest));
    let index = index((&manifest_digest, manifest.len()), name).to_string();

    let mut add = |path: &str, size: u64, data: &mut dyn io::Read| {
        archive.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, data)
    };
    let mut add_text = |path: &str, text: &str| add(path, text.len() as u64, &mut text.as_bytes());
    add_text("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add_text("index.json", &index)?;
    add_text(&format!("blobs/sha256/{manifest_digest}"), &manifest)?;
    add_text(&format!("blobs/sha256/{config_digest}"), &config)?;
    let mut layer = layer;
    add(&format!("blobs/sha256/{layer_digest}"), layer_size, &mut layer)?;
    archive.into_inner()?.flush()
}

fn image_config(content: &Content, layer_digest: &str) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": content.run_config(),
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    })
}

fn manifest((config_digest, config_size): (&str, usize), (layer_digest, layer_size): (&str, u64)) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": format!("sha256:{config_digest}"), "size": config_size},
        "layers": [{"mediaType": LAYER, "digest": format!("sha256:{layer_digest}"), "size": layer_size}],
    })
}

/// containerd takes the image's name from its own annotation; other tools know only the standard
/// one, which holds the tag.
fn index((manifest_digest, manifest_size): (&str, usize), name: &str) -> Value {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST,
            "digest": format!("sha256:{manifest_digest}"),
            "size": manifest_size,
            "platform": {"architecture": architecture(), "os": "linux"},
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
        }],
    })
}

/// This machine's architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Hashes what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn content(program: &Path) -> Content {
        Content {
            entries: vec![
                ("/tmp".into(), Entry::Folder { mode: 0o1777 }),
                ("/ko-app/x".into(), Entry::Copy { from: program.to_owned(), mode: 0o755 }),
                ("/usr/bin/x".into(), Entry::Link { to: "/ko-app/x".into() }),
            ],
            entrypoint: vec!["/ko-app/x".into()],
            user: "65532".into(),
            environment: vec!["A=b".into()],
        }
    }

    fn files(archive: impl Read) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn every_digest_in_an_archive_is_that_of_the_blob() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("x");
        std::fs::write(&program, "a program").unwrap();
        let archive = write(folder.path(), "dev.local/lab/x:1.0", &content(&program)).unwrap();
        let files = files(File::open(archive).unwrap());
        for (path, bytes) in &files {
            if let Some(digest) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest, hex(&Sha256::digest(bytes)));
            }
        }
        let read = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let index = read("index.json");
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "dev.local/lab/x:1.0");
        let manifest = read(&blob(&index["manifests"][0]["digest"]));
        let config = read(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["config"]["User"], "65532");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = self::files(files[&blob(&manifest["layers"][0]["digest"])].as_slice());
        assert_eq!(layer["ko-app/x"], b"a program");
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["ko-app/", "ko-app/x", "tmp/", "usr/", "usr/bin/", "usr/bin/x"]);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join(".unfinished-old"), folder.path().join(".unfinished-new"));
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
        File::create(&old).unwrap().set_modified(long_ago).unwrap();
        File::create(&new).unwrap();
        remove_abandoned(folder.path()).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn an_archive_is_written_again_only_when_its_content_changed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("x");
        std::fs::write(&program, "a program").unwrap();
        let write = || write(folder.path(), "dev.local/lab/x:1.0", &content(&program)).unwrap();
        let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
        let first = modified(&write());
        assert_eq!(modified(&write()), first);
        std::fs::write(&program, "another program").unwrap();
        assert_ne!(modified(&write()), first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "the program, the archive and its mark");
    }
}

//! Where cargo put the static library.

use std::path::PathBuf;

/// The static library that cargo made for this program: the newest, since cargo makes it anew
/// whenever a source has changed and keeps those of other features beside it.
pub(crate) fn newest() -> PathBuf {
    let mine = std::env::current_exe().expect("a program knows where it is");
    // In `deps` for tests, beside it for examples.
    let folders = mine.ancestors().skip(1).take(2).flat_map(|folder| [folder.to_owned(), folder.join("deps")]);
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let libraries = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("libplacement_c") && name.ends_with(".a")
    });
    let newest = libraries.max_by_key(|file| file.metadata().and_then(|about| about.modified()).ok());
    newest.map(|file| file.path()).unwrap_or_else(|| panic!("libplacement_c.a is not near {}", mine.display()))
}

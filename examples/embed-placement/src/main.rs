//! A first taste of placement: a small fleet, three decisions about it, and the reasons for each.
//!
//! `cargo run -p embed-placement [FLEET.toml [PAGE.html]]`

mod decide;
mod fleet;
mod page;
mod text;
mod wording;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fleet::{COAST, Fleet};

const USAGE: &str = "usage: embed-placement [FLEET.toml [PAGE.html]]

Decides where the service of a fleet runs and which way its requests go, prints the latency matrix,
the plans, the routes and why, and writes the same as an HTML page.

FLEET.toml  the fleet [default: the one in examples/embed-placement/fleets/coast.toml]
PAGE.html   where the page goes [default: target/embed-placement.html in the source tree]";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if arguments.len() > 2 || arguments.iter().any(|argument| argument.to_string_lossy().starts_with('-')) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let page_file = arguments.get(1).cloned().unwrap_or_else(default_page);
    match run(arguments.first().map(PathBuf::as_path), &page_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(file: Option<&Path>, page_file: &Path) -> Result<(), Box<dyn Error>> {
    let fleet = match file {
        Some(path) => Fleet::from_file(path)?,
        None => Fleet::from_text(COAST, "coast.toml")?,
    };
    let story = decide::decide(fleet)?;
    print!("{}", text::render(&story));
    let write = |source| format!("failed to write the page to {}: {source}", page_file.display());
    if let Some(folder) = page_file.parent() {
        std::fs::create_dir_all(folder).map_err(write)?;
    }
    std::fs::write(page_file, page::render(&story)).map_err(write)?;
    println!("\nthe same as a page: {}", page_file.display());
    Ok(())
}

fn default_page() -> PathBuf {
    // Two folders up from this package.
    let source_tree = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    source_tree.join("target/embed-placement.html")
}

/// What went wrong, and why, and why that.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

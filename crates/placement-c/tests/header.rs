//! The committed header is what the sources say.

use std::path::Path;

const SOURCES: [&str; 7] = ["lib", "edge", "matrix", "costs", "score", "problem", "plan"];

#[test]
fn the_committed_header_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    // The files one by one: cbindgen then needs no cargo to find them.
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(root.join("src").join(source).with_extension("rs"))
    });
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let path = root.join("include/kantai_placement.h");
    if std::env::var_os("KANTAI_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &header).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(committed, header, "the header has changed; if that is meant, run with KANTAI_BLESS=1 and raise the ABI version");
}

#[test]
fn every_function_with_a_c_name_is_declared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(root.join("include/kantai_placement.h")).unwrap();
    let mut sources = std::fs::read_dir(root.join("src")).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    sources.sort();
    assert_eq!(sources.len(), SOURCES.len(), "list every source above");
    let mut functions = 0;
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        for line in text.split("#[unsafe(no_mangle)]\n").skip(1) {
            let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).unwrap().0;
            assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
            functions += 1;
        }
    }
    assert!(functions > 20, "{functions}");
}

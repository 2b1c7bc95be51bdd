//! pip builds and installs `crates/placement-python`; its tests and its example run with what was
//! installed. It needs Python 3.11 with pip, and a registry of Python packages: maturin builds the
//! wheel, and numpy's arrays are read.

use std::path::{Path, PathBuf};
use std::process::Command;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/placement-python")
        .canonicalize()
        .expect("the package is in this tree")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{said}\n{told}", output.status);
    format!("{said}\n{told}")
}

#[test]
fn what_pip_installs_works() {
    let installed = tempfile::tempdir().unwrap();
    let python = || {
        let mut python = Command::new("python3");
        python.current_dir(installed.path()).env("PYTHONPATH", installed.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        python
    };
    // A folder of its own, which is not the machine's Python; built fast, with what the last run
    // left.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-package");
    let pip = ["-m", "pip", "install", "--quiet", "--no-warn-script-location", "--target"];
    run(python()
        .args(pip)
        .args([installed.path(), Path::new("numpy"), &package()])
        .env("MATURIN_PEP517_ARGS", "--profile dev --locked")
        .env("CARGO_TARGET_DIR", built)
        .env_remove("RUSTFLAGS")
        .env_remove("PYTHONPATH"));
    for name in ["kantai_placement/__init__.pyi", "kantai_placement/py.typed"] {
        assert!(installed.path().join(name).exists(), "type checkers do not find {name}");
    }

    let told = run(python().args(["-m", "unittest", "discover", "--verbose", "-s"]).arg(package().join("tests")));
    assert!(told.contains("\nOK") && !told.contains("skipped"), "{told}");

    let said = run(python().arg(package().join("examples/video.py")));
    assert!(said.contains("replicas {'danang': 1, 'hanoi': 2, 'saigon': 2}"), "{said}");
    assert!(said.contains("requests at cloud -> saigon 100 %"), "{said}");

    // Every name of the stubs is there, and nothing else.
    let names = "import ast, kantai_placement as k, pathlib as p\n\
        tree = ast.parse(p.Path(k.__file__).with_name('__init__.pyi').read_text())\n\
        data = {'PairStats', 'NodeCapacity', 'Segment'}\n\
        public = lambda names: {name for name in names if not name.startswith('_')}\n\
        parts = lambda body: public(part.name for part in body if isinstance(part, (ast.FunctionDef, ast.ClassDef))) - data\n\
        there = public(vars(k)) - {'kantai_placement'}\n\
        assert parts(tree.body) == there, (parts(tree.body), there)\n\
        for part in tree.body:\n\
        \x20   if isinstance(part, ast.ClassDef) and part.name in there:\n\
        \x20       assert parts(part.body) == public(vars(getattr(k, part.name))), part.name\n";
    run(python().args(["-c", names]));
}

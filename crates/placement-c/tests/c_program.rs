//! A C program uses the static library, under the sanitizers of the C compiler that Rust links
//! with; and a shared library made of the same objects.

mod library;

use std::path::Path;
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compile(arguments: &[&Path], options: &[&str]) {
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-I"]).arg(root().join("include"));
    run(compiler.args(arguments).args(options), "a C compiler with AddressSanitizer (gcc: libasan and libubsan)");
}

fn run(command: &mut Command, needs: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}; it needs {needs}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}; it needs {needs}\n{told}", output.status);
    output
}

#[test]
fn a_c_program_under_sanitizers_finds_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    compile(
        &[Path::new("-o"), &program, &root().join("tests/c_program.c"), &library::newest()],
        &["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread", "-lm", "-ldl"],
    );
    let output = run(
        Command::new(&program).env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0").env("UBSAN_OPTIONS", "print_stacktrace=1"),
        "nothing more",
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let checks: u32 = said.trim_end().strip_suffix(" checks").unwrap().parse().unwrap();
    assert!(checks > 60, "{said}");
}

/// The sanitizers see what is wrong, so that finding nothing says something.
#[test]
fn a_leak_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("leak.c"), folder.path().join("leak"));
    let text = "#include \"kantai_placement.h\"\nint main(void) { KantaiPlanner *p = NULL; kantai_planner_new(&p, NULL); p = NULL; return 0; }\n";
    std::fs::write(&source, text).unwrap();
    compile(&[Path::new("-o"), &program, &source, &library::newest()], &["-fsanitize=address", "-pthread", "-lm", "-ldl"]);
    let output = Command::new(&program).env("ASAN_OPTIONS", "detect_leaks=1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("LeakSanitizer"), "{} {told}", output.status);
}

#[test]
fn the_objects_make_a_shared_library_too() {
    let folder = tempfile::tempdir().unwrap();
    let (shared, program) = (folder.path().join("libkantai_placement.so"), folder.path().join("program"));
    let everything = [Path::new("-Wl,--whole-archive"), &library::newest(), Path::new("-Wl,--no-whole-archive")];
    let out = [Path::new("-shared"), Path::new("-o"), &shared];
    compile(&[&out[..], &everything[..]].concat(), &["-Wl,--no-undefined", "-pthread", "-lm", "-ldl", "-lgcc_s"]);
    compile(&[Path::new("-o"), &program, &root().join("tests/c_program.c"), &shared], &["-pthread", "-lm"]);
    run(Command::new(&program).env("LD_LIBRARY_PATH", folder.path()), "nothing more");
}

#[test]
fn the_first_program_of_the_documentation_runs() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("video");
    let source = root().join("examples/c/video.c");
    compile(&[Path::new("-o"), &program, &source, &library::newest()], &["-lm", "-ldl", "-lpthread"]);
    let said = String::from_utf8(run(&mut Command::new(&program), "nothing more").stdout).unwrap();
    assert!(said.contains("hanoi: 2 replicas; requests there go to"), "{said}");
    assert!(said.contains("cloud: 0 replicas; requests there go to saigon 100 %\n"), "{said}");
    assert!(said.contains("\ncloud: no replica; one here instead of elsewhere would add "), "{said}");
}

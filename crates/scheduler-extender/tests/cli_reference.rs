//! The reference of the command line says what the program says.

#[test]
fn the_reference_is_what_the_program_says() {
    repository_checks::cli::check(env!("CARGO_BIN_EXE_scheduler-extender").as_ref(), "scheduler-extender");
}

//! The reference of the command line says what the program says.

#[test]
fn the_reference_is_what_the_program_says() {
    repository_checks::cli::check_tool(env!("CARGO_BIN_EXE_kubectl-kantai").as_ref(), "kubectl-kantai");
}

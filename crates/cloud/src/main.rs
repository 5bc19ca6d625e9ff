use std::process::ExitCode;

fn main() -> ExitCode {
    lumbung_cloud::cli::main()
}

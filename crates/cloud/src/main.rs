use std::process::ExitCode;

/// Gives memory back to the system: a sign-in takes 19 MiB for a moment, on whatever thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lumbung_cloud::cli::main()
}

//! `lumbung-gateway`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any TLS: the HTTP client is built without a provider of its own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    lumbung_gateway::cli::main()
}

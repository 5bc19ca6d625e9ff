//! `make run`: the whole of Lumbung on one laptop, with a believable morning of food on the move.

#[path = "../demo/mod.rs"]
mod demo;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = demo::Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(demo::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    demo::say::problem(&format!("{error:#}"));
    ExitCode::FAILURE
}

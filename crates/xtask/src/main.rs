//! Repository chores: `cargo xtask check-layers`, `cargo xtask generate [--check]`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for this repository's people only")]

mod generate;
mod layers;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Repository chores")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Hold the dependencies between our crates against the table of the house.
    CheckLayers,
    /// Write everything that is generated from code: the schema, the command reference, man pages, completions.
    Generate {
        /// Change nothing; fail if something would change.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().chore {
        Chore::CheckLayers => layers::check(),
        Chore::Generate { check } => generate::run(check),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

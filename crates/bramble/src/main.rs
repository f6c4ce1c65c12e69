//! The tool in the hand: arguments, then settings, then one command.

mod cli;
mod commands;
mod hands;
mod problem;
mod settings;
mod site;
mod talos;
mod way;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let usage = error.use_stderr();
            return if usage { bramble_console::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let settings = settings::Settings::resolve(&cli.global);
    bramble_console::set_colour(settings.colour);
    match commands::run(cli.command, &settings) {
        Ok(exit) => exit.into(),
        Err(problem) => {
            problem.show();
            problem.exit().into()
        }
    }
}

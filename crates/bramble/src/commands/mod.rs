//! One file a verb. Commands get finished settings; they print through the console crate only.

mod add;
mod apply;
mod apply_talos;
mod build;
mod check;
mod doctor;
mod eject;
mod flash;
mod house;
mod import;
mod init;
mod key;
mod kubeconfig;
pub(crate) mod lab;
mod network;
mod node;
mod plan;
mod release;
mod render;
mod secrets;
mod secrets_talos;
mod serve;
mod talosconfig;
mod words;

use crate::cli::{Add, Command, Eject, Network};
use crate::problem::Problem;
use crate::settings::Settings;
use bramble_console::Exit;

/// Runs one command.
pub fn run(command: Command, settings: &Settings) -> Result<Exit, Problem> {
    match command {
        Command::Init(args) => init::run(&args, settings),
        Command::Check => check::run(settings),
        Command::Add(Add::Node { name, role, board, address, mac }) => {
            add::node(settings, &add::Words { name, role, board, address, mac })
        }
        Command::Lock(args) => build::lock(&args, settings),
        Command::Fetch(args) => build::fetch(&args, settings),
        Command::Plan(args) => plan::run(&args, settings),
        Command::Apply(args) => apply::run(&args, settings),
        Command::Status(args) => house::status(&args, settings),
        Command::Why(args) => house::why(&args, settings),
        Command::Build(args) => build::build(&args, settings),
        Command::Release(args) => release::run(&args, settings),
        Command::Serve(args) => serve::run(&args),
        Command::Key(args) => key::run(&args, settings),
        Command::Flash(args) => flash::run(&args, settings),
        Command::Lab(args) => lab::run(args, settings),
        Command::Node(args) => node::run(args, settings),
        Command::Kubeconfig(args) => kubeconfig::run(&args, settings),
        Command::Network(Network::Reservations { output }) => network::reservations(settings, output),
        Command::Secrets(args) => secrets::run(args, settings),
        Command::Render(args) => render::run(&args, settings),
        Command::Talosconfig(args) => talosconfig::run(&args, settings),
        Command::Import(args) => import::run(&args, settings),
        Command::Eject(Eject::Talos(args)) => eject::talos(&args, settings),
        Command::Doctor(args) => match args.board {
            Some(name) => doctor::board(&name, args.output),
            None => doctor::run(settings),
        },
        Command::Schema => {
            bramble_console::json(&bramble_spec::json_schema());
            Ok(Exit::Done)
        }
        Command::Completions { shell } => words::completions(shell),
        Command::Man { out } => words::manual(&out),
        Command::Reference => words::reference(),
        Command::LabHost { directory } => lab::host(&directory),
    }
}

/// Seconds since the epoch, by this computer's clock.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The time, as files of keys and secrets carry it.
pub(crate) fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

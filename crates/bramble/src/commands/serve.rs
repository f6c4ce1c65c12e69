//! `bramble serve`: a web server for the network at home.

use crate::cli::Serve;
use crate::problem::Problem;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_serve::{Limits, Served};
use std::net::TcpListener;

/// Serves until it is ended.
pub(crate) fn run(args: &Serve) -> Result<Exit, Problem> {
    let Serve { directory, listen } = args;
    if !directory.is_dir() {
        return Err(Failure::user(format!("{} is no directory", directory.display()))
            .hint("`bramble release` makes it")
            .into());
    }
    let failed =
        |e| Failure::user(format!("cannot listen on {listen}")).source(e).hint("--listen ADDRESS:PORT");
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    bramble_console::say(&format!("{} is served at http://{address}/", directory.display()));
    bramble_serve::serve(&listener, directory, Limits::default(), |served| {
        let Served { client, method, path, range, status, sent } = served;
        let range = range.as_deref().unwrap_or("-");
        let line = format!("{client} {method} {path} {range} {status} {sent}");
        bramble_console::say(&bramble_console::harmless(&line));
    })
    .map_err(|e| Failure::user(format!("cannot listen on {listen} any more")).source(e))?;
    Ok(Exit::Done)
}

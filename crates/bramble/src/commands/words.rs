//! What is printed about the tool itself: completions, manual pages, the command reference.

use crate::cli::Cli;
use crate::problem::Problem;
use bramble_console::Exit;
use bramble_effects::Failure;
use clap::{Command, CommandFactory};
use std::fmt::Write;
use std::path::Path;

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Exit, Problem> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bramble", &mut text);
    bramble_console::data(&String::from_utf8_lossy(&text));
    Ok(Exit::Done)
}

/// Writes a manual page for every command.
pub(crate) fn manual(out: &Path) -> Result<Exit, Problem> {
    let failed =
        |source| Failure::user(format!("cannot write manual pages to {}", out.display())).source(source);
    std::fs::create_dir_all(out).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), out).map_err(failed)?;
    Ok(Exit::Done)
}

/// Prints the command reference as Markdown.
pub(crate) fn reference() -> Result<Exit, Problem> {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# Commands\n\nGenerated from the program by `cargo xtask generate`.\n\n\
         Exit codes: 0 done; 1 you can mend it; 2 changes pending (only with `--exit-code`); 64 usage; 70 a bug of \
         ours; 75 waiting or locked, run again; 130 interrupted, run again to go on.\n",
    );
    describe(&root, &mut text);
    bramble_console::data(&text);
    Ok(Exit::Done)
}

fn describe(command: &Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## `{name}`\n\n{about}.\n\n```\n{usage}\n```\n");
    let arguments: Vec<_> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && a.get_id() != "help" && a.get_id() != "version")
        .filter(|a| !a.is_global_set() || name == "bramble")
        .collect();
    if !arguments.is_empty() {
        text.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for argument in arguments {
        let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let choices: Vec<String> =
            argument.get_possible_values().iter().map(|v| v.get_name().to_string()).collect();
        if !choices.is_empty() && argument.get_action().takes_values() {
            let _ = write!(meaning, " ({})", choices.join(", "));
        }
        let _ = writeln!(
            text,
            "| `{}` | {} |",
            argument.to_string().replace('|', "\\|"),
            meaning.replace('|', "\\|")
        );
    }
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        describe(sub, text);
    }
}

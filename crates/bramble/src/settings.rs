//! Arguments and environment, resolved once. Commands get finished settings and ask the world for no more of them.

use crate::cli::{ColourChoice, Global, ProgressChoice};
use bramble_console::{Colour, Mode};
use bramble_exec::Project;
use std::path::{Path, PathBuf};

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything lies.
    pub project: Project,
    /// How progress is drawn.
    pub progress: Mode,
    /// Whether to colour.
    pub colour: Colour,
}

impl Settings {
    /// Resolves the global arguments.
    pub fn resolve(global: &Global) -> Settings {
        let file = global.file.clone();
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        // An absolute path, so that what is started in the background finds it too.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        let cache = global.cache_dir.clone().unwrap_or_else(cache_directory);
        let cache = std::path::absolute(&cache).unwrap_or(cache);
        Settings {
            project: Project { file, directory, cache },
            progress: match global.progress {
                ProgressChoice::Auto => Mode::detect(),
                ProgressChoice::Plain => Mode::Lines,
                ProgressChoice::Json => Mode::Json,
            },
            colour: match global.color {
                ColourChoice::Auto => Colour::Auto,
                ColourChoice::Always => Colour::Always,
                ColourChoice::Never => Colour::Never,
            },
        }
    }

    /// Name of the file as the user gave it, for messages.
    pub fn file_name(&self) -> String {
        self.project.file.display().to_string()
    }
}

/// The XDG cache directory of this tool; a directory in the temporary one where there is no home.
fn cache_directory() -> PathBuf {
    use etcetera::BaseStrategy;
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.cache_dir().join("bramble"),
        Err(_) => Path::new("/tmp").join("bramble-cache"),
    }
}

/// The agent for an architecture: given by `BRAMBLE_AGENT_<ARCH>`, beside the tool, or in this repository's own
/// build directory. `None` when it is nowhere.
pub fn agent(arch: bramble_api::names::Arch) -> Option<PathBuf> {
    let variable = format!("BRAMBLE_AGENT_{}", arch.debian().to_uppercase());
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path));
    }
    let tool = std::env::current_exe().ok()?;
    let beside = tool.parent()?;
    let candidates = [
        beside.join(format!("bramble-node-{arch}")),
        // An installed tool: PREFIX/bin/bramble, PREFIX/lib/bramble/<arch>/bramble-node.
        beside.join(format!("../lib/bramble/{arch}/bramble-node")),
        // A checkout: target/release/bramble, target/agent/<arch>/bramble-node.
        beside.join(format!("../agent/{arch}/bramble-node")),
    ];
    candidates.into_iter().find(|p| p.is_file())
}

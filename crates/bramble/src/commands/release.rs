//! `bramble release`: from the file to a directory that machines update themselves from.

use crate::cli::Release;
use crate::problem::Problem;
use crate::settings::Settings;
use bramble_console::Exit;
use bramble_exec::Publishing;
use bramble_plan::Purpose;
use std::path::{Path, PathBuf};

/// Builds and publishes.
pub(crate) fn run(args: &Release, settings: &Settings) -> Result<Exit, Problem> {
    let archs = super::build::archs(args.arch.as_deref())?;
    // Relative names are the person's, who may stand elsewhere than the project does.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or(path.to_path_buf());
    let out = absolute(&args.out);
    let mut from: Vec<PathBuf> = args.from.iter().map(|path| absolute(path)).collect();
    from.push(out.clone());
    let publishing = Publishing {
        from,
        out: out.clone(),
        valid: (args.valid > 0).then_some(args.valid * 24 * 3600),
        keep: args.keep,
        level: args.level,
    };
    super::build::run(settings, Purpose::Release { archs }, publishing)?;
    bramble_console::say(&format!(
        "{}: copy it to a web server, `latest` last; or `bramble serve {}`",
        args.out.display(),
        args.out.display()
    ));
    Ok(Exit::Done)
}

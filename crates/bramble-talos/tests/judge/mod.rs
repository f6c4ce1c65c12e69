//! Asking the judge.

pub mod random;

use bramble_talos::Release;
use std::path::PathBuf;
use std::process::Command;

/// What a judge says. That it could not judge is an error of the test, never a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Rejected,
    /// Talos' own code panicked, or met a part of its own patcher where it wanted a document.
    Crashed,
}

/// A judge of one release, with a directory for what it is to read.
pub struct Judge {
    program: PathBuf,
    directory: tempfile::TempDir,
}

pub struct Answer {
    pub verdict: Verdict,
    pub out: String,
}

impl Judge {
    pub fn of(release: Release) -> Result<Judge, String> {
        let directory = std::env::var_os("BRAMBLE_JUDGES")
            .ok_or("BRAMBLE_JUDGES is not set: run scripts/conformance.sh")?;
        let program = PathBuf::from(directory).join(format!("talos-judge-1.{}", release.minor()));
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        Ok(Judge { program, directory })
    }

    /// Writes a file for it and gives its path.
    pub fn file(&self, name: &str, text: &str) -> std::io::Result<String> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs it.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer, String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .output()
            .map_err(|e| format!("{}: {e}", self.program.display()))?;
        let mut out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            out += &String::from_utf8_lossy(&output.stderr);
        }
        let verdict = match output.status.code() {
            Some(0) => Verdict::Accepted,
            Some(1) if out.contains("merge type mismatch left *decoder.") => Verdict::Crashed,
            Some(1) => Verdict::Rejected,
            Some(2) if out.contains("panic: ") => Verdict::Crashed,
            _ => return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        };
        Ok(Answer { verdict, out })
    }

    /// Demands that every one of these configs is taken without a warning.
    pub fn validate(&self, files: &[String], what: &str) -> Result<(), String> {
        for part in files.chunks(200) {
            let mut arguments = vec!["validate", "--strict", "--no-warnings"];
            arguments.extend(part.iter().map(String::as_str));
            self.run(&arguments)?.expect(Verdict::Accepted, what)?;
        }
        Ok(())
    }
}

impl Answer {
    /// Demands a verdict, or shows what the judge said.
    pub fn expect(&self, verdict: Verdict, what: &str) -> Result<(), String> {
        if self.verdict == verdict {
            return Ok(());
        }
        let lines: Vec<&str> = self.out.lines().filter(|l| !l.contains(": OK ")).take(30).collect();
        Err(format!("{what}: {:?}\n{}", self.verdict, lines.join("\n")))
    }
}

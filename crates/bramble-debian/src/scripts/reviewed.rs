//! The reviewed list: data, so that it can be updated apart from the tool.

use super::{Script, ScriptKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The list that comes with this version of the tool.
const TRIXIE: &str = include_str!("../../reviewed/trixie.toml");

/// Hexadecimal digits kept of a line's digest: 32 bits are plenty to tell the few hundred lines of one script apart.
const LINE_DIGITS: usize = 8;

/// Scripts that somebody has read, and what stands for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    /// Format of this document: 1.
    pub format: u32,
    /// Debian release.
    pub release: String,
    /// The scripts, by package and kind; the newest review of one package and kind last.
    #[serde(default, rename = "script")]
    pub scripts: Vec<ReviewedScript>,
}

/// One reviewed script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewedScript {
    /// Package, `@ABI@` for a kernel's release.
    pub package: String,
    /// Which script.
    pub kind: ScriptKind,
    /// SHA-256 of the normalised text, hexadecimal.
    pub sha256: String,
    /// Substitutes that stand for it.
    #[serde(default, rename = "as")]
    pub stands: Vec<String>,
    /// What it does on a first install, in a reviewer's words.
    pub note: String,
    /// Digests of its lines, eight hexadecimal digits each, separated by spaces: enough to show what a new version
    /// adds, without a copy of Debian's text.
    #[serde(default)]
    pub lines: String,
}

/// Why a reviewed list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReviewedError {
    /// It is not TOML of the right shape.
    #[error("the list of reviewed scripts does not parse")]
    Parse(#[source] Box<toml::de::Error>),
    /// It is of a format that this version does not know.
    #[error("the list of reviewed scripts has format {format}, this version knows format 1")]
    Format {
        /// As it stands.
        format: u32,
    },
}

impl Reviewed {
    /// The list that comes with the tool.
    ///
    /// # Errors
    /// Only if the tool was built from a damaged list.
    pub fn shipped() -> Result<Self, ReviewedError> {
        Reviewed::parse(TRIXIE)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// Not TOML, of another shape, or of another format.
    pub fn parse(text: &str) -> Result<Self, ReviewedError> {
        let list: Reviewed = toml::from_str(text).map_err(|e| ReviewedError::Parse(Box::new(e)))?;
        if list.format == 1 { Ok(list) } else { Err(ReviewedError::Format { format: list.format }) }
    }

    /// The review of exactly this script.
    pub fn find(&self, script: &Script) -> Option<&ReviewedScript> {
        self.scripts
            .iter()
            .find(|r| r.package == script.package && r.kind == script.kind && r.sha256 == script.sha256)
    }

    /// Adds scripts that are not in the list yet, with an empty note for the reviewer to fill in, and sorts it.
    /// Reviews that exist keep their words.
    pub fn add(&mut self, scripts: &[Script]) {
        for script in scripts.iter().filter(|script| !script.is_empty()) {
            if self.find(script).is_none() {
                self.scripts.push(ReviewedScript {
                    package: script.package.clone(),
                    kind: script.kind,
                    sha256: script.sha256.clone(),
                    stands: Vec::new(),
                    note: String::new(),
                    lines: digests(&script.text).join(" "),
                });
            }
        }
        self.scripts.sort_by(|a, b| (&a.package, a.kind).cmp(&(&b.package, b.kind)));
    }

    /// How a script differs from the last reviewed one of its package and kind; see [`super::UnknownScript::diff`].
    pub fn diff(&self, script: &Script) -> Vec<String> {
        let old: Vec<&str> = self
            .scripts
            .iter()
            .rfind(|r| r.package == script.package && r.kind == script.kind)
            .map(|r| r.lines.split_whitespace().collect())
            .unwrap_or_default();
        let new = digests(&script.text);
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        let text: Vec<&str> = script.text.lines().collect();
        let mut out = Vec::new();
        for step in steps(&old, &new) {
            match step {
                Step::Same(at) => out.push(format!("  {}", text.get(at).unwrap_or(&""))),
                Step::New(at) => out.push(format!("+ {}", text.get(at).unwrap_or(&""))),
                Step::Gone(at) => out.push(format!("- (line {} of the reviewed script)", at + 1)),
            }
        }
        context(out)
    }
}

fn digests(text: &str) -> Vec<String> {
    text.lines().map(|line| hex::encode(Sha256::digest(line)).chars().take(LINE_DIGITS).collect()).collect()
}

enum Step {
    Same(usize),
    New(usize),
    Gone(usize),
}

/// The longest common subsequence, by the quadratic table: scripts have at most some hundred lines.
fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let width = new.len() + 1;
    let mut table = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            table[i * width + j] = if old[i] == new[j] {
                table[(i + 1) * width + j + 1] + 1
            } else {
                table[(i + 1) * width + j].max(table[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push(Step::Same(j));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || table[(i + 1) * width + j] >= table[i * width + j + 1])
        {
            out.push(Step::Gone(i));
            i += 1;
        } else {
            out.push(Step::New(j));
            j += 1;
        }
    }
    out
}

/// Keeps three unchanged lines around every change, as diff does.
fn context(lines: Vec<String>) -> Vec<String> {
    const AROUND: usize = 3;
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !line.starts_with("  ")).map(|(at, _)| at).collect();
    let near = |at: usize| changed.iter().any(|c| c.abs_diff(at) <= AROUND);
    let mut out = Vec::new();
    let mut skipped = false;
    for (at, line) in lines.into_iter().enumerate() {
        if near(at) {
            if skipped {
                out.push("  ...".to_string());
                skipped = false;
            }
            out.push(line);
        } else {
            skipped = true;
        }
    }
    out
}

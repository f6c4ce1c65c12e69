//! The project as it stands: the file, the lock, and what both mean for planning.

use crate::problem::Problem;
use crate::settings::Settings;
use bramble_api::lock::Lock;
use bramble_api::plan::NotServed;
use bramble_effects::Failure;
use bramble_plan::{Sources, Wanted};
use bramble_spec::{Checked, Cluster};
use std::io::Read;

/// The project as it stands.
pub struct Site {
    /// The checked file.
    pub cluster: Cluster,
    /// Parts of it that are not acted on.
    pub not_served: Vec<NotServed>,
    /// The lock, with every node of the file allocated.
    pub lock: Lock,
}

/// Reads the file's text, refusing what cannot be one.
pub fn read_file(settings: &Settings) -> Result<String, Problem> {
    let name = settings.file_name();
    let failed = |source: std::io::Error| {
        let missing = source.kind() == std::io::ErrorKind::NotFound;
        let failure = Failure::user(format!("cannot read {name}")).source(source);
        if missing {
            failure.hint("`bramble init` starts a project here; -f names a file elsewhere")
        } else {
            failure
        }
    };
    let file = std::fs::File::open(&settings.project.file).map_err(failed)?;
    let mut text = Vec::new();
    let limit = bramble_spec::MAX_BYTES as u64;
    file.take(limit + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        let what = format!("{name} is larger than {} MB: that is not a cluster's file", limit / 1_000_000);
        return Err(Failure::user(what).hint("is it the right file?").into());
    }
    String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::user(format!("{name} is not UTF-8 text: byte {at} is no character")).into()
    })
}

/// Reads and checks the file, showing everything that is wrong with it.
pub fn check(settings: &Settings) -> Result<Checked, Problem> {
    let source = read_file(settings)?;
    let name = settings.file_name();
    match bramble_spec::parse(&source, &name) {
        Ok(checked) => {
            bramble_console::diagnostics(&name, &source, &checked.warnings);
            Ok(checked)
        }
        Err(found) => {
            bramble_console::diagnostics(&name, &source, &found.list);
            Err(Problem::File { errors: found.errors(), name })
        }
    }
}

impl Site {
    /// Reads file and lock, and gives new nodes their numbers (in memory).
    pub fn load(settings: &Settings) -> Result<Site, Problem> {
        let checked = check(settings)?;
        let mut lock = settings.project.read_lock()?;
        let pods = checked.cluster.spec.network.pods;
        let nodes = checked.cluster.effective_nodes();
        lock.allocated = bramble_plan::allocate(&lock.allocated, nodes.iter().map(|n| n.name.as_str()), pods)
            .map_err(|e| Failure::user(e.to_string()).hint("a wider pod network needs a new cluster"))?;
        lock.tool = env!("CARGO_PKG_VERSION").to_string();
        let not_served =
            checked.not_served.iter().map(|n| NotServed { path: n.path.clone(), line: n.line }).collect();
        Ok(Site { cluster: checked.cluster, not_served, lock })
    }

    /// What planning looks at.
    pub fn wanted(&self) -> Wanted {
        bramble_plan::wanted(&self.cluster, self.not_served.clone())
    }

    /// What changes a result without standing in the file.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        sources.0.insert("tool".into(), env!("CARGO_PKG_VERSION").into());
        sources.0.insert("file".into(), bramble_plan::digest(&self.cluster));
        sources
    }

    /// That the file has a node of this name, or the nearest ones.
    pub fn known(&self, node: &str) -> Result<(), Problem> {
        let names: Vec<String> = self.cluster.effective_nodes().iter().map(|n| n.name.to_string()).collect();
        if names.iter().any(|n| n == node) {
            return Ok(());
        }
        let what = format!("the file has no node {:?}", bramble_console::harmless(node));
        Err(Failure::user(what).hint(format!("it has: {}", names.join(", "))).into())
    }
}

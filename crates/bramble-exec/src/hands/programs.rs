//! Kubernetes' programs: fetched or built, and put where the units expect them.

use super::{Builder, k3s};
use crate::project::Project;
use bramble_api::event::{Outcome, Unit};
use bramble_api::lock::{Lock, LockedProgram};
use bramble_api::names::Arch;
use bramble_debian::assemble::{ExtraBody, ExtraFile};
use bramble_debian::tree::Content;
use bramble_effects::{Class, Context, Failure};
use bramble_kube::programs::{self, Placed, Program, ProgramsError, Progress, Source};
use bramble_kube::{names, oci};
use std::fs::File;
use std::path::PathBuf;

/// The programs of one architecture as files in the cache, and the images made of them.
pub(super) struct ProgramFiles {
    arch: Arch,
    programs: Vec<Program>,
    /// Container images that every machine carries, and their file names.
    pub(super) images: Vec<(oci::Archive, &'static str)>,
    /// Archives of images that the file names; only k3s has them.
    named: Vec<k3s::ImageFile>,
}

/// A program as the lock keeps it.
fn locked(program: &Program) -> LockedProgram {
    LockedProgram {
        name: program.name.clone(),
        version: program.version.clone(),
        source: program.source.to_string(),
        key: program.key.clone(),
        sha256: program.sha256.clone(),
    }
}

impl ProgramFiles {
    /// What they are, as in the lock.
    pub(super) fn list(&self) -> Vec<LockedProgram> {
        let version = self.programs.first().map_or("", |program| program.version.as_str());
        self.programs.iter().map(locked).chain(self.named.iter().map(|image| image.locked(version))).collect()
    }

    /// The files of the root that hold them.
    pub(super) fn placed(&self) -> Result<Vec<ExtraFile>, Failure> {
        if let [release] = self.programs.as_slice()
            && release.name == "k3s"
        {
            let own = self
                .images
                .iter()
                .map(|(archive, name)| k3s::ImageFile::new(name, archive.bytes.clone().into()));
            let images: Vec<k3s::ImageFile> = own.chain(self.named.iter().cloned()).collect();
            return k3s::placed(release, self.arch, &images);
        }
        let mut extra = Vec::new();
        for placed in programs::place(&self.programs) {
            extra.push(match placed {
                Placed::Link { path, target } => {
                    ExtraFile { path, body: ExtraBody::Symlink { target: target.to_string() } }
                }
                Placed::File { path, program } => {
                    let failed = |e| {
                        Failure::user(format!("cannot read the program {}", program.path.display())).source(e)
                    };
                    let content = File::open(&program.path).and_then(|f| Content::map(&f)).map_err(failed)?;
                    ExtraFile { path, body: ExtraBody::File { mode: 0o755, content } }
                }
            });
        }
        let mut image = |name: &str, bytes: Vec<u8>| {
            let body = ExtraBody::File { mode: 0o644, content: bytes.into() };
            extra.push(ExtraFile { path: format!("{}/{name}", names::IMAGES), body });
        };
        for (archive, name) in &self.images {
            image(name, archive.bytes.clone());
        }
        image("index", oci::index(self.images.iter().map(|(archive, name)| (archive, *name))).into_bytes());
        Ok(extra)
    }
}

impl Builder<'_> {
    /// Where the file says that the programs come from.
    fn program_sources(&self) -> Vec<Source> {
        match &self.cluster.spec.kubernetes.source {
            bramble_spec::Source::Modules => vec![Source::Modules],
            bramble_spec::Source::Release => vec![Source::Release],
            bramble_spec::Source::Path(path) => vec![Source::Directory(self.project.directory.join(path))],
            bramble_spec::Source::Auto => vec![Source::Release, Source::Modules],
        }
    }

    /// Gets the programs of an architecture and writes what they are to the lock.
    pub(super) fn fetch_programs(
        &self,
        arch: Arch,
        version: &str,
        context: &Context<'_>,
    ) -> Result<Outcome, Failure> {
        let before = self.lock().programs.get(&arch).cloned();
        let programs = self.programs(arch, version, before.as_deref(), context)?;
        let list: Vec<LockedProgram> = programs.iter().map(locked).collect();
        let unchanged = before.as_ref() == Some(&list);
        self.lock().programs.insert(arch, list);
        self.keep_lock()?;
        Ok(if unchanged { Outcome::Unchanged } else { Outcome::Done })
    }

    /// The programs from the first source that has them. What the lock was made with stays: a network that comes
    /// and goes must not change an image.
    fn programs(
        &self,
        arch: Arch,
        version: &str,
        before: Option<&[LockedProgram]>,
        context: &Context<'_>,
    ) -> Result<Vec<Program>, Failure> {
        if self.is_k3s() {
            return Ok(vec![self.k3s_program(arch, version, before, context)?]);
        }
        let mut sources = self.program_sources();
        let word = before.and_then(|list| list.first()).map(|p| p.source.clone());
        if let Some(word) = word
            && sources.len() > 1
        {
            sources.retain(|s| source_word(s) == word);
        }
        let tell = |p: Progress<'_>| {
            context.progress(p.done, p.total, Unit::Items, &format!("{}: {}", p.recipe, p.line));
        };
        let mut refused = None;
        for (tried, source) in sources.iter().enumerate() {
            let got =
                programs::fetch(arch, version, source, &self.project.cache, &tell, context.cancel.flag());
            match got {
                Ok(programs) => return Ok(programs),
                // Release files that cannot be reached have a second way; everything else is an answer.
                Err(error @ ProgramsError::Load { .. }) if tried + 1 < sources.len() => {
                    context
                        .note(format!("release files cannot be reached ({error}); building from Go modules"));
                    refused = Some(error);
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        Err(failure(arch, version, refused))
    }

    /// The programs as they lie in the cache, and the images made of them.
    pub(super) fn program_files(&self, arch: Arch, context: &Context<'_>) -> Result<ProgramFiles, Failure> {
        let version = self.cluster.spec.kubernetes.version.to_string();
        let before = self.lock().programs.get(&arch).cloned();
        let programs = self.programs(arch, &version, before.as_deref(), context)?;
        let images = programs::images(arch, &programs)
            .map_err(|e| Failure::user(format!("cannot make the container images for {arch}")).source(e))?;
        let named = if self.is_k3s() { self.k3s_images(arch)? } else { Vec::new() };
        Ok(ProgramFiles { arch, programs, images, named })
    }
}

fn source_word(source: &Source) -> &'static str {
    match source {
        Source::Modules => "modules",
        Source::Release => "release",
        Source::Directory(_) => "directory",
    }
}

fn failure(arch: Arch, version: &str, error: Option<ProgramsError>) -> Failure {
    let what = format!("cannot get Kubernetes {version} for {arch}");
    let Some(error) = error else { return Failure::user(what) };
    let hint = error.hint();
    let class = if matches!(error, ProgramsError::Cancelled) { Class::Interrupted } else { Class::User };
    Failure { class, hint: hint.map(str::to_string), ..Failure::user(what).source(error) }
}

/// The program with kubectl in it, for this computer's own processor; `None` when the cache has none.
pub fn kubectl(project: &Project, lock: &Lock, arch: Arch) -> Option<PathBuf> {
    let programs = lock.programs.get(&arch)?;
    if let Some(release) = programs.iter().find(|p| p.name == "k3s") {
        return Some(k3s::kubectl_path(&project.cache, &release.sha256)).filter(|path| path.is_file());
    }
    let program = programs.iter().find(|p| p.name == "kube" || p.name == "kubectl")?;
    let path = project.cache.join("programs").join(&program.key).join(&program.name);
    path.is_file().then_some(path)
}

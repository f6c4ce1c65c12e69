//! Building a recipe with the Go tool.

use super::recipe::Recipe;
use super::store::Made;
use super::{ProgramsError, Progress};
use bramble_api::names::Arch;
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The compiler, to the patch: programs are to be the same bytes on every computer. A Go tool from 1.21 on fetches it
/// by itself through the module proxy when it is another. Part of every content key.
pub(super) const TOOLCHAIN: &str = "go1.26.8";
const FLAGS: &str = "-mod=readonly -buildvcs=false";
/// How often a running build is asked whether it is done or shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long the Go tool may take to stop its compilers and remove its work.
const STOP: Duration = Duration::from_secs(5);
/// Lines of output that an error shows.
const TAIL: usize = 12;

/// What the result of a build depends on, as one number. Needs no Go tool: what is built lies under it.
pub(super) fn key(recipe: &Recipe, arch: Arch) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for text in ["bramble programs 1", TOOLCHAIN, arch.debian(), FLAGS, recipe.tags, &recipe.linker_flags()] {
        add(text);
    }
    for (name, text) in recipe.files {
        add(name);
        add(text);
    }
    for (package, built) in recipe.packages {
        add(package);
        add(built.name);
    }
    hex::encode(hash.finalize())
}

/// The Go tool of this computer, as [`TOOLCHAIN`].
pub(super) struct Go(());

impl Go {
    /// Finds it, in the version that is built with.
    pub(super) fn find() -> Result<Self, ProgramsError> {
        let output = Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", TOOLCHAIN).output();
        let output = match output {
            Err(source) if source.kind() == ErrorKind::NotFound => return Err(ProgramsError::NoGo),
            Err(source) => return Err(ProgramsError::RunGo { source }),
            Ok(output) => output,
        };
        let found = String::from_utf8_lossy(&output.stdout).trim().to_string();
        if found == TOOLCHAIN { Ok(Go(())) } else { Err(ProgramsError::OldGo { found }) }
    }

    /// Builds every program of a recipe into `out`.
    pub(super) fn build(
        &self,
        recipe: &Recipe,
        arch: Arch,
        cache: &Path,
        out: &Path,
        progress: &dyn Fn(Progress<'_>),
        cancel: &AtomicBool,
    ) -> Result<Made, ProgramsError> {
        let module = tempfile::tempdir()
            .map_err(|source| ProgramsError::Store { path: std::env::temp_dir(), source })?;
        for (name, text) in recipe.files {
            let path = module.path().join(name);
            fs::write(&path, text).map_err(|source| ProgramsError::Store { path, source })?;
        }
        let run = Run { recipe, arch, cache, module: module.path(), cancel };
        // How much there is to compile; packages that are in the compiler's cache are never named, so this is a bound.
        let mut total = 0;
        let mut list = run.command(&["list", "-deps", "-tags", recipe.tags]);
        list.args(recipe.packages.iter().map(|(package, _)| *package)).stdout(Stdio::piped());
        run.wait(list, &mut |line| match line {
            Line::Out => total += 1,
            Line::Err(text) => progress(Progress { recipe: recipe.name, done: 0, total: 0, line: text }),
        })?;
        let mut done = 0;
        for (package, built) in recipe.packages {
            let target = out.join(built.name);
            let mut build = run.command(&["build", "-v", "-trimpath", "-tags", recipe.tags]);
            build
                .arg("-ldflags")
                .arg(recipe.linker_flags())
                .arg("-o")
                .arg(&target)
                .arg(package)
                .stdout(Stdio::null());
            run.wait(build, &mut |line| {
                if let Line::Err(text) = line {
                    // Everything else that it says has a blank in it.
                    done += u64::from(!text.contains(' '));
                    progress(Progress { recipe: recipe.name, done: done.min(total), total, line: text });
                }
            })?;
        }
        progress(Progress { recipe: recipe.name, done: total, total, line: "linked" });
        Ok(recipe
            .packages
            .iter()
            .map(|(_, built)| (built.name.to_string(), built.version.to_string()))
            .collect())
    }
}

enum Line<'a> {
    Out,
    Err(&'a str),
}

struct Run<'a> {
    recipe: &'a Recipe,
    arch: Arch,
    cache: &'a Path,
    module: &'a Path,
    cancel: &'a AtomicBool,
}

impl Run<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("go");
        command
            .args(args)
            .current_dir(self.module)
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .env("GOARCH", self.arch.debian())
            // The oldest processors of each kind: a Pi 3 and any PC.
            .env("GOAMD64", "v1")
            .env("GOARM64", "v8.0")
            .env("GOFLAGS", FLAGS)
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", TOOLCHAIN)
            .env("GOCACHE", self.cache.join("go-build"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that its compilers can be stopped with it.
            .process_group(0);
        command
    }

    /// Runs a command to its end, hands its lines on, and stops it when asked to.
    fn wait(&self, mut command: Command, each: &mut dyn FnMut(Line<'_>)) -> Result<(), ProgramsError> {
        let mut child = command.spawn().map_err(|source| ProgramsError::RunGo { source })?;
        let (send, receive) = mpsc::channel();
        let mut readers = Vec::new();
        let streams: [(bool, Option<Box<dyn Read + Send>>); 2] = [
            (true, child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>)),
            (false, child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>)),
        ];
        for (is_error, stream) in streams {
            let (Some(stream), send) = (stream, send.clone()) else { continue };
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if send.send((is_error, line)).is_err() {
                        return;
                    }
                }
            }));
        }
        drop(send);
        let mut tail = VecDeque::new();
        loop {
            if self.cancel.load(Ordering::SeqCst) {
                stop(&mut child);
                return Err(ProgramsError::Cancelled);
            }
            match receive.recv_timeout(LOOK) {
                Ok((false, _)) => each(Line::Out),
                Ok((true, line)) => {
                    each(Line::Err(&line));
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait().map_err(|source| ProgramsError::RunGo { source })?;
        if status.success() {
            return Ok(());
        }
        let output = tail.into_iter().collect::<Vec<_>>().join("\n");
        Err(ProgramsError::Build { recipe: self.recipe.name, arch: self.arch, output })
    }
}

/// Ends a child with all that it started. Interrupted, the Go tool removes its work; killed, it cannot.
fn stop(child: &mut Child) {
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    // A group that is gone already is what we want.
    let _ = kill_process_group(group, Signal::INT);
    let begin = Instant::now();
    while begin.elapsed() < STOP {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(LOOK);
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::recipe::RECIPES;

    #[test]
    fn a_key_is_another_for_another_processor_or_recipe() {
        let of = |recipe: usize, arch| key(&RECIPES[recipe], arch);
        assert_eq!(of(0, Arch::Amd64), of(0, Arch::Amd64));
        assert_ne!(of(0, Arch::Amd64), of(0, Arch::Arm64));
        assert_ne!(of(0, Arch::Amd64), of(1, Arch::Amd64));
    }

    /// Builds the smallest recipe (standard library only) for real.
    #[test]
    fn the_probe_is_built_twice_alike_and_a_cancelled_build_stops() -> Result<(), Box<dyn std::error::Error>>
    {
        let recipe = RECIPES.iter().find(|r| r.name == "probe").ok_or("no probe")?;
        let (go, dir) = (Go::find()?, tempfile::tempdir()?);
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(std::path::PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")))
            .ok_or("no cache directory")?
            .join("bramble");
        let mut digests = Vec::new();
        for name in ["a", "b"] {
            let out = dir.path().join(name);
            fs::create_dir(&out)?;
            let quiet = AtomicBool::new(false);
            go.build(recipe, Arch::Amd64, &cache, &out, &|_| {}, &quiet)?;
            digests.push(crate::programs::store::digest(&out.join("probe"))?);
        }
        assert_eq!(digests[0], digests[1]);
        let stopped = go.build(recipe, Arch::Amd64, &cache, dir.path(), &|_| {}, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(ProgramsError::Cancelled)));
        Ok(())
    }
}

//! Fills the cache of programs and lists it: `programs CACHE amd64|arm64 [modules|release|DIRECTORY]`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers")]

use bramble_kube::programs::{Source, fetch};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (cache, arch, source) = match args.as_slice() {
        [cache, arch] => (cache, arch, Source::Modules),
        [cache, arch, source] => (
            cache,
            arch,
            match source.as_str() {
                "modules" => Source::Modules,
                "release" => Source::Release,
                directory => Source::Directory(directory.into()),
            },
        ),
        _ => return Err("usage: programs CACHE amd64|arm64 [modules|release|DIRECTORY]".into()),
    };
    let tell =
        |p: bramble_kube::programs::Progress<'_>| eprintln!("{} {}/{} {}", p.recipe, p.done, p.total, p.line);
    let programs =
        fetch(arch.parse()?, "v1.36.3", &source, Path::new(cache), &tell, &AtomicBool::new(false))?;
    for program in programs {
        println!("{} {} {} {}", program.sha256, program.name, program.version, program.path.display());
    }
    Ok(())
}

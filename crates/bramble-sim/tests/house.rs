//! Stories of a house with golden output, and a slice of the campaign of random houses.
//!
//! `BRAMBLE_BLESS=1 cargo test -p bramble-sim --test house` writes the output of today's stories as the golden one: read
//! the difference before it is committed.

use bramble_sim::house::random::{Campaign, run};
use bramble_sim::house::script::play;
use std::path::PathBuf;

#[test]
fn stories_are_told_as_before() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the directory of the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    scripts.sort();
    let bless = std::env::var_os("BRAMBLE_BLESS").is_some();
    let mut wrong = Vec::new();
    for script in &scripts {
        let text = std::fs::read_to_string(script).expect("a script");
        let golden = script.with_extension("out");
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match play(&text) {
            Err(why) => wrong.push(format!("{name}: {why}")),
            Ok(said) if bless => std::fs::write(&golden, said).expect("the golden output"),
            Ok(said) => {
                let before = std::fs::read_to_string(&golden).unwrap_or_default();
                if let Some(at) = first_difference(&before, &said) {
                    wrong.push(format!("{name}: {at}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(scripts.len() >= 30, "{} stories", scripts.len());
}

fn first_difference(before: &str, now: &str) -> Option<String> {
    if before == now {
        return None;
    }
    let pairs = before.lines().zip(now.lines()).enumerate();
    let line = pairs.clone().find(|(_, (a, b))| a != b);
    Some(match line {
        Some((at, (a, b))) => format!("line {}:\n  was {a}\n  is  {b}", at + 1),
        None => format!("{} lines, now {}", before.lines().count(), now.lines().count()),
    })
}

/// A slice that takes some seconds; `bramble-sim site-plan` runs the campaign.
#[test]
fn what_was_done_is_what_was_shown() {
    let found = run(&Campaign { seed: 1, sites: 400, killed: 12 }, |_| ());
    assert!(found.failures.is_empty(), "{:#?}", found.failures);
    assert!(found.shown > 400 && found.stopped > 5 && found.killed_runs > 50, "{found:?}");
}

//! `bramble-sim crash`: cuts lives of a machine until enough distinct states were tried.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers, not for users")]

use bramble_sim::crash::{self, Plan};
use bramble_sim::machine::Mistake;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: bramble-sim crash [--states N] [--seed N] [--subsets N] [--mistakes]";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan { seed: 1, states: 1_000_000, subsets: 200, lived: 97, mistake: None };
    let mut mistakes = false;
    if arguments.next().as_deref() != Some("crash") {
        return usage();
    }
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        match argument.as_str() {
            "--mistakes" => mistakes = true,
            "--states" | "--seed" | "--subsets" => {
                let Some(value) = number() else { return usage() };
                match argument.as_str() {
                    "--states" => plan.states = value,
                    "--seed" => plan.seed = value,
                    _ => plan.subsets = u32::try_from(value).unwrap_or(u32::MAX),
                }
            }
            _ => return usage(),
        }
    }
    if mistakes {
        return caught(&plan);
    }
    let begun = Instant::now();
    let report = crash::run(&plan, |report| {
        eprintln!(
            "{:6.1} s  {} lives, {} distinct states, {} failures",
            begun.elapsed().as_secs_f64(),
            report.lives,
            report.distinct,
            report.failures
        );
    });
    println!("seed               {}", plan.seed);
    println!("lives cut          {}", report.lives);
    println!("states tried       {}", report.tried);
    println!("distinct states    {}", report.distinct);
    println!("  switch as left   {}", report.unspoilt);
    println!("by way of a rescue {}", report.rescued);
    println!("whole at 2nd start {} (a flush did nothing)", report.second_start);
    println!("lived to the end   {}", report.lived);
    println!("two faults at once {} (a dead kernel on trial, and its switch spoilt)", report.two_faults);
    println!("starts until told  at most {}", report.told_max);
    println!("failures           {}", report.failures);
    println!("seconds            {:.1}", begun.elapsed().as_secs_f64());
    report.shown.iter().for_each(|line| println!("FAIL {line}"));
    if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each deliberate mistake, and whether it is found.
fn caught(plan: &Plan) -> ExitCode {
    let mut missed = 0;
    for mistake in Mistake::ALL {
        let plan = Plan { mistake: Some(mistake), states: plan.states.min(20_000), lived: 7, ..*plan };
        let report = crash::run(&plan, |_| ());
        let first = report.shown.first().map_or("NOT CAUGHT", String::as_str);
        missed += u32::from(report.failures == 0);
        println!("{mistake:?}: {} failures in {} states; {first}", report.failures, report.distinct);
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    // EX_USAGE of sysexits.h.
    ExitCode::from(64)
}

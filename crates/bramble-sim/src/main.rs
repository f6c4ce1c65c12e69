//! `bramble-sim crash`: cuts lives of a machine until enough distinct states were tried.
//! `bramble-sim site-plan`: plans for random houses, runs the plans, and kills them.
//! `bramble-sim plan-speed`: milliseconds of each plan of a site of so many machines.
//! `bramble-sim story FILE`: tells a script of a house.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers, not for users")]

use bramble_sim::crash::{self, Plan};
use bramble_sim::house::random::{self, Campaign};
use bramble_sim::house::script;
use bramble_sim::machine::Mistake;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: bramble-sim crash [--states N] [--seed N] [--subsets N] [--mistakes]
       bramble-sim site-plan [--sites N] [--seed N] [--killed N]
       bramble-sim plan-speed [--machines N] [--runs N]
       bramble-sim story FILE";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match std::env::args().nth(1).as_deref() {
        Some("site-plan") => return site_plan(arguments.skip(1)),
        Some("plan-speed") => return plan_speed(arguments.skip(1)),
        Some("story") => return story(std::env::args().nth(2)),
        _ => {}
    }
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

/// Random houses: planned, run, killed.
fn site_plan(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut campaign = Campaign { seed: 1, sites: 10_000, killed: 200 };
    while let Some(argument) = arguments.next() {
        let Some(value) = arguments.next().and_then(|text| text.parse::<u64>().ok()) else { return usage() };
        match argument.as_str() {
            "--sites" => campaign.sites = value,
            "--seed" => campaign.seed = value,
            "--killed" => campaign.killed = value,
            _ => return usage(),
        }
    }
    let begun = Instant::now();
    let found = random::run(&campaign, |found| {
        let (seconds, failures) = (begun.elapsed().as_secs_f64(), found.failures.len());
        eprintln!("{seconds:6.1} s  {} sites, {} steps, {failures} failures", found.sites, found.done);
    });
    println!("seed               {}", campaign.seed);
    println!("sites              {}", found.sites);
    println!("  with a fault     {}", found.faulty);
    println!("steps shown        {}", found.shown);
    println!("steps done         {}", found.done);
    println!("runs that stopped  {}", found.stopped);
    println!("differences held   {}", found.held);
    println!("plans killed       {}", found.killed_plans);
    println!("runs killed        {} (before each move of each)", found.killed_runs);
    for (act, count) in &found.acts {
        println!("  act    {act:20} {count}");
    }
    for (reason, count) in &found.reasons {
        println!("  reason {reason:20} {count}");
    }
    println!("failures           {}", found.failures.len());
    println!("seconds            {:.1}", begun.elapsed().as_secs_f64());
    found.failures.iter().for_each(|line| println!("FAIL {line}"));
    if found.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line a plan: an upgrade of the system on every machine.
fn plan_speed(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (mut machines, mut runs) = (1000, 9);
    while let Some(argument) = arguments.next() {
        let Some(value) = arguments.next().and_then(|text| text.parse::<u64>().ok()) else { return usage() };
        match argument.as_str() {
            "--machines" => machines = value,
            "--runs" => runs = value,
            _ => return usage(),
        }
    }
    let mut house = random::many(machines);
    let seen = house.look();
    let asked = house.asked.clone();
    for _ in 0..runs {
        let begun = Instant::now();
        let sources = bramble_plan::Sources::default();
        let (plan, _) = bramble_plan::site::plan(&house.wanted, &sources, &seen, house.time(), &asked, 1);
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        if plan.steps.len() as u64 != machines {
            eprintln!("{} steps for {machines} machines", plan.steps.len());
            return ExitCode::FAILURE;
        }
        println!("{took:.3}");
    }
    ExitCode::SUCCESS
}

/// One script, told.
fn story(file: Option<String>) -> ExitCode {
    let Some(file) = file else { return usage() };
    let told = std::fs::read_to_string(&file).map_err(|e| format!("cannot read {file}: {e}"));
    match told.and_then(|text| script::play(&text)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    // EX_USAGE of sysexits.h.
    ExitCode::from(64)
}

//! Draws the stream of events: bars on a terminal, lines without one, JSON lines for programs.

use crate::harmless;
use bramble_api::event::{Event, Outcome, TransferPhase, Unit};
use bramble_api::plan::StepId;
use bramble_api::stage::Stage;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How events are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bars that move; needs a terminal.
    Bars,
    /// One line for each thing that happens.
    Lines,
    /// One JSON object a line, on standard output.
    Json,
}

impl Mode {
    /// Bars where standard error is a terminal, lines elsewhere.
    pub fn detect() -> Mode {
        if std::io::stderr().is_terminal() { Mode::Bars } else { Mode::Lines }
    }
}

/// Without a terminal a long step still says every so often that it lives.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Draws events.
pub struct Progress {
    mode: Mode,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<StepId, ProgressBar>,
    machines: BTreeMap<String, (ProgressBar, Option<Stage>)>,
    said: Option<Instant>,
}

impl Progress {
    /// Draws in this mode.
    pub fn new(mode: Mode) -> Progress {
        let target =
            if mode == Mode::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { mode, bars: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// Draws one event.
    pub fn event(&self, event: &Event) {
        if self.mode == Mode::Json {
            if let Ok(line) = serde_json::to_string(event) {
                println!("{line}");
            }
            return;
        }
        let Ok(mut state) = self.state.lock() else { return };
        match event {
            Event::PlanStarted { .. } => {}
            Event::StepStarted { step, .. } | Event::ActStarted { step, .. } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.set_style(spinner());
                bar.set_prefix(step.to_string());
                if self.mode == Mode::Bars {
                    bar.enable_steady_tick(Duration::from_millis(120));
                }
                state.said = Some(Instant::now());
                state.steps.insert(step.clone(), bar);
            }
            Event::Progress { step, done, total, unit, detail } => {
                let detail = harmless(detail);
                if let Some(bar) = state.steps.get(step) {
                    if *total > 0 {
                        bar.set_length(*total);
                        bar.set_position(*done);
                        bar.set_style(match unit {
                            Unit::Bytes => bytes(),
                            Unit::Items => items(),
                        });
                    }
                    bar.set_message(detail.clone());
                }
                if self.mode == Mode::Lines && state.said.is_none_or(|at| at.elapsed() > LINE_INTERVAL) {
                    state.said = Some(Instant::now());
                    let amount = match (unit, total) {
                        (_, 0) => String::new(),
                        (Unit::Bytes, _) => format!("{} of {} MB ", done / 1_000_000, total / 1_000_000),
                        (Unit::Items, _) => format!("{done} of {total} "),
                    };
                    eprintln!("   {step}: {amount}{detail}");
                }
            }
            Event::Transfer { step, phase, done, total, bytes_per_second, seconds_left } => {
                let what = match phase {
                    TransferPhase::Discard => "discarding",
                    TransferPhase::Write => "writing",
                    TransferPhase::Verify => "reading back",
                };
                if let Some(bar) = state.steps.get(step) {
                    bar.set_length(*total);
                    bar.set_position(*done);
                    bar.set_style(bytes());
                    bar.set_message(what);
                }
                let ended = done == total && *phase != TransferPhase::Discard;
                if self.mode == Mode::Lines
                    && (ended || state.said.is_none_or(|at| at.elapsed() > LINE_INTERVAL))
                {
                    state.said = Some(Instant::now());
                    let speed = *bytes_per_second as f64 / 1e6;
                    let (done, total) = (done / 1_000_000, total / 1_000_000);
                    eprintln!(
                        "   {step}: {what}, {done} of {total} MB, {speed:.1} MB/s, {seconds_left} s left"
                    );
                }
            }
            Event::Note { step, text } => self.line(&format!("   {step}: {}", harmless(text))),
            Event::Warning { step, text } => self.line(&format!(" ! {step}: {}", harmless(text))),
            Event::MachineStage { node, stage, uptime, text } => {
                let bar = self.machine(&mut state, node, Some(*stage));
                bar.set_message(format!("{} {}", stage.name(), harmless(text)));
                if self.mode == Mode::Lines || *stage == Stage::Failed {
                    self.line(&format!("   {node}: {uptime:7.1} s  {:<11} {}", stage.name(), harmless(text)));
                }
            }
            Event::MachineConsole { node, line } => {
                let bar = self.machine(&mut state, node, None);
                let stage = state.machines.get(node).and_then(|m| m.1).map_or("powered on", Stage::name);
                bar.set_message(format!("{stage}  {}", harmless(line)));
            }
            Event::StepFinished { step, outcome, millis } => {
                if let Some(bar) = state.steps.remove(step) {
                    bar.finish_and_clear();
                }
                let seconds = *millis as f64 / 1000.0;
                match outcome {
                    Outcome::Done => self.line(&format!(" ✓ {step}  {seconds:.1} s")),
                    Outcome::Unchanged => self.line(&format!(" = {step}  unchanged")),
                }
            }
            Event::StepFailed { step, .. } => {
                if let Some(bar) = state.steps.remove(step) {
                    bar.finish_and_clear();
                }
                self.line(&format!(" ✗ {step}"));
            }
            Event::Waiting { subject, on } => {
                self.line(&format!(" … {}: waiting for {}", harmless(subject), harmless(on)));
            }
            Event::PlanFinished { .. } => {
                for (_, (bar, _)) in std::mem::take(&mut state.machines) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn machine(&self, state: &mut State, node: &str, stage: Option<Stage>) -> ProgressBar {
        let entry = state.machines.entry(node.to_string()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.set_style(spinner());
            bar.set_prefix(node.to_string());
            if self.mode == Mode::Bars {
                bar.enable_steady_tick(Duration::from_millis(500));
            }
            (bar, None)
        });
        if stage.is_some() && entry.1 != stage {
            entry.1 = stage;
            entry.0.reset_elapsed();
        }
        entry.0.clone()
    }

    fn line(&self, text: &str) {
        match self.mode {
            Mode::Bars => {
                let _ = self.bars.println(text);
            }
            _ => eprintln!("{text}"),
        }
    }
}

// The templates are constants that a test renders; a bad one falls back to the library's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn spinner() -> ProgressStyle {
    style("{spinner} {prefix:<24} {elapsed:>4} {wide_msg}")
}

fn bytes() -> ProgressStyle {
    style("{spinner} {prefix:<24} {bar:20} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}")
}

fn items() -> ProgressStyle {
    style("{spinner} {prefix:<24} {bar:20} {pos}/{len} {wide_msg}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [
            "{spinner} {prefix:<24} {elapsed:>4} {wide_msg}",
            "{spinner} {prefix:<24} {bar:20} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}",
            "{spinner} {prefix:<24} {bar:20} {pos}/{len} {wide_msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}

//! `bramble node`: asks machines by their own API, which works with no Kubernetes.

use crate::cli::{Node as Args, NodeAct as Act, Output};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use crate::way::{Way, why};
use bramble_console::{Exit, Table};
use bramble_effects::Failure;
use bramble_rpc::node::power_request::Act as Power;
use bramble_rpc::node::{HoldRequest, LogsRequest, PowerRequest, StatusReply, StatusRequest, UpdateRequest};
use bramble_rpc::{Credentials, connect};
use bramble_spec::{Distribution, EffectiveNode};
use std::time::Duration;

/// A machine that is asked how it is answers in so long, or it is not well.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks.
pub(crate) fn run(args: Args, settings: &Settings) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    if site.cluster.spec.kubernetes.distribution == Distribution::Talos {
        return Err(Failure::user("machines of Talos have another API")
            .hint("`bramble talosconfig` writes the way to it, for talosctl")
            .into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::user("cannot open sockets").source(e))?;
    let way = Way::find(settings, &site, args.lab)?;
    runtime.block_on(act(args.act, &site, &way))
}

async fn act(act: Act, site: &Site, way: &Way) -> Result<Exit, Problem> {
    match act {
        Act::Status { nodes, output } => status(site, way, &nodes, output).await,
        Act::Logs { node, unit, lines, follow } => {
            let mut client = way.to(site, &node).await?;
            let request = LogsRequest { unit: unit.unwrap_or_default(), lines, follow };
            let mut lines = client.logs(request).await.map_err(|e| refused(&node, e))?.into_inner();
            while let Some(piece) = lines.message().await.map_err(|e| refused(&node, e))? {
                bramble_console::data(&String::from_utf8_lossy(&piece.text));
            }
            Ok(Exit::Done)
        }
        Act::Update { node } => {
            let reply = way.to(site, &node).await?.update(UpdateRequest {}).await;
            let doing = reply.map_err(|e| refused(&node, e))?.into_inner().doing;
            bramble_console::say(&format!("{node} looks for a release now; before, it was at: {doing}"));
            Ok(Exit::Done)
        }
        Act::Hold { node, hours, end } => {
            let until = if end { 0 } else { super::now().saturating_add(hours.saturating_mul(3600)) };
            let reply = way.to(site, &node).await?.hold(HoldRequest { until }).await;
            reply.map_err(|e| refused(&node, e))?;
            bramble_console::say(&match end {
                true => format!("{node} is held no longer"),
                false => format!("{node} restarts into no other release for {hours} hours"),
            });
            Ok(Exit::Done)
        }
        Act::Restart { node } => power(site, way, &node, Power::Restart, "restarts").await,
        Act::Off { node } => power(site, way, &node, Power::Off, "switches off").await,
    }
}

async fn power(site: &Site, way: &Way, node: &str, act: Power, said: &str) -> Result<Exit, Problem> {
    let reply = way.to(site, node).await?.power(PowerRequest { act: act.into() }).await;
    reply.map_err(|e| refused(node, e))?;
    bramble_console::say(&format!("{node} {said}"));
    Ok(Exit::Done)
}

fn refused(node: &str, status: tonic::Status) -> Failure {
    Failure::user(format!("{node} refuses: {}", status.message()))
}

/// One machine's answer, or why there is none.
type Answer = (EffectiveNode, Result<StatusReply, String>);

async fn status(site: &Site, way: &Way, names: &[String], output: Output) -> Result<Exit, Problem> {
    for name in names {
        site.known(name)?;
    }
    // Side by side: machines that are off cost one wait, not one each.
    let mut asked = Vec::new();
    for node in site.cluster.effective_nodes() {
        if !names.is_empty() && !names.contains(&node.name) {
            continue;
        }
        let (name, credentials) = (node.name.clone(), way.credentials.clone());
        let place = way.place(&node).map_err(why);
        asked.push((node, tokio::spawn(async move { ask(&name, place?, &credentials).await })));
    }
    let mut answers: Vec<Answer> = Vec::new();
    for (node, answer) in asked {
        answers.push((node, answer.await.unwrap_or_else(|e| Err(e.to_string()))));
    }
    let silent = answers.iter().any(|(_, answer)| answer.is_err());
    match output {
        Output::Text => bramble_console::data(&table(&answers)),
        Output::Json => bramble_console::json(&answers.iter().map(json).collect::<Vec<_>>()),
        Output::Name => {
            for (node, _) in answers.iter().filter(|(_, answer)| answer.is_ok()) {
                bramble_console::data(&format!("{}\n", node.name));
            }
        }
    }
    Ok(if silent { Exit::Retry } else { Exit::Done })
}

/// One machine's status.
async fn ask(name: &str, place: String, credentials: &Credentials) -> Result<StatusReply, String> {
    let asked = async {
        let mut client = connect(name, &place, credentials).await.map_err(|e| e.to_string())?;
        let reply = client.status(StatusRequest {}).await;
        Ok(reply.map_err(|e| e.message().to_string())?.into_inner())
    };
    let answer = tokio::time::timeout(ANSWER, asked).await;
    answer.unwrap_or_else(|_| Err(format!("no answer in {} s", ANSWER.as_secs())))
}

fn table(answers: &[Answer]) -> String {
    let mut table = Table::new(&["node", "state", "release", "up", "updates"]);
    for (node, answer) in answers {
        table.row(&match answer {
            Ok(reply) => [
                node.name.clone(),
                if reply.waiting.is_empty() { reply.stage.clone() } else { reply.waiting.clone() },
                format!("{} in {}", reply.release, reply.slot),
                age(reply.uptime),
                if reply.fault.is_empty() {
                    reply.doing.clone()
                } else {
                    format!("{} ({})", reply.doing, reply.fault)
                },
            ],
            Err(why) => [node.name.clone(), why.clone(), String::new(), String::new(), String::new()],
        });
    }
    let mut text = table.to_string();
    for (node, reply) in answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().ok()?))) {
        for warning in &reply.warnings {
            text.push_str(&format!("{}: {warning}\n", node.name));
        }
    }
    text
}

/// A time as short as a person says it.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn json((node, answer): &Answer) -> serde_json::Value {
    match answer {
        Err(why) => serde_json::json!({ "name": node.name, "silent": why }),
        Ok(reply) => serde_json::json!({
            "name": reply.name,
            "incarnation": reply.incarnation,
            "card": reply.card,
            "generation": reply.generation,
            "release": reply.release,
            "slot": reply.slot,
            "kernel": reply.kernel,
            "stage": reply.stage,
            "waiting": reply.waiting,
            "warnings": reply.warnings,
            "doing": reply.doing,
            "fault": reply.fault,
            "flashBytes": reply.flash_bytes,
            "holdUntil": reply.hold_until,
            "bootId": reply.boot_id,
            "uptime": reply.uptime,
            "clock": reply.clock,
        }),
    }
}

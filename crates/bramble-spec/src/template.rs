//! The file that `bramble init` writes.

use crate::edit::{NewNode, block_item, quote};
use crate::scalar::{Name, Timezone, Version};
use crate::types::{Datastore, Distribution};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What `bramble init` has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// Name of the cluster.
    pub name: Name,
    /// Who puts Kubernetes together.
    pub distribution: Distribution,
    /// Release to run.
    pub version: Version,
    /// Where the API keeps its state.
    pub datastore: Datastore,
    /// The range that all machines live in.
    pub subnet: Ipv4Net,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time zone.
    pub timezone: Timezone,
    /// Lines of `authorized_keys`; no sshd when empty.
    pub authorized_keys: Vec<String>,
    /// Release of Talos, wanted by the distribution `talos` only.
    pub talos_version: Option<Version>,
    /// The machines.
    pub nodes: Vec<NewNode>,
}

/// The text of a first `bramble.yaml`, with comments. [`crate::parse`] accepts it when the values fit each other.
pub fn template(options: &InitOptions) -> String {
    let dns: Vec<String> = options.dns.iter().map(Ipv4Addr::to_string).collect();
    let mut text = String::new();
    let mut line = |content: &str| {
        text.push_str(content);
        text.push('\n');
    };
    line("# yaml-language-server: $schema=./bramble.schema.json");
    line("# One file is one cluster. `bramble check` reads it, `bramble plan` says what would be done.");
    line(
        "# Secrets never stand here: say `{ secret: name }` and put the value into bramble.secrets.sops.yaml.",
    );
    line("apiVersion: bramble.home.arpa/v1alpha1");
    line("kind: Cluster");
    line("metadata:");
    line(&format!("  name: {}", options.name));
    line("spec:");
    line("  kubernetes:");
    line(&format!("    distribution: {}            # upstream | k3s | talos", options.distribution));
    line(&format!(
        "    # renovate: datasource=github-releases depName={}",
        releases_of(options.distribution)
    ));
    line(&format!("    version: {}", options.version));
    line(&format!("    datastore: {}                 # sqlite: one control plane | etcd", options.datastore));
    line(
        "    cni: { kind: flannel, backend: host-gw }    # backend vxlan where machines are not on one segment",
    );
    line("    podSecurity: baseline             # privileged | baseline | restricted");
    line("    scheduleOnControlPlane: true      # false keeps ordinary pods off control planes");
    line("  network:");
    line(&format!("    subnet: {}", options.subnet));
    match options.gateway {
        Some(gateway) => line(&format!("    gateway: {gateway}")),
        None => line("    # gateway: the router's address; without it machines reach their own subnet only"),
    }
    line(&format!("    dns: [{}]", dns.join(", ")));
    line(&format!("    ntp: [{}]", options.gateway.map(|g| g.to_string()).unwrap_or_default()));
    line("    domain: home.arpa");
    line("    # These two cannot change once the cluster is founded.");
    line("    pods: 10.42.0.0/16");
    line("    services: 10.43.0.0/16");
    line("  os:");
    line("    release: trixie");
    line("    packages: []                      # Debian packages: [open-iscsi, nfs-common]");
    line(&format!("    timezone: {}", options.timezone));
    match options.authorized_keys.is_empty() {
        true => line(
            "    ssh: none                         # or: { authorizedKeys: [\"ssh-ed25519 AAAA... me\"] }",
        ),
        false => {
            line("    ssh:");
            line("      authorizedKeys:");
            for key in &options.authorized_keys {
                line(&format!("        - {}", quote(key)));
            }
        }
    }
    if let Some(version) = &options.talos_version {
        line("  talos:");
        line("    # renovate: datasource=github-releases depName=siderolabs/talos");
        line(&format!("    version: {version}"));
    }
    line("  # What all machines of a role share; a machine may say otherwise.");
    line("  # defaults:");
    line("  #   worker: { labels: { tier: shelf } }");
    match options.nodes.is_empty() {
        true => line("  nodes: []                           # `bramble add node` adds one"),
        false => line("  nodes:"),
    }
    for node in &options.nodes {
        for content in block_item(node, "    ", "- ") {
            line(&content);
        }
    }
    text
}

/// Where a version bot finds the distribution's releases.
fn releases_of(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::K3s => "k3s-io/k3s",
        Distribution::Upstream | Distribution::Talos => "kubernetes/kubernetes",
    }
}

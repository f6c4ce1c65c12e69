//! The way to the site's machines and to its Kubernetes.

use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use crate::{commands, hands};
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_rpc::node::node_client::NodeClient;
use bramble_rpc::{Credentials, PORT, connect};
use bramble_secrets::SecretText;
use bramble_spec::{EffectiveNode, Role};
use std::time::Duration;
use tonic::transport::Channel;

/// What is issued for one command; a stolen laptop's leftovers are worth nothing.
const LIFE: Duration = Duration::from_secs(3600);

/// How machines are reached: in the house at their addresses, in the lab through ports of this computer.
pub(crate) struct Way {
    lab: Option<bramble_lab::Lab>,
    /// What is shown to machines.
    pub(crate) credentials: Credentials,
}

impl Way {
    /// The way to the house's machines, or to the lab's.
    pub(crate) fn find(settings: &Settings, site: &Site, lab: bool) -> Result<Self, Problem> {
        let now = commands::now();
        let vault = match lab {
            true => Vault::of_lab(&commands::lab::directory(settings), now)?,
            false => Vault::open(&settings.project.secrets_file())?,
        };
        if !vault.has(&["authorities"]) {
            return Err(Failure::user("this cluster has no authorities yet")
                .hint("`bramble flash` makes them, or `bramble lab up` a lab's")
                .into());
        }
        let cluster = site.cluster.metadata.name.to_string();
        let own = vault.node_api(&cluster, "bramble", Vec::new(), now, LIFE)?;
        let credentials =
            Credentials { certificate: own.certificate, key: own.key, authorities: own.authorities };
        let lab = if lab { Some(commands::lab::open(settings)?) } else { None };
        Ok(Way { lab, credentials })
    }

    /// Where a machine's API is reached from this computer.
    pub(crate) fn place(&self, node: &EffectiveNode) -> Result<String, Problem> {
        Ok(match &self.lab {
            Some(lab) => format!("127.0.0.1:{}", commands::lab::forward(lab, &node.name, PORT)?),
            None => format!("{}:{PORT}", node.address),
        })
    }

    /// Connects to a machine.
    pub(crate) async fn to(&self, site: &Site, name: &str) -> Result<NodeClient<Channel>, Problem> {
        site.known(name)?;
        let node = site.cluster.effective_nodes().into_iter().find(|node| node.name == name);
        let node = node.ok_or_else(|| Failure::bug(format!("{name} is not in the file")))?;
        let connected = connect(name, &self.place(&node)?, &self.credentials).await;
        Ok(connected.map_err(|e| {
            Failure::retry(format!("cannot ask {name}")).source(e).hint(match self.lab {
                Some(_) => "`bramble lab status` shows which machines are on",
                None => "is it on, and is this computer in its network?",
            })
        })?)
    }

    /// A kubeconfig of the administrator, good for an hour.
    pub(crate) fn kubeconfig(&self, settings: &Settings, site: &Site) -> Result<SecretText, Problem> {
        let endpoint =
            site.cluster.endpoint().ok_or_else(|| Failure::user("the file has no control plane"))?;
        match &self.lab {
            Some(lab) => {
                let nodes = site.cluster.effective_nodes();
                let server = nodes.iter().find(|n| n.role == Role::ControlPlane);
                let server = server.ok_or_else(|| Failure::user("the file has no control plane"))?;
                let port = commands::lab::forward(lab, &server.name, endpoint.port)?;
                hands::lab_kubeconfig(settings, site, &format!("https://127.0.0.1:{port}"), 1)
            }
            None => {
                let vault = Vault::open(&settings.project.secrets_file())?;
                let server = format!("https://{}:{}", endpoint.address, endpoint.port);
                Ok(vault.admin_kubeconfig(site.cluster.name(), &server, commands::now(), 1)?)
            }
        }
    }
}

/// A problem in a few words: a table's cell, or a fact's reason.
pub(crate) fn why(problem: Problem) -> String {
    match problem {
        Problem::Failure(failure) => failure.source.map_or(failure.what, |source| source.to_string()),
        Problem::File { name, .. } => format!("{name} has errors"),
    }
}

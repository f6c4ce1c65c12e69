//! The command line: words only. What they mean is in `settings.rs` and `commands/`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// One file in git becomes a home Kubernetes cluster that installs itself.
#[derive(Debug, Parser)]
#[command(name = "bramble", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub struct Global {
    /// The file that describes the cluster.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "bramble.yaml",
        env = "BRAMBLE_FILE"
    )]
    pub file: PathBuf,
    /// Where downloads and builds are kept; safe to delete.
    #[arg(long, global = true, value_name = "DIR", env = "BRAMBLE_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t = ColourChoice::Auto, value_name = "WHEN")]
    pub color: ColourChoice,
    /// How to show progress.
    #[arg(long, global = true, value_enum, default_value_t = ProgressChoice::Auto, value_name = "HOW")]
    pub progress: ProgressChoice,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// One line for each thing that happens.
    Plain,
    /// One JSON object a line, on standard output.
    Json,
}

/// In what form to show what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// Names only, one a line.
    Name,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a project: write bramble.yaml, .gitignore, .sops.yaml and the secrets file.
    Init(Init),
    /// Read the file and say everything that is wrong with it.
    Check,
    /// Add to the file.
    #[command(subcommand)]
    Add(Add),
    /// Choose package versions and allocate numbers; write bramble.lock.
    Lock(Lock),
    /// Download packages and get the Kubernetes programs.
    Fetch(Fetch),
    /// Show what would be done, and why; change nothing.
    Plan(Plan),
    /// Do what the plan of the site says, one machine at a time. Asks once.
    Apply(Apply),
    /// Show every machine: how it is, what is done to it, and what it waits for.
    Status(Status),
    /// Say everything about one machine: what waits for what, and what helps.
    Why(Why),
    /// Build the images.
    Build(Build),
    /// Build a release and put it, signed, where machines fetch it.
    Release(Release),
    /// Serve a directory of releases on the network, as any web server with Range does.
    Serve(Serve),
    /// The keys that sign releases.
    #[command(subcommand)]
    Key(Key),
    /// Write nodes onto cards, sticks or disks, and read them back.
    Flash(Flash),
    /// The site as virtual machines on this computer.
    #[command(subcommand)]
    Lab(Lab),
    /// Ask machines by their own API: how they are, logs, power, updates.
    Node(Node),
    /// Write a kubeconfig: for the lab's cluster, or for the file's own when it runs Talos.
    Kubeconfig(Kubeconfig),
    /// The site's network.
    #[command(subcommand)]
    Network(Network),
    /// The secrets file by hand.
    #[command(subcommand)]
    Secrets(Secrets),
    /// Show or write the machine configs of Talos nodes.
    Render(Render),
    /// Write a talosconfig, good for hours.
    Talosconfig(Talosconfig),
    /// Take over a cluster that talhelper described: write bramble.yaml from its talconfig.yaml.
    Import(Import),
    /// Leave: write plain files with which other tools go on.
    #[command(subcommand)]
    Eject(Eject),
    /// Say what this computer lacks, and the command that mends it.
    Doctor(Doctor),
    /// Print the JSON Schema of bramble.yaml.
    Schema,
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory; made if missing.
        #[arg(long, value_name = "DIR", default_value = "man")]
        out: PathBuf,
    },
    /// Print the command reference as Markdown.
    #[command(hide = true)]
    Reference,
    /// Be the lab's host process.
    #[command(hide = true)]
    LabHost {
        /// The lab's directory.
        directory: PathBuf,
    },
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Name of the cluster.
    #[arg(long)]
    pub name: Option<String>,
    /// The subnet of the site, such as 192.168.1.0/24.
    #[arg(long)]
    pub subnet: Option<String>,
    /// The router's address; the subnet's first when not given.
    #[arg(long)]
    pub gateway: Option<String>,
    /// Address of the first node; the subnet's eleventh when not given.
    #[arg(long)]
    pub address: Option<String>,
    /// Board of the first node: uefi-amd64, uefi-arm64, pi4, ...
    #[arg(long)]
    pub board: Option<String>,
    /// age recipients that may read the secrets file; a new identity is made when none is given and none is found.
    #[arg(long = "recipient", value_name = "AGE1...")]
    pub recipients: Vec<String>,
}

/// What can be added.
#[derive(Debug, Subcommand)]
pub enum Add {
    /// Add a node to the file; comments and order stay.
    Node {
        /// Its name.
        name: String,
        /// control-plane, worker or management.
        #[arg(long, default_value = "worker")]
        role: String,
        /// Its board.
        #[arg(long)]
        board: String,
        /// Its address.
        #[arg(long)]
        address: String,
        /// Its hardware address.
        #[arg(long)]
        mac: Option<String>,
    },
}

/// Arguments of `lock`.
#[derive(Debug, Args)]
pub struct Lock {
    /// Choose the newest packages though the lock fits.
    #[arg(long)]
    pub update: bool,
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Only for this architecture.
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Also copy the packages into this directory, for the day the archive has dropped them.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
pub struct Release {
    /// Only for this architecture.
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// A directory with earlier releases, published or built; more than one may be named. The output directory is always
    /// one of them.
    #[arg(long = "from", value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// Directory of static files to write, for a web server.
    #[arg(short, long, value_name = "DIR", default_value = "public")]
    pub out: PathBuf,
    /// Days after which a machine says that the source has gone stale, unless `release` ran again; 0: never.
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    pub valid: u64,
    /// From how many earlier releases machines get differences only.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    pub keep: usize,
    /// How hard to compress, 1 to 22.
    #[arg(long, value_name = "LEVEL", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The directory.
    #[arg(value_name = "DIR", default_value = "public")]
    pub directory: PathBuf,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// List the keys by which machines know a release.
    Show,
    /// Make a root key in a new file, which belongs on a medium in a drawer, and let the cluster know it.
    Root {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a new release key; the one before is believed until it is revoked.
    Rotate {
        /// The file of a root key.
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
    },
    /// Say that a release key of before is not to be believed any more.
    Revoke {
        /// The beginning of its name, as `show` prints it.
        key: String,
        /// The file of a root key.
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
    },
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The lab in place of the house.
    #[arg(long)]
    pub lab: bool,
    /// What `build` would do, or with `--lab` what `lab up` would.
    #[arg(long, conflicts_with_all = ["inventory", "allow", "now", "nodes", "out"])]
    pub build: bool,
    /// Plan from a file of facts, JSON, in place of looking.
    #[arg(long, value_name = "FILE", conflicts_with = "lab")]
    pub inventory: Option<PathBuf>,
    /// What is asked for beside the file.
    #[command(flatten)]
    pub asking: Asking,
    /// Write the plan into this file, for `apply`.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Exit with 2 when something would be done.
    #[arg(long)]
    pub exit_code: bool,
}

/// What is asked for beside the file.
#[derive(Debug, Args)]
pub struct Asking {
    /// Permit for one machine what is never done by itself (repeatable): wipe, remove, outage, without, evict, found;
    /// takeover=WHO.
    #[arg(long, value_name = "WHAT=NODE")]
    pub allow: Vec<String>,
    /// Do not wait for windows.
    #[arg(long)]
    pub now: bool,
    /// Only for this machine (repeatable).
    #[arg(long = "node", value_name = "NODE")]
    pub nodes: Vec<String>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// A plan that `plan --out` wrote: it, and nothing else, is done.
    #[arg(value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// The lab in place of the house.
    #[arg(long)]
    pub lab: bool,
    /// What is asked for beside the file.
    #[command(flatten)]
    pub asking: Asking,
    /// Do not ask. A machine of Talos in maintenance mode installs itself on the disk that the file names.
    #[arg(short, long)]
    pub yes: bool,
    /// Look, say what would be done and what is waited for, and change nothing.
    #[arg(long, help_heading = "Talos")]
    pub dry_run: bool,
    /// Look for machines in maintenance mode at every address of the subnet, not only at their own.
    #[arg(long, help_heading = "Talos")]
    pub find: bool,
    /// Let machines reboot whose new config takes effect in no other way.
    #[arg(long, help_heading = "Talos")]
    pub reboot: bool,
    /// Give up waiting after this many seconds; what is there stays, and the next run goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, help_heading = "Talos")]
    pub timeout: u64,
    /// Exit with 2 when something would be done.
    #[arg(long, requires = "dry_run", help_heading = "Talos")]
    pub exit_code: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The lab in place of the house.
    #[arg(long)]
    pub lab: bool,
    /// Look again and again, until Ctrl-C.
    #[arg(short, long)]
    pub watch: bool,
    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct Why {
    /// Which machine.
    pub node: String,
    /// The lab in place of the house.
    #[arg(long)]
    pub lab: bool,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Write a disk image, with its identity, for this node (repeatable). It holds secrets.
    #[arg(long = "node", value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Only for this architecture.
    #[arg(long, value_name = "ARCH", conflicts_with = "nodes")]
    pub arch: Option<String>,
    /// A directory with earlier releases: files keep the places that they have in the newest of them.
    #[arg(long = "from", value_name = "DIR")]
    pub from: Vec<PathBuf>,
}

/// Arguments of `flash`.
#[derive(Debug, Args)]
pub struct Flash {
    /// Which nodes; a node's disk as NODE=/dev/DISK, or as the last word when there is one node.
    #[arg(value_name = "NODE[=DEVICE]", required_unless_present = "list")]
    pub words: Vec<String>,
    /// Show the disks that are there, what identifies each, and why some are never written.
    #[arg(long)]
    pub list: bool,
    /// Confirm a disk without being asked: its serial, or what `--list` shows for it (repeatable).
    #[arg(long, value_name = "DISK")]
    pub confirm: Vec<String>,
    /// Confirm a disk that holds another system, that is large, or that is another node's (repeatable).
    #[arg(long, value_name = "DISK")]
    pub yes_erase: Vec<String>,
    /// Also built-in disks: NVMe, SATA, eMMC.
    #[arg(long)]
    pub allow_fixed: bool,
    /// Leave the data partition as it is; the node takes it over.
    #[arg(long)]
    pub keep_data: bool,
    /// Let this server's card found the cluster anew (k3s): only when nothing of the cluster is left.
    #[arg(long, conflicts_with = "keep_data")]
    pub found: bool,
    /// How long to wait for a disk that was pulled while it was written.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub patience: u64,
    /// In what form to list.
    #[arg(short, long, value_enum, default_value_t = Output::Text, requires = "list")]
    pub output: Output,
    /// Also loop devices and mapped ones: for rehearsals and tests.
    #[arg(long, hide = true)]
    pub allow_loop: bool,
}

/// What can be done with the lab.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Start the machines and wait until every node is Ready.
    Up {
        /// Only these machines.
        nodes: Vec<String>,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 1200, value_name = "SECONDS")]
        timeout: u64,
        /// Wait only until every machine has come to this stage of its boot, such as document or api.
        #[arg(long, value_name = "STAGE", default_value = "ready")]
        until: String,
        /// Emulate processors also where this computer could run them directly.
        #[arg(long, env = "BRAMBLE_LAB_EMULATE")]
        emulate: bool,
        /// Power the machines on and do not wait.
        #[arg(long, conflicts_with = "until")]
        no_wait: bool,
        /// Answer the machines' update source from this port of 127.0.0.1, where `bramble serve` listens.
        #[arg(long, value_name = "PORT")]
        updates: Option<u16>,
        /// What if: the hardware clocks start at this time (seconds since 1970; 0 is a machine without a battery).
        #[arg(long, value_name = "SECONDS", help_heading = "What if")]
        clock: Option<u64>,
        /// What if: no time server answers.
        #[arg(long, help_heading = "What if")]
        no_time: bool,
        /// What if: the router leases a machine this address instead of the stated one.
        #[arg(long = "lease", value_name = "NODE=ADDRESS", help_heading = "What if", value_parser = lease)]
        leases: Vec<(String, Ipv4Addr)>,
    },
    /// Write a machine's disk anew, as a card is flashed that was used before: a new incarnation, the newest release.
    Flash {
        /// Which machine; it must be off.
        node: String,
        /// Leave the data partition as it is; the machine takes it over.
        #[arg(long)]
        keep_data: bool,
        /// Let this server's card found the lab's cluster anew (k3s).
        #[arg(long, conflicts_with = "keep_data")]
        found: bool,
    },
    /// Publish the file's release for the lab's machines, signed with the lab's keys; `bramble serve` offers it to them.
    Release {
        /// Directory of static files to write; `.bramble/lab/public` when absent.
        #[arg(short, long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// How hard to compress, 1 to 22.
        #[arg(long, value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
        level: i32,
    },
    /// Stop the machines; their disks stay.
    Down {
        /// Remove the disks and the lab's identities too.
        #[arg(long)]
        destroy: bool,
    },
    /// Show the machines.
    Status {
        /// In what form.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Attach to a machine's console; Ctrl-] leaves it.
    Console {
        /// Which machine.
        node: String,
    },
    /// Open a shell on a machine, if the file allows ssh.
    Ssh {
        /// Which machine.
        node: String,
        /// A command to run instead of a shell.
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Print a machine's console log.
    Logs {
        /// Which machine.
        node: String,
        /// Go on as it grows.
        #[arg(long)]
        follow: bool,
    },
    /// Run kubectl against the lab's cluster.
    Kubectl {
        /// What kubectl is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// End a machine at once; what it had flushed to its disk stays.
    Kill {
        /// Which machine.
        node: String,
    },
    /// Cut a machine's power: a chosen part of what it had not flushed is lost.
    Cut {
        /// Which machine.
        node: String,
        /// Chooses what is lost; the same number loses the same writes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Wait for this marker on the console first.
        #[arg(long, value_name = "MARKER")]
        at: Option<String>,
        /// Then for so many more writes to the disk.
        #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "at")]
        after_writes: u32,
    },
}

fn lease(text: &str) -> Result<(String, Ipv4Addr), String> {
    let (node, address) = text.split_once('=').ok_or("expected NODE=ADDRESS")?;
    let address = address.parse().map_err(|e| format!("{address:?}: {e}"))?;
    Ok((node.to_string(), address))
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Say what is known of a board, and what to check on a real one.
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,
    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Output::Text, requires = "board")]
    pub output: Output,
}

/// What can be asked of the site's network.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// What the router is to reserve for each machine, and what this computer sees of it.
    Reservations {
        /// In what form.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// What can be done with the secrets file.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// List the names in it; with a name, show what is there.
    Show {
        /// Keys joined with dots, or the name of a `{ secret: name }`.
        name: Option<String>,
        /// Show everything in clear.
        #[arg(long, conflicts_with = "name")]
        values: bool,
        /// In what form.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Open it, or one value of it, in your editor; what is in clear lies in memory only.
    Edit {
        /// One value; a new name is a new secret.
        name: Option<String>,
    },
    /// Give a secret another random value; without a name, give the file another key.
    Rotate {
        /// Which secret.
        name: Option<String>,
        /// Take the value from standard input instead.
        #[arg(long, requires = "name")]
        stdin: bool,
    },
    /// Let one more age key open it.
    AddRecipient {
        /// Its public key.
        #[arg(value_name = "AGE1...", required_unless_present = "new")]
        recipient: Option<String>,
        /// Make a new key and print its private half once: a spare key for a drawer.
        #[arg(long, conflicts_with = "recipient")]
        new: bool,
    },
    /// Take a key away, and give the file another one of its own.
    RemoveRecipient {
        /// Its public key.
        #[arg(value_name = "AGE1...")]
        recipient: String,
    },
    /// Git's hook before a commit: refuse `*.sops.*` files that are not encrypted.
    Hook {
        /// Write it into this repository.
        #[arg(long)]
        install: bool,
    },
    /// The secrets bundle of a Talos cluster: what its machines are one cluster by.
    #[command(subcommand)]
    Talos(SecretsTalos),
}

/// Arguments of `node`.
#[derive(Debug, Args)]
pub struct Node {
    /// Ask the lab's machines, not the house's.
    #[arg(long, global = true)]
    pub lab: bool,
    /// What of them.
    #[command(subcommand)]
    pub act: NodeAct,
}

/// What is asked of machines.
#[derive(Debug, Subcommand)]
pub enum NodeAct {
    /// Show what machines run, and what they wait for. Exits with 75 when one does not answer.
    Status {
        /// Which; all when none is named.
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
        /// In what form.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Print a machine's journal.
    Logs {
        /// Which machine.
        node: String,
        /// Only of this systemd unit.
        #[arg(short, long)]
        unit: Option<String>,
        /// At most so many lines of what is there.
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
        /// Go on with what comes.
        #[arg(long)]
        follow: bool,
    },
    /// Look for a release now, and do not wait for the window.
    Update {
        /// Which machine.
        node: String,
    },
    /// Keep a machine from restarting into another release. Over by itself.
    Hold {
        /// Which machine.
        node: String,
        /// For so long.
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        hours: u64,
        /// End it now.
        #[arg(long, conflicts_with = "hours")]
        end: bool,
    },
    /// Restart a machine cleanly. Its pods are not moved first.
    Restart {
        /// Which machine.
        node: String,
    },
    /// Switch a machine off cleanly. Its pods are not moved first.
    Off {
        /// Which machine.
        node: String,
    },
}

/// Arguments of `kubeconfig`.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// Where to write it, mode 0600.
    #[arg(long, default_value = "kubeconfig", value_name = "FILE")]
    pub out: PathBuf,
    /// How long it is good for, in hours.
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub hours: u64,
}

/// Arguments of `render`.
#[derive(Debug, Args)]
pub struct Render {
    /// Which nodes; all that run Talos when none is named.
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Write one file a node into this directory, encrypted like the secrets file.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show and write the configs whole: they hold the keys of the cluster.
    #[arg(long)]
    pub plaintext: bool,
    /// Say what differs from the files in the directory, and write nothing.
    #[arg(long, requires = "out")]
    pub diff: bool,
    /// Exit with 2 when something differs.
    #[arg(long, requires = "diff")]
    pub exit_code: bool,
}

/// What can be done with the secrets bundle of a Talos cluster.
#[derive(Debug, Subcommand)]
pub enum SecretsTalos {
    /// Make the bundle of a new cluster.
    Create,
    /// Take over a bundle: of `talosctl gen secrets`, encrypted with SOPS or not, or out of a control plane's config.
    Import {
        /// The bundle, or a control plane's machine config.
        source: PathBuf,
    },
    /// Write the bundle as `talosctl gen secrets` does, in clear.
    Export {
        /// Where to write it, mode 0600; standard output when not given.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The talconfig.yaml. Its talenv files are read too, and files that it names are copied beside bramble.yaml.
    pub source: PathBuf,
}

/// What can be left.
#[derive(Debug, Subcommand)]
pub enum Eject {
    /// Talos: secrets bundle, machine configs and talosconfig, in clear, for talosctl.
    Talos(EjectTalos),
}

/// Arguments of `eject talos`.
#[derive(Debug, Args)]
pub struct EjectTalos {
    /// Where to write them; made if missing.
    #[arg(short, long, value_name = "DIR", default_value = "talos")]
    pub out: PathBuf,
}

/// Arguments of `talosconfig`.
#[derive(Debug, Args)]
pub struct Talosconfig {
    /// Where to write it, mode 0600.
    #[arg(long, default_value = "talosconfig", value_name = "FILE")]
    pub out: PathBuf,
    /// How long it is good for, in hours.
    #[arg(long, default_value_t = 24, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..))]
    pub hours: u64,
    /// What it may do: os:admin, os:operator, os:reader, os:etcd:backup (repeatable).
    #[arg(long = "role", value_name = "ROLE", default_value = "os:admin")]
    pub roles: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}

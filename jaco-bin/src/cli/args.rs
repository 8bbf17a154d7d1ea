//! What the command line accepts (spec 09).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Where the daemon of this host listens, unless the operator says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/jaco/jaco.sock";

/// JACO runs compose files on a cluster of Docker hosts.
#[derive(Debug, Parser)]
#[command(name = "jaco", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// How to print data
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    /// Print data only
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Say more about what happens (same as --log-level debug)
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// How much to log on standard error
    #[arg(long, global = true, default_value = "error")]
    pub(super) log_level: String,
    /// A node's API as host:port, instead of this host's daemon
    #[arg(long, global = true, requires = "ca_cert", requires = "token")]
    pub(super) server: Option<String>,
    /// Operator token for --server
    #[arg(long, global = true, env = "JACO_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// File with the cluster's CA certificate for --server
    #[arg(long, global = true, env = "JACO_CA_CERT")]
    pub(super) ca_cert: Option<PathBuf>,
    /// Unix socket of this host's daemon
    #[arg(long, global = true, env = "JACO_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Never use colors
    #[arg(long, global = true)]
    pub(super) no_color: bool,
    /// Read what all nodes have committed, not only what this node knows
    #[arg(long, global = true)]
    pub(super) consistent: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Form and inspect the cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Add, list and remove nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Bring a deployment to what its files say
    Apply(Apply),
    /// Check files without a cluster
    Validate(Validate),
    /// Show deployments, replicas and routes
    Status(Status),
    /// Show stored things in detail
    #[command(subcommand)]
    Get(GetCommand),
    /// Try the network between the nodes
    #[command(subcommand)]
    Net(NetCommand),
    /// Show what the containers of a service wrote
    Logs(Logs),
    /// Stop and forget a deployment
    Delete {
        /// Deployment
        deployment: String,
    },
    /// Go back to an earlier revision
    Rollback {
        /// Deployment
        deployment: String,
        /// Revision to restore; the previous one by default
        #[arg(long)]
        to: Option<u64>,
    },
    /// List the revisions of a deployment
    History {
        /// Deployment
        deployment: String,
    },
    /// Change how many replicas a service has
    Scale {
        /// <deployment>/<service>=<replicas>
        #[arg(value_parser = scaling)]
        target: Scaling,
    },
    /// Show what an apply, or the loss of a node, would do
    Plan(Plan),
    /// Explain where a replica is and what holds it
    Why {
        /// <deployment>-<service>-<n>
        replica: String,
    },
    /// Replace running replicas one after the other, unchanged
    Restart {
        /// <deployment> or <deployment>/<service>
        target: String,
    },
    /// Issue, revoke and list operator tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// List certificates, and order one anew
    #[command(subcommand)]
    Cert(CertCommand),
    /// Show who changed what
    Audit(Audit),
    /// Explain an error code
    Explain {
        /// Code, as in `Error: <code>: …`
        code: String,
    },
    /// Print a shell completion script
    Completion {
        /// Shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Form a cluster of this one node
    Init {
        /// The cluster's name, for people
        #[arg(long, default_value = "jaco")]
        name: String,
        /// Do not make the daemon start with the host
        #[arg(long)]
        no_systemd_enable: bool,
    },
    /// Show the members and the leader
    Status,
    /// Last resort: make a stopped member the only one, after the others are lost for good
    Recover {
        /// Say that the majority is lost for good
        #[arg(long, required = true)]
        force_new_cluster: bool,
        /// Configuration file of the daemon
        #[arg(long, env = "JACO_CONFIG")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Print the line that makes another host join
    IssueJoinToken {
        /// Only this hostname may use it
        #[arg(long)]
        node_name: Option<String>,
        /// Further name or address for the node's certificate
        #[arg(long = "san")]
        sans: Vec<String>,
        /// How long it can be used, e.g. 30m or 24h
        #[arg(long, default_value = "24h", value_parser = seconds)]
        ttl: u64,
    },
    /// Make this host join a cluster
    Join {
        /// API of a member, host:port
        #[arg(long)]
        peer: String,
        /// Join token, as issue-join-token printed it
        #[arg(long)]
        token: String,
        /// Do not make the daemon start with the host
        #[arg(long)]
        no_systemd_enable: bool,
    },
    /// List the nodes
    List,
    /// Move what a node runs elsewhere, and place nothing on it any more
    Drain {
        /// Hostname
        hostname: String,
        /// Do not wait until it is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a drained node take replicas again
    Undrain {
        /// Hostname
        hostname: String,
    },
    /// Give a node labels, which placement constraints look at
    Label {
        /// Hostname
        hostname: String,
        /// <key>=<value> to set, <key>- to remove
        #[arg(required = true, value_parser = labelling)]
        labels: Vec<Labelling>,
    },
    /// Drain a node, then take it out of the cluster
    Remove {
        /// Hostname
        hostname: String,
        /// Also when replicas with data are lost
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// List the certificates of all domains
    List,
    /// Order a certificate now, whatever it waits for
    Renew {
        /// Domain
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NetCommand {
    /// Have every node try the mesh, names and isolation; fails when something does not work
    Check,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The deployment's jaco.yaml
    pub(super) jaco: PathBuf,
    /// Compose file; discovered beside jaco.yaml by default, - for standard input
    #[arg(long)]
    pub(super) compose: Option<PathBuf>,
    /// Compose profile to include
    #[arg(long = "profile")]
    pub(super) profiles: Vec<String>,
    /// Refuse to send files from outside the project, and variables of this process
    #[arg(long)]
    pub(super) strict: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Wait until everything runs (default on a terminal)
    #[arg(long, overrides_with = "no_wait")]
    pub(super) wait: bool,
    /// Return once the revision is committed
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait at most, e.g. 90s or 10m
    #[arg(long, default_value = "10m", value_parser = seconds)]
    pub(super) timeout: u64,
}

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The deployment's jaco.yaml; jaco.yaml of this folder when no node is lost
    pub(super) jaco: Option<PathBuf>,
    /// Compose file; discovered beside jaco.yaml by default, - for standard input
    #[arg(long)]
    pub(super) compose: Option<PathBuf>,
    /// Compose profile to include
    #[arg(long = "profile")]
    pub(super) profiles: Vec<String>,
    /// The node that is thought to die, after the apply if there is one
    #[arg(long, value_name = "NODE")]
    pub(super) lose: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// The deployment's jaco.yaml
    #[arg(long, default_value = "jaco.yaml")]
    pub(super) jaco: PathBuf,
    /// Compose file; discovered beside jaco.yaml by default, - for standard input
    #[arg(long)]
    pub(super) compose: Option<PathBuf>,
    /// Compose profile to include
    #[arg(long = "profile")]
    pub(super) profiles: Vec<String>,
    /// Refuse to send files from outside the project, and variables of this process
    #[arg(long)]
    pub(super) strict: bool,
    /// Print the resolved compose document
    #[arg(long)]
    pub(super) print: bool,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// <deployment> or <deployment>/<service>
    pub(super) target: Option<String>,
    /// Show again whenever something changes
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum GetCommand {
    /// All deployments
    Deployments,
    /// One deployment with its manifests
    Deployment {
        /// Deployment
        name: String,
        /// Show values instead of redacting them
        #[arg(long)]
        show_secrets: bool,
    },
    /// All replicas
    Replicas,
    /// One replica with its gates and placement
    Replica {
        /// Replica id
        id: String,
    },
    /// All routes
    Routes,
    /// The routes of a domain in match order
    Route {
        /// Domain
        domain: String,
    },
    /// The addresses of a network, who has them, and its nodes
    Network {
        /// <deployment>/<network>
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// <deployment>/<service>
    pub(super) target: String,
    /// Go on as lines are written
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Lines since then: RFC 3339, or an age like 10m
    #[arg(long)]
    pub(super) since: Option<String>,
    /// Only the last lines of each replica
    #[arg(long)]
    pub(super) tail: Option<u32>,
    /// Print when each line was written
    #[arg(short, long)]
    pub(super) timestamps: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown once
    Issue {
        /// Whose it is
        #[arg(long)]
        name: String,
        /// What it is for, each role with all of those before it
        #[arg(long, default_value = "deploy", value_parser = ["read", "deploy", "admin"])]
        role: String,
        /// Only these deployments, comma separated; all when absent
        #[arg(long = "deployment", value_delimiter = ',')]
        deployments: Vec<String>,
        /// May run what reaches into its host
        #[arg(long)]
        allow_host: bool,
        /// May run privileged workloads
        #[arg(long)]
        allow_privileged: bool,
        /// How long it counts, e.g. 12h or 90d; without an end when absent
        #[arg(long, value_parser = seconds)]
        ttl: Option<u64>,
    },
    /// Make a token useless
    Revoke {
        /// Whose it is
        name: String,
        /// Also when it is the last active one
        #[arg(long)]
        force: bool,
    },
    /// List the tokens; secrets are not kept
    List,
}

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Events since then: RFC 3339, or an age like 10m
    #[arg(long)]
    pub(super) since: Option<String>,
    /// Only these event types
    #[arg(long = "type", value_delimiter = ',')]
    pub(super) types: Vec<String>,
    /// Go on as events are committed
    #[arg(short, long)]
    pub(super) follow: bool,
}

/// `<key>=<value>`, or `<key>-` without a value.
#[derive(Clone, Debug)]
pub(super) struct Labelling {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

fn labelling(text: &str) -> Result<Labelling, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text.strip_suffix('-').unwrap_or_default(), None),
    };
    if key.is_empty() {
        return Err(format!("\"{text}\" is neither <key>=<value> nor <key>-"));
    }
    let key = key.to_owned();
    Ok(Labelling { key, value })
}

/// `<deployment>/<service>=<replicas>`.
#[derive(Clone, Debug)]
pub(super) struct Scaling {
    pub(super) deployment: String,
    pub(super) service: String,
    pub(super) replicas: u32,
}

fn scaling(text: &str) -> Result<Scaling, String> {
    let shape = || format!("\"{text}\" is not <deployment>/<service>=<replicas>");
    let (target, replicas) = text.split_once('=').ok_or_else(shape)?;
    let (deployment, service) = target.split_once('/').ok_or_else(shape)?;
    let replicas = replicas.parse().map_err(|_| shape())?;
    Ok(Scaling {
        deployment: deployment.to_owned(),
        service: service.to_owned(),
        replicas,
    })
}

/// A length of time like `90s`, `10m`, `24h` or `7d`, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let shape = || format!("\"{text}\" is not a time like 90s, 10m or 24h");
    let unit = text.chars().last().ok_or_else(shape)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(shape()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| shape())?;
    number.checked_mul(factor).ok_or_else(shape)
}

//! What each call of the API needs: one table, from which `docs/reference/rights.md` is made.

use std::fmt::Write as _;

use super::Role;

/// What lets a caller in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The unix socket of the host itself.
    Socket,
    /// A join token, which the request carries.
    JoinToken,
    /// This role, or a stronger one.
    Role(Role),
}

/// One call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// As in the path: `Cluster`.
    pub service: &'static str,
    /// As in the path: `Init`.
    pub method: &'static str,
    /// What lets a caller in.
    pub need: Need,
    /// Whether a token that is bound to deployments sees and changes those only.
    pub is_scoped: bool,
    /// The command of `jaco` that makes it.
    pub command: &'static str,
}

const fn rpc(
    service: &'static str,
    method: &'static str,
    need: Need,
    is_scoped: bool,
    command: &'static str,
) -> Rpc {
    Rpc {
        service,
        method,
        need,
        is_scoped,
        command,
    }
}

const READ: Need = Need::Role(Role::Read);
const DEPLOY: Need = Need::Role(Role::Deploy);
const ADMIN: Need = Need::Role(Role::Admin);

/// Every call, in the order of the interface's files.
pub const RPCS: &[Rpc] = &[
    rpc("Cluster", "Init", Need::Socket, false, "cluster init"),
    rpc("Cluster", "Join", Need::Socket, false, "node join"),
    rpc("Cluster", "Status", READ, false, "cluster status"),
    rpc(
        "Cluster",
        "IssueJoinToken",
        ADMIN,
        false,
        "node issue-join-token",
    ),
    rpc("Cluster", "Enter", Need::JoinToken, false, "node join"),
    rpc("Cluster", "Nodes", READ, true, "node list"),
    rpc(
        "Cluster",
        "DrainNode",
        ADMIN,
        false,
        "node drain, node undrain",
    ),
    rpc("Cluster", "RemoveNode", ADMIN, false, "node remove"),
    rpc("Cluster", "LabelNode", ADMIN, false, "node label"),
    rpc("Cluster", "CheckNetwork", ADMIN, false, "net check"),
    rpc("Deploy", "Apply", DEPLOY, true, "apply"),
    rpc("Deploy", "Plan", READ, true, "plan"),
    rpc("Deploy", "Delete", DEPLOY, true, "delete"),
    rpc("Deploy", "Rollback", DEPLOY, true, "rollback"),
    rpc("Deploy", "Scale", DEPLOY, true, "scale"),
    rpc("Deploy", "Restart", DEPLOY, true, "restart"),
    rpc("Deploy", "Status", READ, true, "status"),
    rpc("Deploy", "Get", READ, true, "get, why"),
    rpc("Deploy", "History", READ, true, "history"),
    rpc("Deploy", "RenewCertificate", ADMIN, false, "cert renew"),
    rpc("Watch", "Status", READ, true, "status --watch"),
    rpc("Token", "Issue", ADMIN, false, "token issue"),
    rpc(
        "Token",
        "Revoke",
        READ,
        false,
        "token revoke; of another identity: admin",
    ),
    rpc("Token", "List", ADMIN, false, "token list"),
    rpc("Audit", "List", READ, true, "audit"),
    rpc("Audit", "Follow", READ, true, "audit --follow"),
    rpc("Logs", "Stream", READ, true, "logs"),
];

/// The row of a path like `/jaco.v1.Cluster/Init`; a call without a row is refused.
pub fn of_path(path: &str) -> Option<&'static Rpc> {
    let (service, method) = path.strip_prefix("/jaco.v1.")?.split_once('/')?;
    let is_it = |rpc: &&Rpc| rpc.service == service && rpc.method == method;
    RPCS.iter().find(is_it)
}

/// The page that says what each role may do.
pub fn page() -> String {
    let mut page = String::from(
        "# Rights\n\n\
         Made from the table that the daemon asks before it reads a request\n\
         (`jaco-core/src/access/rpc.rs`).\n\n\
         A role may do all that the ones above it may. Where the last column says so, a token\n\
         that was issued with `--deployment` sees and changes those deployments only. What\n\
         reaches into a host needs `--allow-host` as well, and a privileged container\n\
         `--allow-privileged`. The unix socket has every right.\n",
    );
    let mut section = |title: &str, need: Need| {
        let _ = write!(
            page,
            "\n## {title}\n\n| command | call | its deployments only |\n|---|---|---|\n"
        );
        for rpc in RPCS.iter().filter(|rpc| rpc.need == need) {
            let scoped = if rpc.is_scoped { "yes" } else { "" };
            let (service, method) = (rpc.service, rpc.method);
            let _ = writeln!(
                page,
                "| {} | `{service}.{method}` | {scoped} |",
                commands(rpc.command)
            );
        }
    };
    for role in Role::ALL {
        section(&format!("`{role}`"), Need::Role(role));
    }
    section("The unix socket of the host itself", Need::Socket);
    section("A join token", Need::JoinToken);
    page
}

/// The commands of a row as code; what is said of them stays prose.
fn commands(text: &str) -> String {
    let (names, remark) = match text.split_once(';') {
        Some((names, remark)) => (names, Some(remark)),
        None => (text, None),
    };
    let names: Vec<String> = names.split(", ").map(|n| format!("`jaco {n}`")).collect();
    match remark {
        Some(remark) => format!("{};{remark}", names.join(", ")),
        None => names.join(", "),
    }
}

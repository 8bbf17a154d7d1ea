//! Error codes: fieldless and closed, so that every mapping from them is an exhaustive match.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The gRPC status that a code travels under (spec 03, third column).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcStatus {
    /// The request is wrong whatever the state.
    InvalidArgument,
    /// The request is right but not in this state.
    FailedPrecondition,
    /// The named thing exists already.
    AlreadyExists,
    /// The named thing does not exist.
    NotFound,
    /// Try again soon.
    Unavailable,
    /// Who the caller is could not be shown.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// It took too long.
    DeadlineExceeded,
    /// A pool is used up.
    ResourceExhausted,
    /// A bug, or a code that is only ever a status detail.
    Internal,
}

macro_rules! codes {
    ($($name:ident $text:literal $status:ident $hint:literal;)*) => {
        /// One entry of the closed error set (spec 03). Each has a page in `docs/errors/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)] // the page of each code is its documentation
        pub enum ErrorCode { $($name,)* }

        impl ErrorCode {
            /// Every code, in the order of spec 03.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The lower snake_case text of the code.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// The gRPC status it travels under.
            pub fn rpc_status(self) -> RpcStatus {
                match self { $(ErrorCode::$name => RpcStatus::$status,)* }
            }

            /// Its page of `docs/errors`: what it means and how to clear it; Markdown.
            pub fn page(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => {
                        include_str!(concat!("../../../docs/errors/", $text, ".md"))
                    })*
                }
            }

            /// What to do next, in one line.
            pub fn hint(self) -> &'static str {
                match self { $(ErrorCode::$name => $hint,)* }
            }
        }
    };
}

codes! {
    ClusterUninitialized "cluster_uninitialized" FailedPrecondition
        "run `jaco cluster init` to form a cluster, or `jaco node join` to enter one";
    ClusterAlreadyInitialized "cluster_already_initialized" FailedPrecondition
        "stop jacod and delete its data directory to start over; this destroys the node's state";
    NodeAlreadyMember "node_already_member" AlreadyExists
        "give this host another hostname, or `jaco node remove` the old member first";
    NoLeader "no_leader" Unavailable
        "an election is in progress; try again in a moment";
    QuorumLost "quorum_lost" Unavailable
        "bring a majority of the voters back; reads and running containers go on meanwhile";
    TokenInvalid "token_invalid" Unauthenticated
        "check JACO_TOKEN; `jaco token issue` on a node makes a new one";
    TokenRevoked "token_revoked" Unauthenticated
        "ask an operator for a new token: `jaco token issue --name <you>`";
    PermissionDenied "permission_denied" PermissionDenied
        "use a token with that right: `jaco token issue --role … [--allow-host] …`";
    JoinTokenInvalid "join_token_invalid" Unauthenticated
        "issue a new one on a member: `jaco node issue-join-token`";
    TlsUntrusted "tls_untrusted" Unauthenticated
        "check the address and the CA: the peer's certificate is not of this cluster";
    ValidationFailed "validation_failed" InvalidArgument
        "correct the named field; `jaco validate` checks files without a cluster";
    UnknownService "unknown_service" InvalidArgument
        "use one of the declared services, or add it to the compose file";
    UnknownHost "unknown_host" InvalidArgument
        "use one of the member hostnames: `jaco node list`";
    UnknownNetwork "unknown_network" InvalidArgument
        "declare the network at the top level of the compose file";
    ReservedPort "reserved_port" InvalidArgument
        "use a `routes:` entry in jaco.yaml for HTTP, or another host port";
    PortConflict "port_conflict" AlreadyExists
        "choose another host port, or remove the deployment that owns it";
    RouteTlsMixed "route_tls_mixed" InvalidArgument
        "give every route of the domain the same `tls:` value";
    LegacyComposeField "legacy_compose_field" InvalidArgument
        "replace the key by its modern equivalent";
    EnvFileUnresolved "env_file_unresolved" InvalidArgument
        "use a `jaco` of this version: it reads env files before it sends";
    ReplicasExceedPinnedHosts "replicas_exceed_pinned_hosts" InvalidArgument
        "lower `replicas`, or list more hosts";
    InsufficientCapacity "insufficient_capacity" Internal
        "lower the reservations, add a node, or free capacity: `jaco plan` shows what fits";
    DeploymentNotFound "deployment_not_found" NotFound
        "`jaco status` lists the deployments";
    NoPreviousRevision "no_previous_revision" FailedPrecondition
        "`jaco history <deployment>` lists the revisions that can be restored";
    ServiceNotFound "service_not_found" NotFound
        "`jaco status <deployment>` lists its services";
    NodeNotFound "node_not_found" NotFound
        "`jaco node list` lists the members";
    ReplicaNotFound "replica_not_found" NotFound
        "`jaco get replicas` lists the replicas";
    RouteNotFound "route_not_found" NotFound
        "`jaco get routes` lists the domains";
    NodeHostsPinnedReplicas "node_hosts_pinned_replicas" FailedPrecondition
        "move or delete the listed replicas, or repeat with --force to lose them";
    DrainTimeout "drain_timeout" DeadlineExceeded
        "see why the listed replicas do not start elsewhere: `jaco why <replica>`";
    ImagePullFailed "image_pull_failed" Internal
        "check the image name and the registry; a new apply tries again at once";
    PortNotListening "port_not_listening" Internal
        "make the container listen on the routed port on 0.0.0.0";
    ContainerExited "container_exited" Internal
        "`jaco logs <deployment>/<service>` shows its last words";
    RestartExhausted "restart_exhausted" Internal
        "fix the cause that `jaco logs` shows, then apply again";
    DockerError "docker_error" Internal
        "look at the engine on that node: `docker info`, disk space, its log";
    ExternalVolumeMissing "external_volume_missing" Internal
        "create it on the node: `docker volume create <name>`";
    VolumeNotOwned "volume_not_owned" Internal
        "declare the volume `external: true` to use it, or choose another name";
    CertFailed "cert_failed" Internal
        "check that the domain's DNS answers with a cluster address and port 80 is reachable";
    IsolationUnavailable "isolation_unavailable" FailedPrecondition
        "install nftables and give jacod CAP_NET_ADMIN, then restart it";
    IsolationSelfTestFailed "isolation_self_test_failed" Internal
        "something else changes table `inet jaco`: find it with `nft monitor`";
    SubnetPoolExhausted "subnet_pool_exhausted" ResourceExhausted
        "delete a deployment or a network, or set another ipam_pool";
    ConfigInvalid "config_invalid" Internal
        "correct the named key; `jacod --check-config` checks the file";
    BackupInvalid "backup_invalid" InvalidArgument
        "use an intact archive of this or an older major version, and its state key";
    UpgradeVerificationFailed "upgrade_verification_failed" Internal
        "nothing was changed; fetch the release again from its source";
    UpgradeFailed "upgrade_failed" Internal
        "the previous version runs again; see `journalctl -u jaco`";
    Internal "internal" Internal
        "this is a bug; please report it with the details";
}

impl ErrorCode {
    /// True when the same request may succeed later without any change to it.
    pub fn is_retryable(self) -> bool {
        matches!(self.rpc_status(), RpcStatus::Unavailable)
    }

    /// The exit code of the command line (spec 09): 3 without a leader or quorum, else 1.
    pub fn exit_code(self) -> u8 {
        if self.is_retryable() { 3 } else { 1 }
    }

    /// Finds a code by its text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_code_is_its_serde_name() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("{:?}", code.as_str()));
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
    }
}

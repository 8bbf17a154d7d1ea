//! The daemon as its API sees it: forming, joining, admitting, writing, reading.

mod admission;

use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use futures::future::join_all;
use jaco_core::access::{Caller, Role};
use jaco_core::cluster::attempts::Attempts;
use jaco_core::cluster::command::{ClusterInit, NewNode};
use jaco_core::cluster::token::JoinCredential;
use jaco_core::cluster::{ClusterState, Command, Outcome, apply};
use jaco_core::cluster::{Entry, Proposal};
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::{ClusterId, NodeName, ReplicaId};
use jaco_core::manifest::hash::{hex, sha256_hex};
use jaco_core::manifest::spec::DeploymentSpec;
use jaco_core::manifest::{Bundle, parse};
use jaco_core::node::checks;
use jaco_core::ports::consensus::ConsensusStatus;
use jaco_core::ports::container_logs::{LogLines, LogOptions};
use jaco_core::ports::control_plane::{
    Admission, AdmissionRequest, Formed, Invitation, Invited, JoinRequest,
};
use jaco_core::ports::{Clock, Consensus, ControlPlane, Ids, RuntimeError, SelfCheck};
use jaco_core::view;
use jaco_core::view::changes::Applied;
use jaco_core::view::check::NetworkCheck;

use super::config::Config;
use super::drive::Member;
use super::identity::{self, Identity};
use super::wiring::{self, Opened, SystemClock, SystemIds};

/// The name under which the CA's key is sealed.
const CA_KEY: &str = "ca-key";

/// One daemon, member or not.
pub(super) struct Plane {
    config: Arc<Config>,
    membership: RwLock<Option<Arc<Membership>>>,
    /// Held while a cluster is formed or joined, so that only one such attempt runs.
    changing: tokio::sync::Mutex<()>,
    /// Join tokens that were shown here and were wrong.
    attempts: Mutex<Attempts>,
    /// Held while a host is let in: one after the other.
    admitting: tokio::sync::Mutex<()>,
    /// Itself, for what outlives a call.
    this: Weak<Self>,
}

/// What a member has.
pub(super) struct Membership {
    identity: Identity,
    opened: Opened,
    member: Arc<Member>,
    checks: Arc<dyn SelfCheck>,
}

impl Plane {
    /// A daemon that is not a member yet.
    pub(super) fn new(config: Arc<Config>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            config,
            membership: RwLock::new(None),
            changing: tokio::sync::Mutex::new(()),
            attempts: Mutex::default(),
            admitting: tokio::sync::Mutex::new(()),
            this: Weak::clone(this),
        })
    }

    fn get(&self) -> Option<Arc<Membership>> {
        self.membership
            .read()
            .expect("no holder of this lock panics")
            .clone()
    }

    fn joined(&self) -> Result<Arc<Membership>, Error> {
        self.get().ok_or_else(|| {
            let message = "this node is not part of a cluster yet";
            Error::new(ErrorCode::ClusterUninitialized, message)
        })
    }

    /// The consensus of this member, for the life cycle.
    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.get().map(|membership| Arc::clone(&membership.member))
    }

    /// Starts everything that a member does.
    pub(super) async fn activate(&self, identity: Identity, opened: Opened) -> anyhow::Result<()> {
        let member = wiring::member(&self.config, &identity, &opened)?;
        let plane = self.this.upgrade().context("the daemon is stopping")?;
        let checks = wiring::checks(&member);
        let served = Arc::clone(&checks);
        wiring::serve_remote(&self.config, &opened, &member, served, plane).await?;
        wiring::serve_metrics(&self.config, &opened).await?;
        let membership = Arc::new(Membership {
            identity,
            opened,
            member: Arc::clone(&member),
            checks,
        });
        *self
            .membership
            .write()
            .expect("no holder of this lock panics") = Some(membership);
        wiring::drive(&member);
        tokio::spawn(super::lifecycle::leave_when_removed(member));
        Ok(())
    }

    fn refuse_member(&self) -> Result<(), Error> {
        if self.get().is_some() {
            let message = "this node is part of a cluster already";
            return Err(Error::new(ErrorCode::ClusterAlreadyInitialized, message));
        }
        Ok(())
    }

    fn new_node(&self, serial: String, key_hash: String) -> NewNode {
        NewNode {
            name: NodeName::new(&self.config.hostname),
            api_address: self.config.api_address(),
            cluster_address: self.config.cluster_address(),
            serial,
            key_hash,
        }
    }

    /// The state key of this host, made when there is none.
    fn state_key(&self) -> Result<[u8; 32], Error> {
        if let Some(key) = identity::load_state_key(&self.config).map_err(Error::internal)? {
            return Ok(key);
        }
        let mut key = [0; 32];
        SystemIds.fill(&mut key);
        identity::save_state_key(&self.config, &key).map_err(Error::internal)?;
        Ok(key)
    }
}

#[async_trait]
impl ControlPlane for Plane {
    fn node(&self) -> NodeName {
        NodeName::new(&self.config.hostname)
    }

    async fn form(&self, name: String) -> Result<Formed, Error> {
        let _alone = self.changing.lock().await;
        self.refuse_member()?;
        let config = &self.config;
        let cluster_id = SystemIds.uuid();
        let (ca_cert, ca_key) = wiring::new_authority(&cluster_id)?;
        let (key, request) = wiring::new_request(&config.hostname)?;
        let sans = [
            config.advertise.clone(),
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
        ];
        let (chain, serial) =
            wiring::sign_node(&ca_cert, &ca_key, &request, &config.hostname, &sans)?;
        let key_hash = wiring::key_hash(&chain)?;
        let identity = Identity {
            cluster_id: cluster_id.clone(),
            member: 1,
            hostname: config.hostname.clone(),
            chain,
            key: key.into(),
            ca_cert: ca_cert.clone(),
        };
        // What an attempt that was cut off left must not come back as this cluster's log.
        identity::set_aside(config, "incomplete").map_err(Error::internal)?;
        let state_key = self.state_key()?;
        let opened = wiring::open(config, &identity, &state_key)
            .await
            .map_err(Error::internal)?;
        let token = SystemIds.secret();
        let init = ClusterInit {
            id: ClusterId::new(&cluster_id),
            name,
            ca_cert,
            ca_key_sealed: hex(&opened.sealer.seal(CA_KEY, ca_key.as_bytes())),
            ipam_pool: config.ipam_pool,
            mesh_pool: config.mesh_pool,
            node: self.new_node(serial, key_hash),
            token_hash: sha256_hex(token.as_bytes()),
        };
        let node = NodeName::new(&config.hostname);
        opened
            .consensus
            .initialize(&node, &config.cluster_address())
            .await?;
        let command = Command::ClusterInit(Box::new(init));
        let node_name = NodeName::new(&config.hostname);
        write_when_led(&*opened.consensus, node_name, command).await??;
        identity::save(config, &identity, &state_key).map_err(Error::internal)?;
        self.activate(identity, opened)
            .await
            .map_err(Error::internal)?;
        let state_key_path = config.state_key.display().to_string();
        Ok(Formed {
            cluster_id,
            token,
            state_key_path,
        })
    }

    async fn join(&self, request: JoinRequest) -> Result<(), Error> {
        let _alone = self.changing.lock().await;
        self.refuse_member()?;
        let credential = JoinCredential::parse(&request.token)
            .ok_or_else(|| Error::new(ErrorCode::JoinTokenInvalid, "this is not a join token"))?;
        let ca_hash = match &request.ca_cert {
            Some(pem) => wiring::authority_of(pem)?.0,
            None => credential.ca_hash.clone(),
        };
        let config = &self.config;
        let (key, csr) = wiring::new_request(&config.hostname)?;
        let admission = AdmissionRequest {
            secret: credential.secret,
            hostname: NodeName::new(&config.hostname),
            csr,
            api_address: config.api_address(),
            cluster_address: config.cluster_address(),
            from: None,
        };
        let admission = wiring::enter(&request.peer, &ca_hash, admission).await?;
        let (hash, ca_cert) = wiring::authority_of(&admission.chain)?;
        if hash != ca_hash {
            let message = "the certificate that was issued is not of the pinned CA";
            return Err(Error::new(ErrorCode::TlsUntrusted, message));
        }
        let state_key: [u8; 32] = admission
            .state_key
            .try_into()
            .map_err(|_| Error::internal("the state key does not have 32 bytes"))?;
        identity::set_aside(config, "incomplete").map_err(Error::internal)?;
        identity::save_state_key(config, &state_key).map_err(Error::internal)?;
        let identity = Identity {
            cluster_id: admission.cluster_id,
            member: admission.member,
            hostname: config.hostname.clone(),
            chain: admission.chain,
            key: key.into(),
            ca_cert,
        };
        let opened = wiring::open(config, &identity, &state_key)
            .await
            .map_err(Error::internal)?;
        identity::save(config, &identity, &state_key).map_err(Error::internal)?;
        self.activate(identity, opened)
            .await
            .map_err(Error::internal)
    }

    async fn admit(&self, request: AdmissionRequest) -> Result<Admission, Error> {
        self.let_in(request).await
    }

    async fn invite(&self, caller: &Caller, invitation: Invitation) -> Result<Invited, Error> {
        let membership = self.joined()?;
        let (ca_hash, _) = wiring::authority_of(&membership.identity.ca_cert)?;
        let credential = JoinCredential {
            ca_hash,
            secret: SystemIds.secret(),
        };
        let expires_at = SystemClock.now() + invitation.ttl;
        let command = Command::JoinTokenIssue {
            hash: sha256_hex(credential.secret.as_bytes()),
            node: invitation.node,
            sans: invitation.sans,
            ttl: invitation.ttl,
        };
        self.write(caller, command).await?;
        Ok(Invited {
            token: credential.reveal(),
            peer: self.config.api_address(),
            expires_at,
        })
    }

    async fn write(&self, caller: &Caller, command: Command) -> Result<Outcome, Error> {
        let membership = self.joined()?;
        membership
            .opened
            .consensus
            .write(&caller.author, command)
            .await?
    }

    async fn deploy(
        &self,
        caller: &Caller,
        bundle: Bundle,
        dry_run: bool,
    ) -> Result<Applied, Error> {
        let membership = self.joined()?;
        let (bundle, spec) = parsed(bundle).await?;
        let state = self.state(false).await?;
        caller.require(&state, Role::Deploy, Some(&spec.name))?;
        let old = state.deployments.get(&spec.name).filter(|d| !d.deleting);
        let changes = view::changes(old.map(|old| old.spec().as_ref()), &spec);
        let privileged = caller.rights.allow_privileged;
        let command = Command::Apply {
            bundle: Arc::new(bundle),
            spec: Arc::new(spec),
            privileged,
        };
        let outcome = match dry_run {
            true => rehearse(&state, caller, command)?,
            false => {
                membership
                    .opened
                    .consensus
                    .write(&caller.author, command)
                    .await??
            }
        };
        let Outcome::Revision {
            deployment,
            revision,
            changed,
        } = outcome
        else {
            return Err(Error::internal("a revision was expected"));
        };
        Ok(Applied {
            deployment,
            revision,
            changed,
            changes,
            converged: None,
        })
    }

    async fn state(&self, consistent: bool) -> Result<Arc<ClusterState>, Error> {
        let membership = self.joined()?;
        if consistent {
            membership.opened.consensus.catch_up().await?;
        }
        Ok(membership.opened.consensus.snapshot())
    }

    fn consensus(&self) -> ConsensusStatus {
        self.get()
            .map(|membership| membership.opened.consensus.status())
            .unwrap_or_default()
    }

    async fn changed_after(&self, index: u64) {
        match self.get() {
            Some(membership) => membership.opened.consensus.applied_after(index).await,
            None => std::future::pending().await,
        }
    }

    async fn logs(
        &self,
        replica: &ReplicaId,
        options: &LogOptions,
    ) -> Result<Box<dyn LogLines>, RuntimeError> {
        let unreachable = |error: Error| RuntimeError::Unreachable(error.to_string());
        let membership = self.joined().map_err(unreachable)?;
        let state = membership.opened.consensus.snapshot();
        let home = &state.replica(replica).map_err(unreachable)?.node;
        if *home == self.node() {
            return membership.member.logs.open(replica, options).await;
        }
        let node = state.node(home).map_err(unreachable)?;
        let peers = membership.opened.consensus.peers();
        wiring::remote_logs(&peers, &node.cluster_address, replica, options).await
    }

    async fn check_network(&self) -> Result<NetworkCheck, Error> {
        let membership = self.joined()?;
        let state = membership.opened.consensus.snapshot();
        let (me, peers) = (self.node(), membership.opened.consensus.peers());
        let asked = state.nodes.values().map(|node| async {
            if node.name == me {
                return membership.checks.check().await;
            }
            let rows = wiring::remote_check(&peers, &node.cluster_address).await;
            rows.unwrap_or_else(|reason| vec![checks::silent(&node.name, &reason)])
        });
        Ok(NetworkCheck::of(join_all(asked).await.concat()))
    }
}

/// Commits as soon as the one member of a new group has elected itself.
async fn write_when_led(
    consensus: &dyn Consensus,
    node: NodeName,
    command: Command,
) -> Result<jaco_core::cluster::Applied, Error> {
    let author = Caller::local(node, 0, "root".to_owned()).author;
    for _ in 0..100 {
        match consensus.write(&author, command.clone()).await {
            Err(jaco_core::ports::ConsensusError::NoLeader) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done.map_err(Error::from),
        }
    }
    Err(jaco_core::ports::ConsensusError::NoLeader.into())
}

/// Reads manifests on a thread of its own: large ones take longer than a heartbeat may wait.
async fn parsed(bundle: Bundle) -> Result<(Bundle, DeploymentSpec), Error> {
    let read = move || {
        let spec = parse(&bundle).map_err(|report| {
            let empty = || Error::internal("an empty report");
            report.to_error().unwrap_or_else(empty)
        })?;
        Ok((bundle, spec))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(Error::internal(error)))
}

/// What a command would give, tried on a copy of the state.
fn rehearse(state: &ClusterState, caller: &Caller, command: Command) -> Result<Outcome, Error> {
    let mut copy = state.clone();
    let identity = caller.identity.clone();
    let proposal = Proposal {
        at: SystemClock.now(),
        identity,
        author: Some(caller.author.clone()),
        command,
    };
    apply(
        &mut copy,
        &Entry {
            index: state.index + 1,
            proposal,
        },
    )
}

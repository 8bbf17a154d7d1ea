//! `Deploy`: manifests in, status out.

use std::sync::Arc;

use jaco_core::access::{Caller, Role};
use jaco_core::cluster::addresses::Scope;
use jaco_core::cluster::apply::admits;
use jaco_core::cluster::{ClusterState, Command, Outcome};
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::{DeploymentName, Domain, ReplicaId, ServiceName};
use jaco_core::manifest::{Bundle, parse};
use jaco_core::scheduler::forecast::{self, Forecast, Thought};
use jaco_core::view;
use jaco_core::view::changes::Applied;
use serde_json::json;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, refuse};
use crate::api::convert::{document, invalid};
use crate::transport::proto::v1 as proto;
use crate::transport::proto::v1::deploy_server::Deploy;

fn bundle(bytes: &[u8]) -> Result<Bundle, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("the bundle is malformed: {error}");
        Error::new(ErrorCode::ValidationFailed, message).with("field", "bundle")
    })
}

/// What would follow, for a caller who may apply the manifests where there are any.
fn forecast(
    state: &ClusterState,
    caller: &Caller,
    request: proto::PlanRequest,
) -> Result<Forecast, Error> {
    let change = match request.bundle.is_empty() {
        true => None,
        false => {
            let bundle = bundle(&request.bundle)?;
            let spec = parse(&bundle).map_err(|report| {
                let empty = || Error::internal("an empty report");
                report.to_error().unwrap_or_else(empty)
            })?;
            caller.require(state, Role::Read, Some(&spec.name))?;
            admits(state, &spec, &caller.rights)?;
            let apply = Command::Apply {
                bundle: Arc::new(bundle),
                spec: Arc::new(spec),
                privileged: caller.rights.allow_privileged,
            };
            Some((caller.identity.clone(), apply))
        }
    };
    let loss = given(request.lose);
    forecast::foresee(state, &Thought { change, loss }, state.clock)
}

/// An empty text means: not given.
pub(super) fn given<T: From<String>>(text: String) -> Option<T> {
    Some(text).filter(|text| !text.is_empty()).map(T::from)
}

#[async_trait]
impl Deploy for Api {
    async fn apply(
        &self,
        request: Request<proto::ApplyRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let bundle = self.apart(move || bundle(&request.bundle)).await?;
        let applied = self.plane.deploy(&caller, bundle, dry_run).await;
        document(&applied.map_err(refuse)?).map(Response::new)
    }

    async fn plan(
        &self,
        request: Request<proto::PlanRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let state = self.seen(&caller, false).await?;
        let forecast = self.apart(move || forecast(&state, &caller, request));
        document(&forecast.await?).map(Response::new)
    }

    async fn delete(
        &self,
        request: Request<proto::NameRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let deployment = DeploymentName::new(request.into_inner().name);
        let command = Command::Delete {
            deployment: deployment.clone(),
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        document(&json!({"deployment": deployment, "deleting": true})).map(Response::new)
    }

    async fn rollback(
        &self,
        request: Request<proto::RollbackRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let deployment = DeploymentName::new(request.deployment);
        let command = Command::Rollback {
            deployment: deployment.clone(),
            to: request.to,
        };
        self.revise(&caller, &deployment, command).await
    }

    async fn scale(
        &self,
        request: Request<proto::ScaleRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let deployment = DeploymentName::new(request.deployment);
        let command = Command::Scale {
            deployment: deployment.clone(),
            service: ServiceName::new(request.service),
            replicas: request.replicas,
        };
        self.revise(&caller, &deployment, command).await
    }

    async fn restart(
        &self,
        request: Request<proto::RestartRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let deployment = DeploymentName::new(request.deployment);
        let command = Command::Restart {
            deployment: deployment.clone(),
            service: given(request.service),
        };
        self.revise(&caller, &deployment, command).await
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let state = self.seen(&caller, request.consistent).await?;
        let deployment = given(request.deployment);
        let service = given(request.service);
        let status = view::status::status(&state, deployment.as_ref(), service.as_ref());
        document(&status.map_err(refuse)?).map(Response::new)
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let state = self.seen(&caller, request.consistent).await?;
        let name = request.name;
        let all = || view::status::status(&state, None, None).map_err(refuse);
        let answer = match request.kind.as_str() {
            "deployments" => document(&json!({"deployments": all()?.deployments})),
            "replicas" => document(&json!({"replicas": all()?.replicas})),
            "routes" => document(&json!({"routes": all()?.routes})),
            "certs" => document(&view::cert::list(&state)),
            "deployment" => {
                let name = DeploymentName::new(name);
                if request.show_secrets {
                    self.note_secrets_shown(&caller, &name).await?;
                }
                let detail = view::deployment::detail(&state, &name, request.show_secrets);
                document(&detail.map_err(refuse)?)
            }
            "replica" => {
                let detail = view::replica::detail(&state, &ReplicaId::new(name));
                document(&detail.map_err(refuse)?)
            }
            "route" => {
                let domain = Domain::new(name.to_ascii_lowercase());
                let detail = view::route::detail(&state, &self.plane.node(), &domain);
                document(&detail.map_err(refuse)?)
            }
            "network" => {
                let Some((deployment, network)) = name.split_once('/') else {
                    let message = format!("\"{name}\" is not <deployment>/<network>");
                    return Err(invalid("name", message));
                };
                let scope = Scope {
                    deployment: deployment.into(),
                    network: network.into(),
                };
                document(&view::network::detail(&state, &scope).map_err(refuse)?)
            }
            other => Err(invalid(
                "kind",
                format!("\"{other}\" is nothing that can be got"),
            )),
        };
        answer.map(Response::new)
    }

    async fn renew_certificate(
        &self,
        request: Request<proto::RenewCertificateRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let domain = Domain::new(request.into_inner().domain.to_ascii_lowercase());
        let command = Command::CertificateRenew {
            domain: domain.clone(),
        };
        self.plane.write(&caller, command).await.map_err(refuse)?;
        document(&json!({"domain": domain, "ordering": true})).map(Response::new)
    }

    async fn history(
        &self,
        request: Request<proto::NameRequest>,
    ) -> Result<Response<proto::Document>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let state = self.seen(&caller, request.consistent).await?;
        let history = view::deployment::history(&state, &DeploymentName::new(request.name));
        document(&history.map_err(refuse)?).map(Response::new)
    }
}

impl Api {
    /// Refuses who may not see secrets; commits the event that tells of the others.
    async fn note_secrets_shown(
        &self,
        caller: &Caller,
        name: &DeploymentName,
    ) -> Result<(), Status> {
        self.require(caller, Role::Deploy, name).await?;
        let deployment = name.clone();
        let command = Command::ShowSecrets { deployment };
        let written = self.plane.write(caller, command).await;
        written.map(drop).map_err(refuse)
    }

    /// Commits a command that makes a new revision, and says what it changes.
    async fn revise(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        command: Command,
    ) -> Result<Response<proto::Document>, Status> {
        let before = self.plane.state(false).await.map_err(refuse)?;
        let old = before
            .deployments
            .get(deployment)
            .map(|d| Arc::clone(d.spec()));
        let outcome = self.plane.write(caller, command).await.map_err(refuse)?;
        let Outcome::Revision {
            deployment,
            revision,
            changed,
        } = outcome
        else {
            return Err(refuse(Error::internal("a revision was expected")));
        };
        // The leader has applied it; this node may be a moment behind.
        let after = self.plane.state(true).await.map_err(refuse)?;
        let new = after.deployment(&deployment).map_err(refuse)?.spec();
        let changes = view::changes(old.as_deref(), new);
        let applied = Applied {
            deployment,
            revision,
            changed,
            changes,
            converged: None,
        };
        document(&applied).map(Response::new)
    }
}
